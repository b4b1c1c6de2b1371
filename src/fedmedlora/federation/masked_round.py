"""A round under secure aggregation, at the coordinator: masked rows in, the next state out.

``secure.exchange`` says which stage follows which; here sites are asked, screened and recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from fedmedlora.errors import FederationError
from fedmedlora.federation.correspondence import Correspondence
from fedmedlora.federation.counted_grid import RunStopped
from fedmedlora.federation.current_round import Round
from fedmedlora.federation.flower import Message, RecordDict
from fedmedlora.federation.plan import FederationPlan
from fedmedlora.federation.replies import Candidate
from fedmedlora.federation.screening import Turned, masked_candidate, screen_answers
from fedmedlora.federation.secure import messages
from fedmedlora.federation.secure.exchange import SecureRound
from fedmedlora.federation.secure.roster import Attempt
from fedmedlora.federation.server_model import ServerModel
from fedmedlora.federation.spool import Spool, Spooled
from fedmedlora.federation.statements import Phase
from fedmedlora.model.adapter import Manifest

Given = TypeVar("Given")
Found = TypeVar("Found")


class MaskedRound:
    """One round.

    Args:
        plan: with the terms.
        current: the round.
        model: the server's.
        post: where sites are asked.
    """

    def __init__(
        self, plan: FederationPlan, current: Round, *, model: ServerModel, post: Correspondence
    ) -> None:
        self._plan, self._round, self._model, self._post = plan, current, model, post
        attempt = Attempt(plan.run_id, current.number, current.nonce)
        self._secured = SecureRound(plan.terms, attempt, self._ask)

    def share_keys(self, sites: Iterable[str]) -> tuple[str, ...]:
        """The sites that have shared keys with one another; nothing is known of updates yet.

        Raises:
            FederationError: too few have.
        """
        shared = self._told(self._secured.open, sites)
        reason = "the sum of this round was unmasked without it in an earlier attempt"
        self._round.turn(dict.fromkeys(self._secured.left_out, Turned("absent", reason)))
        self._round.need_quorum("shared keys", len(shared))
        return shared

    def with_parcels(
        self, requests: Iterable[tuple[str, RecordDict]]
    ) -> Iterator[tuple[str, RecordDict]]:
        """Requests to train, each with what the others have sealed for its site."""
        return self._secured.with_parcels(requests)

    def collect(self, replies: Iterable[Message], spool: Spool) -> dict[str, Candidate]:
        """Take masked rows, and the next state from their sum.

        Returns:
            who is in it.

        Raises:
            FederationError: too few are left, or the sum is of no honest rows.
        """
        current = self._round
        call = next(iter(current.calls.values()))
        size = Manifest.from_json(call.reply_manifest).size + 1

        def row(content: RecordDict, site: str) -> Spooled:
            return spool.put_bytes(messages.check_row(content, size))

        answers, turned = screen_answers(
            replies, current.nodes, current.calls, read=row, check=self._post.check("train")
        )
        self._post.count("train")
        current.turn(turned)
        current.note_stage("train", turned)
        self._post.close("train", turned)
        answers = {site: answers[site] for site in self._plan.sites if site in answers}
        candidates = {site: masked_candidate(answer) for site, answer in answers.items()}
        current.answers.trained = candidates
        current.answers.state("train", candidates, turned)
        for site in answers:
            current.note(site, status="ok", reason=None, weight=None)
        current.need_quorum("trained", len(answers))
        rows = {site: one.value for site, one in answers.items()}
        mean = self._told(self._secured.close, rows)
        current.secure = self._secured.record(mean)
        current.unmasking = self._secured.unmasking
        self._model.step_by(mean.update, call)
        return candidates

    def _told(self, step: Callable[[Given], Found], argument: Given) -> Found:
        """A step of secure aggregation; where it fails, the round and the lost sites are named."""
        try:
            return step(argument)
        except RunStopped:
            raise
        except FederationError as error:
            lost = self._round.lost()
            raise FederationError(f"round {self._round.number}: {error}{lost}") from error

    def _ask(
        self,
        phase: Phase,
        requests: Mapping[str, RecordDict],
        read: Callable[[RecordDict, str], Any],
    ) -> dict[str, Any]:
        """See ``secure.exchange.Ask``."""
        current = self._round
        nodes = {node: site for node, site in current.nodes.items() if site in requests}
        answers, turned = screen_answers(
            self._post.ask(phase, ((site, requests[site]) for site in nodes.values())),
            nodes,
            current.calls,
            read=read,
            check=self._post.check(phase),
        )
        self._post.count(phase)
        if phase in ("keys", "shares"):
            current.turn(turned)
        current.note_stage(phase, turned, sites=nodes.values())
        self._post.close(phase, turned)
        return {site: answers[site].value for site in self._plan.sites if site in answers}
