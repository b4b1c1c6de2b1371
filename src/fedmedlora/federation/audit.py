"""The audit log: what was received and sent, a JSON line each with the hash of the line before.

    LOG       {"n": 1, "before": "", "kind": "begun", ...}
              {"n": 2, "before": "<hash of line 1>", "kind": "received", ...}
    LOG.head  how many lines there are, how many bytes, the hash of the last one and its text

Enters: facts (ids, sizes, hashes, counts; never text of notes). Leaves: the log, whose changes show
(``audit_check``), and its head, which travels: each end of the federation keeps the other's, so
that neither can cut its own log, head file and all, unseen.

A line's head is on disk before the line. What a killed process left of the line is therefore a
beginning of what the head has; the next entry is preceded by the rest of it, and by a note of that.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Literal

from fedmedlora.durable import replace_bytes
from fedmedlora.errors import RunError
from fedmedlora.federation.signing import (
    canonical,
    is_signed,
    public_key,
    read_key,
    sha256,
    sign,
)

Role = Literal["site", "coordinator"]
#: begun: the first line. completed: the line before was left unfinished by a killed process.
#: joined: the coordinator has learnt which site a node speaks for.
Kind = Literal["begun", "completed", "joined", "received", "sent"]
FORMAT = 1
_HEAD = re.compile(r"([0-9a-f]{12}):([1-9][0-9]{0,11}):([0-9a-f]{64})")
_TAMPERED = (
    "the log was changed: keep both files, see what `fedmedlora site audit LOG --check` finds, and "
    "move them away to begin a new log, which the other end will notice"
)


@dataclass(frozen=True)
class Head:
    """The end of a log at some moment.

    Attributes:
        log: which log: the beginning of its first line's hash.
        entries: how many lines it had.
        sha256: hash (hex) of the last of them.
    """

    log: str
    entries: int
    sha256: str

    def __str__(self) -> str:
        return f"{self.log}:{self.entries}:{self.sha256}"

    @classmethod
    def parse(cls, text: object) -> Head | None:
        """What ``str`` wrote; None if it is something else."""
        found = _HEAD.fullmatch(text) if isinstance(text, str) else None
        return None if found is None else cls(found[1], int(found[2]), found[3])


@dataclass(frozen=True)
class State:
    """What the head file holds.

    Attributes:
        log, entries, sha256: see ``Head``.
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
    def head(self) -> Head:
        """The part of it that travels."""
        return Head(self.log, self.entries, self.sha256)

    @property
    def statement(self) -> bytes:
        """What of it is signed: all that is not in it twice."""
        content = {"log": self.log, "entries": self.entries, "size": self.size}
        return canonical({**content, "sha256": self.sha256})


class AuditLog:
    """A log to append to. Several processes may: one waits for the other.

    Args:
        path: of the log; its folder and it are made with the first entry.
        owner: whose it is: the site's name, or the coordinator's.
        role: which end.
        key: signs the head, if there is one.
    """

    def __init__(self, path: Path, *, owner: str, role: Role, key: Path | None = None) -> None:
        self.path = path
        self._owner, self._role, self._key = owner, role, key

    def head(self) -> Head:
        """Where the log ends; a log that is not there is begun.

        Raises:
            RunError: as of ``append``.
        """
        with self._alone() as file:
            return self._settle(file).head

    def append(self, kind: Kind, **facts: Any) -> Head:
        """Add an entry; it is on disk when this returns.

        Args:
            kind: of the entry.
            facts: plain values; not named n, before, time or kind.

        Raises:
            RunError: the log cannot be written, or its end is not what its head says: somebody
                changed it.
            ConfigError: the key cannot be used.
        """
        with self._alone() as file:
            return self._write(file, self._settle(file), kind, facts).head

    @contextmanager
    def _alone(self) -> Iterator[IO[bytes]]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a+b") as file:
                if sys.platform != "win32":
                    import fcntl

                    fcntl.flock(file, fcntl.LOCK_EX)
                yield file
        except OSError as error:
            raise RunError(f"cannot write the audit log {self.path}: {error.strerror}") from error

    def _settle(self, file: IO[bytes]) -> State:
        """The log's end, after it was begun or completed if need be."""
        size = file.seek(0, os.SEEK_END)
        state = read_state(self.path)
        if state is None:
            if size or head_file(self.path).exists():
                raise RunError(f"{head_file(self.path)} is missing or broken; {_TAMPERED}")
            public = "" if self._key is None else public_key(read_key(self._key))
            facts = {"owner": self._owner, "role": self._role, "format": FORMAT}
            return self._write(file, None, "begun", {**facts, "public_key": public})
        self._check_signature(state)
        whole = f"{state.last}\n".encode()
        start = state.size - len(whole)
        file.seek(max(0, start))
        there = file.read()
        if size < start or not whole.startswith(there):
            raise RunError(f"{self.path} does not end as its head file says; {_TAMPERED}")
        if there == whole:
            return state
        rest = whole[len(there) :]
        append_bytes(file, rest)
        return self._write(file, state, "completed", {"bytes": len(rest)})

    def _check_signature(self, state: State) -> None:
        signed = state.signature == ""
        if self._key is not None:
            public = public_key(read_key(self._key))
            signed = is_signed(state.statement, state.signature, public, purpose="log-head")
        if not signed:
            raise RunError(
                f"{head_file(self.path)} is not signed with the key that this log is written with; "
                f"{_TAMPERED}"
            )

    def _write(
        self, file: IO[bytes], before: State | None, kind: Kind, facts: Mapping[str, Any]
    ) -> State:
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
        if self._key is not None:
            signature = sign(state.statement, read_key(self._key), purpose="log-head")
            state = replace(state, signature=signature)
        replace_bytes(head_file(self.path), canonical(asdict(state)))
        append_bytes(file, line + b"\n")
        return state


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
