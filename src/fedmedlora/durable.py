"""Writing that survives a full disk or a pulled plug: a folder is whole, or as it was before."""

from __future__ import annotations

import os
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from typing import IO

from fedmedlora.errors import MisnamedError, RunError


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder that takes ``folder``'s place when the block ends well.

    The disk has all that is in it before it takes the place. What a killed process leaves of it,
    ``clear_leftovers`` clears away.

    Raises:
        RunError: an ``OSError`` happened; the temporary folder is removed, ``folder`` is as before.
    """
    fresh = folder.parent / f".{folder.name}.{uuid.uuid4().hex[:8]}.tmp"
    missing = [parent for parent in fresh.parents if not parent.exists()]
    try:
        fresh.mkdir(parents=True)
        yield fresh
        _sync_tree(fresh)
        if folder.exists():
            old = fresh.with_suffix(".old")
            folder.replace(old)
            try:
                fresh.replace(folder)
            except BaseException:
                old.replace(folder)
                raise
            shutil.rmtree(old, ignore_errors=True)
        else:
            fresh.replace(folder)
        for made in (folder, *missing):
            _sync(made.parent)
    except OSError as error:
        raise RunError(
            f"cannot write {folder}: {error.strerror}; what was there before is untouched"
        ) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def refuse_below_file(folder: Path) -> None:
    """Refuse the name of a folder that cannot be made, since something above it is no folder.

    Raises:
        MisnamedError: so it is.
    """
    above = next((place for place in folder.parents if place.exists()), None)
    if above is not None and not above.is_dir():
        raise MisnamedError(f"{folder} cannot be made: {above} is no folder; name another")


def resolved(path: Path) -> Path:
    """The path from the root, its links followed; whoever opens it is told of links that go round.

    ``Path.resolve`` raises ``RuntimeError`` of them.
    """
    return Path(os.path.realpath(path))


def clear_unfinished(folder: Path) -> None:
    """Clear away what killed processes left of a ``new_folder`` that is not there yet."""
    for left in folder.parent.glob(f".{escape(folder.name)}.{'[0-9a-f]' * 8}.tmp"):
        shutil.rmtree(left, ignore_errors=True)


def clear_leftovers(root: Path) -> None:
    """Clear away what killed processes left anywhere in ``root``, where nobody writes now.

    A folder that was just being replaced is put back; it is never lost.
    """
    for old in list(root.rglob(".*.old")):
        folder = old.with_name(old.name[1:].rsplit(".", 2)[0])
        if not folder.exists():
            old.replace(folder)
    for pattern in (".*.old", ".*.tmp", ".*.partial"):
        for left in list(root.rglob(pattern)):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file and wait until the disk has it."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def write_private(path: Path, data: bytes) -> None:
    """Write a new file that its owner alone can read, not for a moment others either.

    Raises:
        RunError: it exists already (it is never overwritten), or cannot be written.
    """
    if path.exists():
        raise RunError(f"{path} exists already, and is never overwritten")
    try:
        private_folder(path.parent)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror}") from error


def open_private(path: Path) -> IO[bytes]:
    """Open a file to append to and to read; it and folders that it needs are its owner's alone."""
    private_folder(path.parent)
    handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
    if os.name != "nt":
        os.fchmod(handle, 0o600)  # of one that was there
    return os.fdopen(handle, "a+b")


def wait_for_lock(file: IO[bytes]) -> None:
    """Hold off every other process that asks for the same until the file is closed.

    On Windows, which has no such lock, nobody is held off.

    Raises:
        OSError: the file system has no locks.
    """
    if sys.platform != "win32":
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX)


def private_folder(folder: Path) -> None:
    """Make a folder and what is missing above it, for its owner alone; what is there stays so."""
    for place in reversed((folder, *folder.parents)):
        if not place.is_dir():
            place.mkdir(mode=0o700, exist_ok=True)


def replace_bytes(path: Path, data: bytes) -> None:
    """Write a file in the place of another: after a crash there is one of the two, whole.

    Raises:
        RunError: it cannot be written.
    """
    _replace(path, lambda fresh: write_bytes(fresh, data))


def replace_private(path: Path, data: bytes) -> None:
    """As ``replace_bytes``, a file that its owner alone can read, in a folder likewise."""
    _replace(path, lambda fresh: write_private(fresh, data))


def _replace(path: Path, write: Callable[[Path], None]) -> None:
    fresh = path.with_name(f".{path.name}.tmp")
    try:
        fresh.unlink(missing_ok=True)  # of a killed process
        try:
            write(fresh)
            fresh.replace(path)
        finally:
            fresh.unlink(missing_ok=True)
        _sync(path.parent)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror}") from error


def _sync_tree(folder: Path) -> None:
    for place, _, names in os.walk(folder, topdown=False):
        for name in names:
            _sync(Path(place) / name)
        _sync(Path(place))


def _sync(path: Path) -> None:
    if os.name == "nt":  # folders cannot be opened there
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
