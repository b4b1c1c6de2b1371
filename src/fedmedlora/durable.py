"""Writing that survives a full disk or a pulled plug: a folder is whole, or as it was before."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedmedlora.errors import RunError


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder that takes ``folder``'s place when the block ends well.

    Raises:
        RunError: an ``OSError`` happened; the temporary folder is removed, ``folder`` is as before.
    """
    fresh = folder.parent / f".{folder.name}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        fresh.mkdir(parents=True)
        yield fresh
        _sync_folder(fresh)
        if folder.exists():
            old = fresh.with_suffix(".old")
            folder.replace(old)
            fresh.replace(folder)
            shutil.rmtree(old)
        else:
            fresh.replace(folder)
        _sync_folder(folder.parent)
    except OSError as error:
        raise RunError(
            f"cannot write {folder}: {error.strerror}; what was there before is untouched"
        ) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file and wait until the disk has it."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # folders cannot be opened there
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
