"""Screening: untrusted replies in, as they come; the good ones, and a reason for every other, out.

A reply is good if it is the only one of its site, answers this round of this run, carries the
broadcast's manifest, a well-formed finite adapter and finite sizes above zero, within what the site
declared when it joined, and bears its site's signature where there are keys. One bad reply never
ends a round by itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

from fedmedlora.errors import AdapterError, FederationError
from fedmedlora.federation import wire
from fedmedlora.federation.flower import Message, RecordDict
from fedmedlora.federation.plan import Declared
from fedmedlora.federation.records import Status
from fedmedlora.federation.replies import (
    NO_PROOF,
    Candidate,
    Score,
    read_score,
    read_sizes,
    read_update,
)
from fedmedlora.federation.spool import Spool
from fedmedlora.federation.statements import HEAD, Proof
from fedmedlora.model.adapter import Adapter


class Check(Protocol):
    """Says what a reply of a site states, and that the site signed it; see ``ends``.

    Raises:
        FederationError: it did not.
    """

    def __call__(self, content: RecordDict, site: str, /) -> Proof: ...


@dataclass(frozen=True)
class Turned:
    """A site whose answer does not count, and why.

    Attributes:
        status: not ok.
        reason: in words that may stand in a record.
        proof: what it said, if that is a failure and nothing else.
    """

    status: Status
    reason: str
    proof: Proof | None = None


@dataclass(frozen=True)
class Answer:
    """A reply of another kind, as who asked has read it."""

    value: Any
    proof: Proof = NO_PROOF


Read = TypeVar("Read", Candidate, Score, Answer)


def screen_updates(
    replies: Iterable[Message],
    nodes: Mapping[int, str],
    calls: Mapping[str, wire.Call],
    *,
    before: Callable[[wire.Call], Adapter | None],
    spool: Spool,
    declared: Mapping[str, Declared],
    check: Check,
) -> tuple[dict[str, Candidate], dict[str, Turned]]:
    """Sort the replies to a training request.

    Args:
        replies: as they came, in any order.
        nodes: node id -> site, of those that were asked.
        calls: what was sent out, by site.
        before: what the replies to a call are differences to, if they are.
        spool: where the good ones' arrays go.
        declared: the most that each site said it would use; one that said nothing is refused.
        check: whether a reply is its site's own.

    Returns:
        the good ones by site, and for every other asked site what is wrong.
    """

    def read(content: RecordDict, site: str) -> Candidate:
        sizes = read_sizes(content, declared.get(site))
        return read_update(content, calls[site], before(calls[site]), spool, sizes=sizes)

    return _screen(replies, nodes, calls, read, check)


def screen_scores(
    replies: Iterable[Message],
    nodes: Mapping[int, str],
    calls: Mapping[str, wire.Call],
    *,
    candidates: Sequence[str],
    declared: Mapping[str, Declared],
    check: Check,
) -> tuple[dict[str, Score], dict[str, Turned]]:
    """Sort the replies to a scoring request of candidates that have these hashes; see
    ``screen_updates``."""

    def read(content: RecordDict, site: str) -> Score:
        score = read_score(content, candidates=candidates)
        most = declared[site].validation if site in declared else 0
        if score.tokens > most:
            raise FederationError(
                f"it scored on {score.tokens} tokens, and declared {most} at most when it joined"
            )
        return score

    return _screen(replies, nodes, calls, read, check)


def masked_candidate(answer: Answer) -> Candidate:
    """What is known of a site's masked row: that it is the site's, and nothing of what is in it.

    Args:
        answer: the row on disk.
    """
    return Candidate(answer.value, None, 0, 0, None, None, 0.0, {}, answer.proof)


def screen_answers(
    replies: Iterable[Message],
    nodes: Mapping[int, str],
    calls: Mapping[str, wire.Call],
    *,
    read: Callable[[RecordDict, str], Any],
    check: Check,
) -> tuple[dict[str, Answer], dict[str, Turned]]:
    """Sort replies that ``read`` reads or refuses (FederationError); see ``screen_updates``."""

    def answer(content: RecordDict, site: str) -> Answer:
        return Answer(read(content, site))

    return _screen(replies, nodes, calls, answer, check)


def _screen(
    replies: Iterable[Message],
    nodes: Mapping[int, str],
    calls: Mapping[str, wire.Call],
    read: Callable[[RecordDict, str], Read],
    check: Check,
) -> tuple[dict[str, Read], dict[str, Turned]]:
    answers = dict.fromkeys(nodes, 0)
    good: dict[str, Read] = {}
    turned: dict[str, Turned] = {site: Turned("absent", "no answer") for site in nodes.values()}
    for reply in replies:
        node = reply.metadata.src_node_id
        if node not in nodes:
            continue  # an error reply made for a dead node does not carry its id: it is absent
        site = nodes[node]
        answers[node] += 1
        if answers[node] > 1:  # which of them is its own cannot be known
            good.pop(site, None)
            turned[site] = Turned("refused", f"it sent {answers[node]} replies")
            continue
        fate = _one(reply, site, calls[site], read, check)
        if isinstance(fate, Turned):
            turned[site] = fate
        else:
            good[site] = fate
            del turned[site]
    return good, turned


def _one(
    reply: Message,
    site: str,
    call: wire.Call,
    read: Callable[[RecordDict, str], Read],
    check: Check,
) -> Read | Turned:
    if reply.has_error():
        return ended(reply)
    try:
        # First of all: nothing is believed of a reply that is not the site's own.
        proof = check(reply.content, site)
        config = wire.settings(reply.content)
        if config.get("site") != site:
            raise FederationError("it speaks for another site")
        failure = failure_of(reply.content)
        if failure is not None:
            said = failure_in(proof.said, call) == failure.reason
            return replace(failure, proof=proof if said else None)
        if config.get("run") != call.run or config.get("round") != call.round:
            raise FederationError(f"it does not answer round {call.round} of this run")
        return replace(read(reply.content, site), proof=proof)
    except (FederationError, AdapterError) as error:
        return Turned("refused", str(error))


def ended(reply: Message) -> Turned:
    """What an error that Flower made of an app's end is taken for."""
    # Not its reason: Flower puts the exception's text there.
    return Turned("failed", f"its app ended with Flower error {reply.error.code}")


def failure_of(content: RecordDict) -> Turned | None:
    """How an untrusted reply says that its site failed, if it does."""
    config = content.config_records.get(wire.CONFIG, {})
    if config.get("status") != "failed":
        return None
    code, incident = (
        re.sub(r"[^a-z0-9-]", "?", str(config.get(key, "?")))[:20] for key in ("code", "incident")
    )
    return Turned("failed", _failed(code, incident))


def _failed(code: object, incident: object) -> str:
    return f"{code} (incident {incident} in the site's own log)"


def failure_in(said: Mapping[str, Any], call: wire.Call) -> str:
    """The failure that a statement tells in this round, and nothing else; "" if it is another."""
    config = dict(said["config"])
    config.pop(HEAD, None)
    told = [config.pop(key, None) for key in ("code", "incident")]
    rest = {"run": call.run, "round": call.round, "site": config.get("site"), "status": "failed"}
    return "" if said["arrays"] or said["numbers"] or config != rest else _failed(*told)
