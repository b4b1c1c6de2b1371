"""How far a federation is, in one small file that whoever asks can read while it runs.

FOLDER/journal.json     rewritten at every event
FOLDER/.app.lock        held by the ServerApp for as long as it lives
"""

from __future__ import annotations

import fcntl
import json
import os
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fedmedlora.durable import open_private, replace_private
from fedmedlora.errors import RunError
from fedmedlora.federation.records import RoundRecord

FILE = "journal.json"
_LOCK = ".app.lock"
#: Linux's struct flock: type, whence, start, length (0: all), process (0: of the open file, so that
#: closing another handle of the same process does not give it up).
_LOCK_FORM = struct.Struct("hhqqi4x")
_WHOLE = _LOCK_FORM.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)

#: Why a site is not heard, where the event itself does not say.
_REASONS = {
    "name-taken": "another node is that site already",
    "not-believed": "what it sent does not bear the signature of the site that it names",
}


class Journal:
    """Writes the journal of one federation; its ``tell`` takes the events of a run.

    Its "state" is connecting, training or scoring; at the end done or failed. "refused" has the
    last reason why a site was turned away, until it is heard; "" is a node that named no site.

    Args:
        folder: is made if need be.
        run_id, rounds, sites: of the plan.
    """

    def __init__(self, folder: Path, *, run_id: str, rounds: int, sites: tuple[str, ...]) -> None:
        self._file = folder / FILE
        self._content: dict[str, Any] = {
            "run_id": run_id,
            "rounds": rounds,
            "sites": list(sites),
            "pid": os.getpid(),
            "state": "connecting",
            "since": time.time(),
        }
        self._write()

    def tell(self, kind: str, /, **facts: object) -> None:
        """Take one event of ``federation.run``."""
        if kind == "round":
            self._enter("training", round=facts["round"], round_since=time.time(), answered={})
        elif kind == "scoring":
            self._enter("scoring", answered={})
        elif kind == "reply":
            answered = {**self._content.get("answered", {}), facts["site"]: facts["seconds"]}
            self._content["answered"] = answered
            self._heard(str(facts["site"]))
        elif kind == "joined":
            joined = {*self._content.get("joined", ()), str(facts["site"])}
            self._content["joined"] = sorted(joined)
            self._heard(str(facts["site"]))
        elif kind in _REASONS:
            self._turned(str(facts["site"]), _REASONS[kind])
        elif kind == "turned-away":
            self._turned(str(facts["site"]), str(facts["reason"]))
        elif kind == "late":
            reason = f"its answer came after the deadline of round {facts['round']}"
            self._turned(str(facts["site"]), reason)
        elif kind == "set-aside":
            self._content["set_aside"] = facts["rounds"]
            self._write()
        elif kind == "log-gap":
            self._content["log_gap"] = facts["rounds"]
            self._write()
        elif kind == "round-done" and isinstance(record := facts["record"], RoundRecord):
            self._enter(self._content["state"], complete=record.round)

    def end(self, state: str, *, reason: str = "") -> None:
        """Note that it is done, or why it failed."""
        self._enter(state, reason=reason)

    def _turned(self, site: str, reason: str) -> None:
        self._content["refused"] = {**self._content.get("refused", {}), site: reason}
        self._write()

    def _heard(self, site: str) -> None:
        refused = self._content.get("refused", {})
        self._content["refused"] = {name: why for name, why in refused.items() if name != site}
        self._write()

    def _enter(self, state: str, **facts: object) -> None:
        if state != self._content["state"]:
            self._content["since"] = time.time()
        self._content = {**self._content, **facts, "state": state}
        self._write()

    def _write(self) -> None:
        content = {**self._content, "updated": time.time()}
        replace_private(self._file, json.dumps(content).encode())


def read_journal(folder: Path) -> dict[str, Any] | None:
    """What the journal says; None if there is none."""
    try:
        content = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise RunError(f"{folder / FILE} cannot be read; remove it") from error
    return content if isinstance(content, dict) else None


@contextmanager
def at_work(folder: Path) -> Iterator[None]:
    """Be the one process that works in a folder, until the block ends.

    Raises:
        RunError: another one does, or the folder cannot be written.
    """
    try:
        lock = open_private(folder / _LOCK)
    except OSError as error:
        raise RunError(f"{folder}: cannot be written: {error.strerror}") from error
    with lock:
        try:
            fcntl.fcntl(lock, fcntl.F_OFD_SETLK, _WHOLE)
        except BlockingIOError as error:
            raise RunError(f"{folder}: another process works there") from error
        yield


def is_at_work(folder: Path) -> bool:
    """Whether a process works in a folder; asks for the lock and takes none."""
    try:
        with (folder / _LOCK).open("rb") as lock:
            kind, *_ = _LOCK_FORM.unpack(fcntl.fcntl(lock, fcntl.F_OFD_GETLK, _WHOLE))
    except (FileNotFoundError, NotADirectoryError):
        return False
    return bool(kind != fcntl.F_UNLCK)
