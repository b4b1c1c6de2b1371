"""Audit logs looked at: one for changes, the two ends' against each other.

Enters: files of ``audit``. Leaves: their entries and what is wrong with them; nothing is changed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedmedlora.errors import RunError
from fedmedlora.federation.audit import Head, head_file, read_state
from fedmedlora.federation.signing import canonical, is_signed, sha256


@dataclass(frozen=True)
class Checked:
    """A log as it was found.

    Attributes:
        entries: the lines that can be read, as they are.
        hashes: of these lines.
        faults: what is wrong, one sentence each; empty if nothing is.
    """

    entries: tuple[Mapping[str, Any], ...]
    hashes: tuple[str, ...]
    faults: tuple[str, ...]

    @property
    def log(self) -> str:
        """Which log it is; see ``Head``."""
        return self.hashes[0][:12] if self.hashes else ""

    @property
    def owner(self) -> str:
        """Whose it says that it is."""
        return str(self.entries[0].get("owner", "")) if self.entries else ""

    @property
    def role(self) -> str:
        """Which end it says that it is."""
        return str(self.entries[0].get("role", "")) if self.entries else ""


def check_log(path: Path, *, public: str | None = None) -> Checked:
    """Look whether a log is as it was written; nothing is changed.

    Args:
        path: of the log; its head file is beside it.
        public: the key that must have signed the head; without, the one that the log names.

    Raises:
        RunError: the log cannot be read.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RunError(f"{path}: the audit log cannot be read: {error.strerror}") from error
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
    faults += _faults_of_keys(path, entries, public)
    return Checked(tuple(entries), tuple(hashes), tuple(faults))


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


def _faults_of_keys(path: Path, entries: list[Mapping[str, Any]], public: str | None) -> list[str]:
    if not entries or entries[0].get("kind") != "begun":
        return ["it does not begin with the entry that begins a log"]
    named = entries[0].get("public_key")
    if public is not None and named != public:
        return ["it was begun with another key"]
    state = read_state(path)
    if state is None:
        return []
    if named == "" and state.signature == "":
        return []
    if is_signed(state.statement, state.signature, str(named), purpose="log-head"):
        return []
    return ["its head is not signed with the key that the log was begun with"]


def _entry(line: bytes) -> Mapping[str, Any] | None:
    """An entry, if a line is one in the very writing that this module gives it."""
    try:
        entry = json.loads(line)
        if isinstance(entry, dict) and canonical(entry) == line:
            return entry
    except (ValueError, TypeError, RecursionError):
        pass
    return None


def compare_ends(one: Checked, other: Checked) -> tuple[str, ...]:
    """What the logs of a site and of a coordinator say that cannot both be so.

    Each end keeps the other's heads as they came, so a log that was cut, or written anew, and given
    a head that fits is found here as far as the last message goes that the other end got.

    Runs that the coordinator does not know are left out: a site may be in several federations.

    Args:
        one, other: a site's log and a coordinator's, in either order.

    Raises:
        RunError: they are not.
    """
    roles = {log.role: log for log in (one, other)}
    if set(roles) != {"site", "coordinator"}:
        raise RunError("to be compared: the audit log of a site and that of a coordinator")
    site, coordinator = roles["site"], roles["coordinator"]
    runs = {entry.get("run") for entry in coordinator.entries if "run" in entry}
    theirs = [entry for entry in coordinator.entries if entry.get("site") == site.owner]
    ours = [entry for entry in site.entries if entry.get("run") in runs]
    return (
        *_faults_of_heads(site, theirs, "the coordinator"),
        *_faults_of_heads(coordinator, ours, site.owner),
        *_unmatched(theirs, ours, f"the coordinator's log, not in {site.owner}'s"),
        *_unmatched(ours, theirs, f"{site.owner}'s log, not in the coordinator's"),
    )


def _faults_of_heads(log: Checked, entries: list[Mapping[str, Any]], keeper: str) -> Iterator[str]:
    """Heads of a log, kept at the other end, that it does not have (any more)."""
    for entry in entries:
        head = Head.parse(entry.get("head"))
        if head is None:
            continue
        place = f"{keeper}'s entry {entry.get('n')}: {log.owner}'s log"
        if head.log != log.log:
            yield f"{place} was another then ({head.log}, not {log.log})"
        elif len(log.hashes) < head.entries:
            yield f"{place} had {head.entries} entries then; here are {len(log.hashes)}"
        elif log.hashes[head.entries - 1] != head.sha256:
            yield f"{place} had another entry {head.entries} then"


def _unmatched(
    entries: list[Mapping[str, Any]], others: list[Mapping[str, Any]], place: str
) -> Iterator[str]:
    """Messages that one end received and the other does not know to have sent."""
    sent = {one.get("sha256") for one in others if one.get("kind") == "sent"}
    for entry in entries:
        told = entry.get("kind") == "received" and entry.get("phase") != "introduce"
        # What came too late was not looked at, and has no hash.
        if told and "sha256" in entry and entry["sha256"] not in sent:
            yield f"entry {entry.get('n')} (received) of {place} (sent)"
