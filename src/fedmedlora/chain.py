"""A log that shows whether it was changed: JSON lines, each with the hash of the line before.

    LOG       {"n": 1, "before": "", "kind": "begun", ...}
              {"n": 2, "before": "<hash of line 1>", "kind": "received", ...}
    LOG.head  how many lines there are, how many bytes, the hash of the last one and its text

Enters: facts, plain values. Leaves: the log, whose changes show. The audit logs of a federation and
the privacy ledgers of its sites are such logs.

A line's head is on disk before the line. What a killed process left of the line is therefore a
beginning of what the head has; the next entry is preceded by the rest of it, and by a note of that.
Who can write both files can write both anew: that, no file of one machine shows by itself.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Protocol

from fedmedlora.canonical import canonical, sha256
from fedmedlora.durable import open_private, replace_private, wait_for_lock
from fedmedlora.errors import MisnamedError, RunError

BEGUN, COMPLETED = "begun", "completed"
_NO_FILE = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


@dataclass(frozen=True)
class State:
    """What the head file holds.

    Attributes:
        log: which log: the beginning of its first line's hash.
        entries: how many lines it had.
        sha256: hash (hex) of the last of them.
        size: bytes of the whole log.
        last: its last line.
        signature: of ``statement``, hexadecimal; "" without a key.
    """

    log: str
    entries: int
    sha256: str
    size: int
    last: str
    signature: str

    @property
    def statement(self) -> bytes:
        """What of it is signed: all that is not in it twice."""
        content = {"log": self.log, "entries": self.entries, "size": self.size}
        return canonical({**content, "sha256": self.sha256})


class Seal(Protocol):
    """Signs the head of a log."""

    def sign(self, statement: bytes) -> str:
        """The signature; "" for none."""
        ...

    def holds(self, statement: bytes, signature: str) -> bool:
        """Whether it is this one's."""
        ...


class Unsealed:
    """Nobody's signature."""

    def sign(self, statement: bytes) -> str:
        """None."""
        return ""

    def holds(self, statement: bytes, signature: str) -> bool:
        """Whether there is none."""
        return signature == ""


class OpenLog:
    """A log while this process alone has it open.

    Attributes:
        path: of the log.
        state: its end.
    """

    def __init__(self, path: Path, file: IO[bytes], seal: Seal) -> None:
        self.path, self._file, self._seal = path, file, seal
        self.state: State

    def append(self, kind: str, **facts: Any) -> State:
        """Add an entry; it is on disk when this returns.

        Args:
            kind: of the entry.
            facts: plain values; not named n, before, time or kind.

        Raises:
            RunError: it cannot be written.
        """
        try:
            self.state = self._write(self.state, kind, facts)
        except OSError as error:
            raise _unwritable(self.path, error) from error
        return self.state

    def _write(self, before: State | None, kind: str, facts: Mapping[str, Any]) -> State:
        entries = 1 if before is None else before.entries + 1
        frame = {
            "n": entries,
            "before": "" if before is None else before.sha256,
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "kind": kind,
        }
        line = canonical({**facts, **frame})
        digest = sha256(line)
        state = State(
            log=digest[:12] if before is None else before.log,
            entries=entries,
            sha256=digest,
            size=(0 if before is None else before.size) + len(line) + 1,
            last=line.decode(),
            signature="",
        )
        state = replace(state, signature=self._seal.sign(state.statement))
        replace_private(head_file(self.path), canonical(asdict(state)))
        append_bytes(self._file, line + b"\n")
        return state

    def settle(self, begun: Callable[[], Mapping[str, Any]], advice: str) -> None:
        """Find the log's end, after it was begun or completed if need be; see ``open_log``."""
        size = self._file.seek(0, os.SEEK_END)
        head = head_file(self.path)
        state = read_state(self.path)
        if state is None:
            if size or head.exists():
                raise RunError(f"{head} is missing or broken; {advice}")
            self.state = self._write(None, BEGUN, begun())
            return
        if not self._seal.holds(state.statement, state.signature):
            raise RunError(
                f"{head} is not signed with the key that this log is written with; {advice}"
            )
        whole = f"{state.last}\n".encode()
        start = state.size - len(whole)
        self._file.seek(max(0, start))
        there = self._file.read()
        if size < start or not whole.startswith(there):
            raise RunError(f"{self.path} does not end as its head file says; {advice}")
        self.state = state
        if there != whole:
            rest = whole[len(there) :]
            append_bytes(self._file, rest)
            self.state = self._write(state, COMPLETED, {"bytes": len(rest)})


