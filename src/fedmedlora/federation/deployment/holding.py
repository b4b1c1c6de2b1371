"""The one command that changes a coordinator's folder: held while it runs, and told to end.

STATE/.app.lock     held for as long as the command lives
STATE/start.pid     which process that is
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fedmedlora.durable import replace_private
from fedmedlora.errors import RunError
from fedmedlora.federation.deployment.journal import at_work, is_at_work
from fedmedlora.federation.deployment.layout import CoordinatorFolder, refuse_other_folders


@contextmanager
def held(folder: CoordinatorFolder) -> Iterator[None]:
    """Be the one command that changes a coordinator's folder, until the block ends.

    Raises:
        RunError: another one does.
    """
    note = _note_file(folder)
    with at_work(folder.state):
        pid = os.getpid()
        content = {"pid": pid, "started": _started(pid), "namespace": _namespace()}
        replace_private(note, json.dumps(content).encode())
        try:
            yield
        finally:
            note.unlink(missing_ok=True)


def stop_federation(folder: CoordinatorFolder, *, seconds: float = 60.0) -> bool:
    """Let the command that holds a folder end; whether there was one.

    Nobody else is signalled: a number of a container's process, or of one that has ended, may be
    another's here.

    Raises:
        ConfigError: the folder is no coordinator's.
        RunError: it runs in a container, what holds the folder is another command, or it does not
            end in time.
    """
    refuse_other_folders(folder)
    if not is_at_work(folder.state):
        return False
    pid = _holder(folder)
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:  # just now
        pass
    except OSError as error:
        raise RunError(
            f"process {pid}, which runs this federation, cannot be told to end: {error.strerror}; "
            "it is another user's"
        ) from error
    deadline = time.monotonic() + seconds
    while is_at_work(folder.state):
        if time.monotonic() > deadline:
            raise RunError(f"process {pid} does not end; end it by hand")
        time.sleep(0.2)
    return True


def _holder(folder: CoordinatorFolder) -> int:
    """The process that holds a folder, if it can be told from here."""
    note = _note_file(folder)
    try:
        content: dict[str, Any] = json.loads(note.read_text(encoding="ascii"))
        pid, started = int(content["pid"]), content["started"]
        namespace = content["namespace"]
    except FileNotFoundError as error:
        raise RunError(
            f"{folder.root}: another command than `federation start` works there, such as `admit`, "
            "or one that just begins or ends; try again"
        ) from error
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise RunError(f"{note} cannot be read, so that what works there cannot be told") from error
    if namespace != _namespace():
        raise RunError(
            f"{folder.root}: the federation runs in a container, or outside of this one, where "
            f"process {pid} is another; end it there (`docker compose -f {folder.compose} stop`)"
        )
    if started is None or started != _started(pid):
        raise RunError(
            f"{note} names process {pid}, which is not the command that works there; end that by "
            f"hand (`fuser {note.parent}/.app.lock` names it)"
        )
    return pid


def _note_file(folder: CoordinatorFolder) -> Path:
    return folder.state / "start.pid"


def _started(pid: int) -> int | None:
    """When a process was started, in ticks since this machine was; None if it is not there."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        return int(stat.rpartition(")")[2].split()[19])  # the 22nd field, the 3rd follows ")"
    except (OSError, ValueError, IndexError):
        return None


def _namespace() -> str:
    """Among which processes this one's number is its own; a container has others."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""
