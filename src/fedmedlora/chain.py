"""A log that shows whether it was changed: JSON lines, each with the hash of the line before.

    LOG       {"before": "", "kind": "begun", "n": 1, ...}
              {"before": "<hash of line 1>", "kind": "reserved", "n": 2, ...}
    LOG.head  how many lines and bytes there are, the hash of the last line, and its text

Enters: facts, plain values. Leaves: entries, in order; or an error where a line was changed, taken
out or put in. The head of a line is on disk before the line: what a killed process left of it is
completed when the log is next opened.

Who can write both files can write both anew: that, no file of one machine shows by itself.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from fedmedlora.durable import replace_bytes
from fedmedlora.errors import RunError

_FRAME = ("n", "before", "time", "kind")


@dataclass(frozen=True)
class Entry:
    """A line.

    Attributes:
        n: from 1.
        kind: what it is about.
        time: UTC, ISO 8601.
        facts: what it says.
        sha256: of the line, hex.
    """

    n: int
    kind: str
    time: str
    facts: Mapping[str, Any]
    sha256: str


@dataclass(frozen=True)
class _Head:
    entries: int
    size: int
    sha256: str
    last: str


class Chain:
    """A log while it is open: nobody else has it open.

    Attributes:
        entries: all that it holds.
    """

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self._path, self._file = path, file
        self.entries: tuple[Entry, ...] = _settled(path, file)

    def append(self, kind: str, **facts: Any) -> Entry:
        """Add an entry; it is on disk when this returns.

        Args:
            kind: of the entry.
            facts: plain values; not named n, before, time or kind.

        Raises:
            RunError: it cannot be written.
        """
        before = self.entries[-1] if self.entries else None
        number = 1 if before is None else before.n + 1
        frame = {
            "n": number,
            "before": "" if before is None else before.sha256,
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "kind": kind,
        }
        line = _canonical({**facts, **frame})
        end = line + b"\n"
        try:
            size = self._file.seek(0, os.SEEK_END) + len(end)
            head = _Head(number, size, _sha256(line), line.decode())
            replace_bytes(head_file(self._path), _canonical(asdict(head)))
            _append(self._file, end)
        except OSError as error:
            raise RunError(f"cannot write {self._path}: {error.strerror}") from error
        entry = _entry(line, after=before)
        assert entry is not None
        self.entries = (*self.entries, entry)
        return entry


@contextmanager
def open_chain(path: Path) -> Iterator[Chain]:
    """Open a log, or begin one; waits while another process has it open.

    Raises:
        RunError: it cannot be read, written or locked, or somebody changed it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+b")
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror}") from error
    with file:
        path.chmod(0o600)
        if sys.platform != "win32":
            import fcntl

            try:
                fcntl.flock(file, fcntl.LOCK_EX)
            except OSError as error:
                raise RunError(
                    f"cannot lock {path}: {error.strerror}; keep it on a file system with locks"
                ) from error
        yield Chain(path, file)


def head_file(log: Path) -> Path:
    """Where the head of a log is."""
    return log.with_name(f"{log.name}.head")


def _settled(path: Path, file: IO[bytes]) -> tuple[Entry, ...]:
    """The entries, after a line that a killed process left unfinished was completed."""
    file.seek(0)
    data = file.read()
    head = _read_head(path)
    if head is None:
        if data or head_file(path).exists():
            raise _changed(path, f"{head_file(path).name} is missing or broken")
        return ()
    end = f"{head.last}\n".encode()
    start = head.size - len(end)
    there = data[start:] if start >= 0 else b""
    if start < 0 or len(data) < start or not end.startswith(there):
        raise _changed(path, "it does not end as its head says")
    entries: list[Entry] = []
    for place, line in enumerate((data[:start] + end).split(b"\n")[:-1], 1):
        entry = _entry(line, after=entries[-1] if entries else None)
        if entry is None:
            raise _changed(path, f"line {place} does not follow from the one before")
        entries.append(entry)
    if (len(entries), entries[-1].sha256) != (head.entries, head.sha256):
        raise _changed(path, "it does not end as its head says")
    if there != end:
        _append(file, end[len(there) :])
    return tuple(entries)


def _entry(line: bytes, *, after: Entry | None) -> Entry | None:
    """A line as an entry; None if it is not the one that follows."""
    try:
        content = json.loads(line)
        frame = {name: content.pop(name) for name in _FRAME}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    wanted = (1, "") if after is None else (after.n + 1, after.sha256)
    if (frame["n"], frame["before"]) != wanted or _canonical({**content, **frame}) != line:
        return None
    return Entry(frame["n"], str(frame["kind"]), str(frame["time"]), content, _sha256(line))


def _read_head(path: Path) -> _Head | None:
    try:
        data = head_file(path).read_bytes()
        head = _Head(**json.loads(data))
        whole = _canonical(asdict(head)) == data and _sha256(head.last.encode()) == head.sha256
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return None
    return head if whole and type(head.size) is int else None


def _changed(path: Path, what: str) -> RunError:
    return RunError(
        f"{path}: {what}: it was edited. Nothing goes on with it; bring both files back from a copy"
    )


def _canonical(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _append(file: IO[bytes], data: bytes) -> None:
    file.write(data)
    file.flush()
    os.fsync(file.fileno())
