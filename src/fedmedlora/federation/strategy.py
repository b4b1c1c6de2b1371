"""The Strategy: one round, from the broadcast to the checkpoint.

    broadcast -> the sites train -> screening, one by one and beside one another
      -> (the candidates are scored) -> weights -> aggregation -> checkpoint -> callback

Flower's own loop (``Strategy.start``) calls it; the arithmetic is in ``aggregation``.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from fedmedlora.aggregation.methods import METHODS
from fedmedlora.errors import FederationError
from fedmedlora.federation import checkpoints, wire
from fedmedlora.federation.audit import AuditLog
from fedmedlora.federation.candidate_scores import validation_losses
from fedmedlora.federation.closing import close_failed_round, close_round
from fedmedlora.federation.correspondence import Correspondence
from fedmedlora.federation.counted_grid import CountedGrid, RunStopped
from fedmedlora.federation.current_round import Round
from fedmedlora.federation.ends import CoordinatorEnd
from fedmedlora.federation.flower import (
    ArrayRecord,
    ConfigRecord,
    Grid,
    Message,
    MetricRecord,
    Strategy,
)
from fedmedlora.federation.masked_round import MaskedRound
from fedmedlora.federation.plan import FederationPlan, OnEvent, ServerLosses
from fedmedlora.federation.records import RoundRecord, SiteRecord
from fedmedlora.federation.replies import Candidate
from fedmedlora.federation.roster import Roster
from fedmedlora.federation.screening import Turned, screen_updates
from fedmedlora.federation.server_model import ServerModel
from fedmedlora.federation.spool import Spool, Spooled
from fedmedlora.federation.suspects import compare, sketches_before, suspected
from fedmedlora.federation.updates import Packed, packed_replies, robust_inputs
from fedmedlora.model.adapter import Adapter
from fedmedlora.model.packing import form_of, pack


class RoundStrategy(Strategy):  # type: ignore[misc]  # flwr is not followed by the type checker
    """Runs a plan's rounds.

    Attributes:
        model: the global adapter, unrounded, and what else the server keeps.
        records: of all complete rounds.

    Args:
        plan: what to run.
        initial: the adapter that round 1 broadcasts.
        progress: how far the federation has come.
        folder, server_losses, on_round, on_event: see ``run.run_federation``.
        log: the coordinator's audit log, if it keeps one.
        key: file of its private key, if it has one.
    """

    def __init__(
        self,
        plan: FederationPlan,
        initial: Adapter,
        progress: checkpoints.Progress,
        *,
        folder: Path,
        server_losses: ServerLosses | None = None,
        on_round: Callable[[RoundRecord, Adapter], None] | None = None,
        on_event: OnEvent | None = None,
        log: AuditLog | None = None,
        key: Path | None = None,
    ) -> None:
        self.plan = plan
        self._end = CoordinatorEnd(plan, log, key=key, begun=progress.begun)
        self._initial = initial
        self.model = ServerModel(plan, initial, progress.state)
        self.records = list(progress.records)
        self._before = len(progress.records)
        self._folder = folder
        self._server_losses = server_losses
        self._on_round = on_round
        self._on_event = on_event
        self._roster: Roster
        self._post: Correspondence
        self._round: Round
        self._masked: MaskedRound | None = None

    def begin(self, grid: CountedGrid) -> ArrayRecord:
        """Take the grid, wait until the sites are there, and give the first broadcast."""
        kept = self._folder / checkpoints.DECLARED_FILE
        self._roster = Roster(self.plan, grid, end=self._end, on_event=self._on_event, kept=kept)
        self._post = Correspondence(
            self.plan, grid, end=self._end, site_of=self.site, on_event=self._on_event
        )
        self._roster.gather()
        return self._next_broadcast()

    def site(self, node: int) -> str:
        """The site that a node speaks for; "" if it is none of the plan's."""
        return self._roster.site(node)

    # What Flower's loop calls

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Requests to train, one for every expected site that is there.

        Not ``arrays``: a site gets the parts and the rank that its method says.
        """
        number = self._before + server_round
        nonce = secrets.token_hex(16)
        calls = {
            site: replace(self.model.call(site, number), nonce=nonce) for site in self.plan.sites
        }
        current = self._round = self._post.round = Round(number, calls, self.plan.quorum, nonce)
        current.sites = {
            site: SiteRecord(status="absent", reason="not connected") for site in self.plan.sites
        }
        current.nodes = self._roster.present()
        current.answers.stated["introduce"] = dict(self._roster.proofs)
        for site, most in self._roster.declared.items():
            current.note(site, declared=asdict(most))
        self._tell("round", round=number, rounds=self.plan.rounds, sites=len(current.nodes))
        nodes = {site: node for node, site in current.nodes.items()}
        if self.plan.secure is not None:
            self._masked = MaskedRound(self.plan, current, model=self.model, post=self._post)
            nodes = {site: nodes[site] for site in self._keys_shared(self._masked, nodes)}
            current.nodes = {node: site for site, node in nodes.items()}
        requests = self.model.requests({site: calls[site] for site in nodes})
        if self._masked is not None:
            requests = self._masked.with_parcels(requests)
        return (
            self._post.message("train", one, site=site, node=nodes[site]) for site, one in requests
        )

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Replies in, the next broadcast out; the round is on disk before this returns.

        Raises:
            FederationError: too few sites are left; the failed round's record is written first.
            RunError: the checkpoint cannot be written.
        """
        current = self._round
        spool = Spool(self._folder / f".{checkpoints.round_name(current.number)}.replies.tmp")
        try:
            try:
                if self._masked is None:
                    candidates = self._collect(replies, spool)
                else:
                    candidates = self._masked.collect(replies, spool)
            except RunStopped:
                raise
            except FederationError as error:
                self._fail(str(error))
                raise
            self._finish(candidates)
        finally:
            spool.clear()
        return self._next_broadcast(), None

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Nothing: candidates are scored before they are aggregated, not after."""
        return []

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Nothing, likewise."""
        return None

    def summary(self) -> None:
        """Nothing: the round records say it all."""

    # The steps of a round

    def _collect(self, replies: Iterable[Message], spool: Spool) -> dict[str, Candidate]:
        """Screen the replies, have them scored if need be, and take the next state from them."""
        current = self._round
        candidates, turned = screen_updates(
            replies,
            current.nodes,
            current.calls,
            before=self.model.before,
            spool=spool,
            declared=self._roster.declared,
            check=self._post.check("train"),
        )
        self._post.count("train")
        current.answers.trained = dict(candidates)
        current.answers.state("train", candidates, turned)
        for site, candidate in candidates.items():
            current.admit(site, candidate)
        # The plan's order, not that of arrival: it is the order of the sums.
        candidates = {site: candidates[site] for site in self.plan.sites if site in candidates}
        turned |= self._compare(candidates, spool)
        current.turn(turned)
        self._post.close("train", turned)
        candidates = {site: one for site, one in candidates.items() if site not in turned}
        current.need_quorum("trained", len(candidates))
        losses: dict[str, float] = {}
        if METHODS[self.plan.method].scored:
            losses = self._losses(candidates)
            candidates = {site: candidates[site] for site in losses}
            current.need_quorum("scored", len(candidates))
        self._combine(candidates, losses, spool)
        return candidates

    def _keys_shared(self, masked: MaskedRound, sites: Iterable[str]) -> tuple[str, ...]:
        try:
            return masked.share_keys(sites)
        except RunStopped:
            raise
        except FederationError as error:
            self._fail(str(error))
            raise

    def _compare(self, candidates: Mapping[str, Candidate], spool: Spool) -> dict[str, Turned]:
        """Note what the replies look like beside one another, and who is refused for it."""
        options, refused = self.plan.screening, {}
        if len(self.plan.sites) == 1 or options.is_off:
            return {}
        groups = self._packed(candidates, spool)
        current = self._round
        findings, current.sketches = compare(
            groups,
            options,
            replies={site: call.reply_manifest for site, call in current.calls.items()},
            last_step=partial(self._last_step, spool),
            earlier=sketches_before(self._folder, current.number),
        )
        for site, finding in findings.items():
            said, fate = suspected(finding, options)
            current.note(site, update=finding.numbers, flags=said)
            if fate is not None:
                refused[site] = fate
        return refused

    def _packed(
        self, candidates: Mapping[str, Candidate], spool: Spool
    ) -> list[tuple[tuple[str, ...], Packed]]:
        replies = {site: one.packed for site, one in candidates.items()}
        return packed_replies(replies, self._round.calls, model=self.model, spool=spool)

    def _last_step(self, spool: Spool, sites: tuple[str, ...]) -> Spooled | None:
        number = self._round.number
        if number == 1:
            return None
        before = checkpoints.factors_after(self._folder, number - 2, self._initial)
        call = self._round.calls[sites[0]]
        step = None if before is None else self.model.step_since(before, call)
        return None if step is None else spool.put(step)

    def _losses(self, candidates: Mapping[str, Candidate]) -> dict[str, float]:
        self._tell("scoring", round=self._round.number, by=self.plan.validation)
        at_server = self.plan.validation == "server"
        if at_server and self._server_losses is None:
            raise FederationError("validation at the server needs server_losses")
        return validation_losses(
            candidates,
            self._round,
            model=self.model,
            post=self._post,
            declared=self._roster.declared,
            server_losses=self._server_losses if at_server else None,
        )

    def _combine(
        self, candidates: Mapping[str, Candidate], losses: Mapping[str, float], spool: Spool
    ) -> None:
        weights = self.model.weigh(list(candidates.values()), list(losses.values()))
        weights, columns = robust_inputs(
            self.plan.robust, weights, lambda: self._packed(candidates, spool)[0][1]
        )
        for site, weight in zip(candidates, weights, strict=True):
            self._round.note(site, weight=weight)
        # Lazy: one adapter is unpacked at a time.
        adapters = (one.adapter(self._round.calls[site]) for site, one in candidates.items())
        self.model.combine(adapters, list(candidates), weights, self._round.number, columns=columns)

    def _next_broadcast(self) -> ArrayRecord:
        """What Flower's loop passes on; the requests are made from ``model``, site by site."""
        return wire.adapter_arrays(pack(self.model.trainable, form_of(self.plan.wire)))

    def _finish(self, candidates: Mapping[str, Candidate]) -> None:
        record = close_round(
            self._folder, self.plan, self._round, model=self.model, candidates=candidates
        )
        self.records.append(record)
        self._tell("round-done", record=record)
        if self._on_round is not None:
            self._on_round(record, self.model.adapter)

    def _fail(self, reason: str) -> None:
        record = close_failed_round(self._folder, self.plan, self._round, reason=reason)
        self._tell("round-failed", record=record)

    def _tell(self, kind: str, **facts: object) -> None:
        if self._on_event is not None:
            self._on_event(kind, **facts)
