"""The audit log: what was received and sent, a chained log (``fedmedlora.chain``) at each end.

Enters: facts (ids, sizes, hashes, counts; never text of notes). Leaves: the log, whose changes show
(``audit_check``), and its head, which travels: each end of the federation keeps the other's, so
that neither can cut its own log, head file and all, unseen.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fedmedlora.chain import OpenLog, State, Unsealed, head_file, open_log
from fedmedlora.federation.signing import is_signed, public_key, read_key, sign

__all__ = ["AuditLog", "Head", "Kind", "Role", "head_file"]

Role = Literal["site", "coordinator"]
#: Besides ``chain``'s begun (the first line) and completed (the line before was left unfinished by
#: a killed process). A gap: rounds were complete that the log does not have; see ``audit_check``.
Kind = Literal["received", "sent", "gap"]
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
class _Signed:
    """Signs heads with the key of a file."""

    key: Path

    def sign(self, statement: bytes) -> str:
        return sign(statement, read_key(self.key), purpose="log-head")

    def holds(self, statement: bytes, signature: str) -> bool:
        public = public_key(read_key(self.key))
        return is_signed(statement, signature, public, purpose="log-head")


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
        with self._alone() as log:
            return _head(log.state)

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
        with self._alone() as log:
            return _head(log.append(kind, **facts))

    @contextmanager
    def _alone(self) -> Iterator[OpenLog]:
        seal = Unsealed() if self._key is None else _Signed(self._key)
        with open_log(self.path, begun=self._begun, advice=_TAMPERED, seal=seal) as log:
            yield log

    def _begun(self) -> Mapping[str, Any]:
        public = "" if self._key is None else public_key(read_key(self._key))
        facts = {"owner": self._owner, "role": self._role, "format": FORMAT}
        return {**facts, "public_key": public}


def _head(state: State) -> Head:
    return Head(state.log, state.entries, state.sha256)
