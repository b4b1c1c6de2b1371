"""Audit logs looked at: one for changes, the two ends' against each other.

Enters: files of ``audit``. Leaves: their entries and what is wrong with them; nothing is changed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from fedmedlora.chain import Read, read_log, read_state
from fedmedlora.errors import MisnamedError, RunError
from fedmedlora.federation.audit import Head
from fedmedlora.federation.signing import is_signed
from fedmedlora.federation.statements import Question, fault_of_request

_WORDS = ("kind", "run", "phase", "site", "sha256")


class Checked(Read):
    """An audit log as it was found."""

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
        MisnamedError: there is no such log, or it is a folder.
        RunError: the log cannot be read.
    """
    read = read_log(path)
    entries = tuple(entry for entry in read.entries if _is_entry(entry))
    strange = len(read.entries) - len(entries)
    faults = [*read.faults, *_faults_of_keys(path, entries, public), *_faults_of_gaps(entries)]
    if strange:
        faults.append(f"{strange} entries are not what an end of a federation writes")
    return Checked(entries, read.hashes, tuple(faults))


def _is_entry(entry: Mapping[str, Any]) -> bool:
    """Whether what entries are compared by is of its type: a log may come from anybody."""
    words = all(isinstance(entry.get(name, ""), str) for name in _WORDS)
    return words and isinstance(entry.get("round", 0), int)


def _faults_of_keys(
    path: Path, entries: Sequence[Mapping[str, Any]], public: str | None
) -> list[str]:
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


def rounds_left_out(path: Path, *, run: str, complete: int) -> tuple[int, ...]:
    """Complete rounds of a run that a coordinator's log neither has nor says that it lacks.

    There are none where the log is the one that the rounds were logged in. A log that was moved
    away is begun anew without a word, and fits; so is one that was put back from an old copy.

    Args:
        path: of the log, which need not be there.
        run: its id.
        complete: how many rounds of it are.

    Raises:
        RunError: the log is there and cannot be read.
    """
    entries = read_log(path).entries if path.exists() else ()
    known = {entry.get("round") for entry in entries if entry.get("run") == run}
    for gap in _gaps(entries):
        if gap.get("run") == run and isinstance(gap.get("rounds"), list):
            known.update(gap["rounds"])
    return tuple(number for number in range(1, complete + 1) if number not in known)


