"""A folder in which one process at a time may work; who else comes is told so."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from fedmedlora.errors import RunError


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes from working in a folder until the block ends.

    Raises:
        RunError: one does already, or the folder cannot be written.
    """
    with ExitStack() as stack:
        try:
            lock = stack.enter_context((folder / ".lock").open("ab"))
        except OSError as error:
            raise RunError(f"{folder} cannot be written: {error.strerror}") from error
        if sys.platform != "win32":
            import fcntl

            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise RunError(
                    f"{folder}: another process runs into this folder; wait for it, or give "
                    "another --out"
                ) from error
            except OSError:
                pass  # a file system without locks: nothing can be known
        yield