@contextmanager
def open_log(
    path: Path, *, begun: Callable[[], Mapping[str, Any]], advice: str, seal: Seal | None = None
) -> Iterator[OpenLog]:
    """Open a log, or begin it with its folder; waits while another process has it open.

    Only its end is looked at, however long it is; ``read_log`` looks at all of it.

    Args:
        path: of the log.
        begun: facts of its first line.
        advice: what to do where somebody changed it, for the message.
        seal: signs its head; without, nobody does.

    Raises:
        RunError: it cannot be read, written or locked, or its end is not what its head says:
            somebody changed it.
    """
    try:
        file = open_private(path)
    except OSError as error:
        raise _unwritable(path, error) from error
    with file:
        log = OpenLog(path, file, Unsealed() if seal is None else seal)
        try:
            wait_for_lock(file)
            log.settle(begun, advice)
        except OSError as error:
            raise _unwritable(path, error) from error
        yield log


@dataclass(frozen=True)
class Read:
    """A log as it was found.

    Attributes:
        entries: the lines that can be read, as they are.
        hashes: of all lines.
        faults: what is wrong, one sentence each; empty if nothing is.
    """

    entries: tuple[Mapping[str, Any], ...]
    hashes: tuple[str, ...]
    faults: tuple[str, ...]


def read_log(path: Path) -> Read:
    """Look whether a log is as it was written; nothing is changed.

    Args:
        path: of the log; its head file is beside it. Its signature is not looked at.

    Raises:
        MisnamedError: there is no such log, or it is a folder.
        RunError: the log cannot be read.
    """
    try:
        data = path.read_bytes()
    except _NO_FILE as error:
        raise MisnamedError(f"{path}: the log cannot be read: {error.strerror}") from error
    except OSError as error:
        raise RunError(f"{path}: the log cannot be read: {error.strerror}") from error
    lines = data.split(b"\n")
    unfinished = lines.pop()
    entries: list[Mapping[str, Any]] = []
    hashes: list[str] = []
    faults: list[str] = []
    for number, line in enumerate(lines, 1):
        entry = _entry(line)
        if entry is None:
            faults.append(f"line {number} is not as an entry is written")
        elif entry.get("n") != number:
            faults.append(f"line {number} is entry {entry.get('n')}")
        elif entry.get("before") != (hashes[-1] if hashes else ""):
            faults.append(f"line {number} does not follow from the line before it")
        if entry is not None:
            entries.append(entry)
        hashes.append(sha256(line))
    faults += _faults_of_end(path, lines, unfinished=unfinished, size=len(data))
    return Read(tuple(entries), tuple(hashes), tuple(faults))


def _faults_of_end(path: Path, lines: list[bytes], *, unfinished: bytes, size: int) -> list[str]:
    state = read_state(path)
    if state is None:
        return [f"its head file {head_file(path).name} is missing or broken"]
    whole = f"{state.last}\n".encode()
    if state.entries == len(lines) + 1 and size < state.size and whole.startswith(unfinished):
        return [
            f"entry {state.entries} is missing or unfinished: a process was killed while it wrote, "
            "and the next entry will complete it; or somebody cut the log"
        ]
    faults = []
    if unfinished:
        faults.append("there is something after the last whole line")
    if state.entries != len(lines):
        faults.append(f"it has {len(lines)} lines, and its head says {state.entries}")
    if not lines or state.last.encode() != lines[-1] or state.sha256 != sha256(lines[-1]):
        faults.append("its last line is not the one that its head has")
    if state.size != size:
        faults.append(f"it has {size} bytes, and its head says {state.size}")
    if not lines or state.log != sha256(lines[0])[:12]:
        faults.append("its first line is not the one that its head knows")
    return faults


def _entry(line: bytes) -> Mapping[str, Any] | None:
    """An entry, if a line is one in the very writing that this module gives it."""
    try:
        entry = json.loads(line)
        if isinstance(entry, dict) and canonical(entry) == line:
            return entry
    except (ValueError, TypeError, RecursionError):
        pass
    return None


def head_file(log: Path) -> Path:
    """Where the head of a log is."""
    return log.with_name(f"{log.name}.head")


def read_state(log: Path) -> State | None:
    """What a log's head file holds; None if it is missing or not as it was written."""
    try:
        data = head_file(log).read_bytes()
        content = json.loads(data)
        state = State(**content)
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    kinds = {
        field.name: int if field.name in ("entries", "size") else str for field in fields(state)
    }
    if any(type(getattr(state, name)) is not kind for name, kind in kinds.items()):
        return None
    if canonical(asdict(state)) != data or sha256(state.last.encode()) != state.sha256:
        return None
    return state


def append_bytes(file: IO[bytes], data: bytes) -> None:
    """Write at the end of a file and wait until the disk has it."""
    file.write(data)
    file.flush()
    os.fsync(file.fileno())


def _unwritable(path: Path, error: OSError) -> RunError:
    return RunError(f"cannot write the log {path}: {error.strerror}")