def _gaps(entries: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [entry for entry in entries if entry.get("kind") == "gap"]


def _faults_of_gaps(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    return [
        f"entry {entry.get('n')}: of run {entry.get('run')} the rounds {entry.get('rounds')} were "
        "complete by then and are not in it: the log before was moved away, lost or cut"
        for entry in _gaps(entries)
    ]


def faults_of_requests(site: Checked, public: str) -> tuple[str, ...]:
    """Requests in a site's log that its coordinator did not sign, and that were not refused for it.

    Args:
        site: its log.
        public: the coordinator's key.
    """
    faults = []
    names = [field.name for field in fields(Question)]
    for entry in site.entries:
        if entry.get("kind") != "received" or entry.get("status") == "refused":
            continue
        question = Question(**{name: entry.get(name) for name in names})  # type: ignore[arg-type]
        signature = entry.get("signature")
        why = fault_of_request(question, signature if isinstance(signature, str) else "", public)
        if why:
            faults.append(f"entry {entry.get('n')}, a request of {entry.get('phase')!r}: {why}")
    return tuple(faults)


def compare_ends(one: Checked, other: Checked) -> tuple[str, ...]:
    """What the logs of a site and of a coordinator say that cannot both be so.

    Each end keeps the other's heads as they came, so a log that was cut, or written anew, and given
    a head that fits is found here as far as the last message goes that the other end got.

    A reply that the site sent and the coordinator does not know is among them too: it was left out,
    or did not arrive in time. It is not where the coordinator has another reply to the same
    request, asked again later (a coordinator that was killed), or noted an answer that came late.

    Runs that the coordinator does not know are left out: a site may be in several federations.

    Args:
        one, other: a site's log and a coordinator's, in either order.

    Raises:
        MisnamedError: they are not, and both are as they were written.
        RunError: they are not, or have nothing in common.
    """
    roles = {log.role: log for log in (one, other)}
    if set(roles) != {"site", "coordinator"}:
        kind = RunError if one.faults or other.faults else MisnamedError
        raise kind("to be compared: the audit log of a site and that of a coordinator")
    site, coordinator = roles["site"], roles["coordinator"]
    runs = {entry.get("run") for entry in coordinator.entries if "run" in entry}
    theirs = [entry for entry in coordinator.entries if entry.get("site") == site.owner]
    asked = [entry for entry in coordinator.entries if entry.get("phase") == "introduce"]
    ours = [entry for entry in site.entries if entry.get("run") in runs]
    faults = (
        *_faults_of_heads(site, theirs, "the coordinator"),
        *_faults_of_heads(coordinator, ours, site.owner),
        *_unmatched(theirs, ours, f"the coordinator's log, not in {site.owner}'s"),
        *_unmatched(ours, [*theirs, *asked], f"{site.owner}'s log, not in the coordinator's"),
        *_unreceived(site.owner, ours, coordinator.entries),
    )
    if not faults and not {one.get("run") for one in theirs} & {one.get("run") for one in ours}:
        raise RunError(
            "the two logs have nothing in common: there is no run in which both ends took part; "
            "give the logs of one run"
        )
    return faults


def _faults_of_heads(log: Checked, entries: list[Mapping[str, Any]], keeper: str) -> Iterator[str]:
    """Heads of a log, kept at the other end, that it does not have (any more)."""
    for entry in entries:
        head = Head.parse(entry.get("head"))
        if head is None or entry.get("kind") == "sent":  # with its own log's
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
        # What came too late, or could not be read, has no hash.
        told = entry.get("kind") == "received" and "sha256" in entry
        if told and entry["sha256"] not in sent:
            yield f"entry {entry.get('n')} (received) of {place} (sent)"


def _unreceived(
    owner: str, ours: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]]
) -> Iterator[str]:
    """Replies that a site sent, and its coordinator neither has nor gave up."""
    came = {one["sha256"] for one in theirs if one.get("kind") == "received" and "sha256" in one}
    sent = [one for one in ours if one.get("kind") == "sent"]
    heard = {_request(one) for one in sent if one.get("sha256") in came} - {None}
    unread = Counter(
        _part(one)
        for one in theirs
        if one.get("kind") == "received" and "sha256" not in one and one.get("site") == owner
    )
    for entry in sent:
        if entry.get("sha256") in came or _request(entry) in heard:
            continue
        if _asked_again(owner, entry, theirs):
            continue
        if unread[_part(entry)]:  # came too late, or could not be read
            unread[_part(entry)] -= 1
            continue
        yield (
            f"entry {entry.get('n')} (sent) of {owner}'s log is not in the coordinator's "
            "(received): it did not arrive in time, or was left out"
        )


def _asked_again(owner: str, reply: Mapping[str, Any], theirs: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a coordinator asked a site for the same once more."""
    asked = [
        one.get("sha256")
        for one in theirs
        if one.get("kind") == "sent"
        and _part(one) == _part(reply)
        # Introductions are asked of nodes: whose they are is not known yet.
        and (one.get("site") == owner or one.get("phase") == "introduce")
    ]
    return _request(reply) in asked[:-1] and asked[-1] != _request(reply)


def _part(entry: Mapping[str, Any]) -> tuple[Any, ...]:
    return entry.get("run"), entry.get("phase"), entry.get("round")


def _request(reply: Mapping[str, Any]) -> str | None:
    said = reply.get("said")
    request = said.get("request") if isinstance(said, Mapping) else None
    return request if isinstance(request, str) else None
