"""The Strategy: one round, from the broadcast to the checkpoint.

    broadcast -> the sites train -> screening, one by one and beside one another
      -> (the candidates are scored) -> weights -> aggregation -> checkpoint -> callback

Flower's own loop (``Strategy.start``) calls it; the arithmetic is in ``aggregation``.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from fedmedlora.aggregation.methods import METHODS
from fedmedlora.aggregation.weights import pool_losses
from fedmedlora.errors import FederationError
from fedmedlora.federation import checkpoints, wire
from fedmedlora.federation.audit import AuditLog
from fedmedlora.federation.client import MESSAGE_TYPES, PHASES
from fedmedlora.federation.contributions import Answers, contributions_of, kept_files
from fedmedlora.federation.ends import CoordinatorEnd
from fedmedlora.federation.flower import (
    ArrayRecord,
    ConfigRecord,
    Grid,
    Message,
    Metadata,
    MetricRecord,
    RecordDict,
    Strategy,
)
from fedmedlora.federation.grid import CountedGrid, RunStopped
from fedmedlora.federation.plan import (
    FederationPlan,
    OnEvent,
    RoundRecord,
    ServerLosses,
    SiteRecord,
)
from fedmedlora.federation.roster import Roster
from fedmedlora.federation.screening import (
    Candidate,
    Turned,
    masked_candidate,
    screen_answers,
    screen_scores,
    screen_updates,
)
from fedmedlora.federation.secure import messages
from fedmedlora.federation.secure.exchange import SecureRound
from fedmedlora.federation.secure.roster import Attempt
from fedmedlora.federation.server_model import ServerModel
from fedmedlora.federation.spool import Spool, Spooled
from fedmedlora.federation.statements import Phase
from fedmedlora.federation.suspects import compare, suspected
from fedmedlora.federation.updates import Packed, packed_replies, robust_inputs
from fedmedlora.model.adapter import Adapter, Manifest
from fedmedlora.model.packing import form_of, pack

Given = TypeVar("Given")
Found = TypeVar("Found")


@dataclass
class Round:
    """One round while it runs.

    Attributes:
        number: from 1.
        calls: what the messages to and from each site carry.
        nonce: of its requests.
        nodes: node id -> site, of those that were asked to train.
        started: monotonic time.
        sites: what is known so far, for every expected site.
        answers: what came of them.
        secure: what secure aggregation came to.
    """

    number: int
    calls: dict[str, wire.Call]
    nonce: str = ""
    nodes: dict[int, str] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)
    sites: dict[str, SiteRecord] = field(default_factory=dict)
    answers: Answers = field(default_factory=Answers)
    secure: Mapping[str, Any] | None = None

    def note(self, site: str, **facts: object) -> None:
        """Replace fields of a site's record."""
        self.sites[site] = replace(self.sites[site], **facts)  # type: ignore[arg-type]

    def note_stage(
        self, stage: str, turned: Mapping[str, Turned], *, sites: Iterable[str] | None = None
    ) -> None:
        """Record how sites did at a stage of secure aggregation; all that were asked by default."""
        for site in self.nodes.values() if sites is None else sites:
            fate = turned.get(site)
            told = "ok" if fate is None else f"{fate.status}: {fate.reason}"
            self.note(site, secure={**self.sites[site].secure, stage: told})

    def turn(self, turned: Mapping[str, Turned]) -> None:
        """Record sites that do not count in this round, and why."""
        for site, fate in turned.items():
            self.note(site, status=fate.status, reason=fate.reason)


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
        self._end = CoordinatorEnd(plan, log, key=key)
        self._initial = initial
        self.model = ServerModel(plan, initial, progress.state)
        self.records = list(progress.records)
        self._before = len(progress.records)
        self._folder = folder
        self._server_losses = server_losses
        self._on_round = on_round
        self._on_event = on_event
        self._secured: SecureRound | None = None
        self._grid: CountedGrid
        self._roster: Roster
        self._round: Round

    def begin(self, grid: CountedGrid) -> ArrayRecord:
        """Take the grid, wait until the sites are there, and give the first broadcast."""
        self._grid = grid
        grid.on_late = self._note_late
        kept = self._folder / checkpoints.DECLARED_FILE
        self._roster = Roster(self.plan, grid, end=self._end, on_event=self._on_event, kept=kept)
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
        self._round = Round(number, calls, nonce)
        self._round.sites = {
            site: SiteRecord(status="absent", reason="not connected") for site in self.plan.sites
        }
        self._round.nodes = self._roster.present()
        self._round.answers.stated["introduce"] = dict(self._roster.proofs)
        for site, most in self._roster.declared.items():
            self._round.note(site, declared=asdict(most))
        self._tell("round", round=number, rounds=self.plan.rounds, sites=len(self._round.nodes))
        nodes = {site: node for node, site in self._round.nodes.items()}
        if self.plan.secure is not None:
            self._secured = SecureRound(
                self.plan.terms, Attempt(self.plan.run_id, number, nonce), self._ask
            )
            nodes = {site: nodes[site] for site in self._keys_shared(self._secured, nodes)}
            self._round.nodes = {node: site for site, node in nodes.items()}
        requests = self.model.requests({site: calls[site] for site in nodes})
        if self._secured is not None:
            requests = self._secured.with_parcels(requests)
        return (self._message("train", one, site=site, node=nodes[site]) for site, one in requests)

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
                if self._secured is None:
                    candidates = self._collect(replies, spool)
                else:
                    candidates = self._collect_masked(self._secured, replies, spool)
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
            check=partial(self._end.check, phase="train"),
        )
        self._count("train")
        current.answers.trained = dict(candidates)
        current.answers.state("train", candidates, turned)
        for site, candidate in candidates.items():
            self._admit(site, candidate)
        # The plan's order, not that of arrival: it is the order of the sums.
        candidates = {site: candidates[site] for site in self.plan.sites if site in candidates}
        turned |= self._compare(candidates, spool)
        current.turn(turned)
        self._log_replies("train", turned)
        candidates = {site: one for site, one in candidates.items() if site not in turned}
        self._need_quorum("trained", len(candidates))
        losses: dict[str, float] = {}
        if METHODS[self.plan.method].scored:
            losses = self._losses(candidates)
            candidates = {site: candidates[site] for site in losses}
            self._need_quorum("scored", len(candidates))
        self._combine(candidates, losses, spool)
        return candidates

    # The steps of a round under secure aggregation

    def _keys_shared(self, secured: SecureRound, sites: Iterable[str]) -> tuple[str, ...]:
        """The sites that have shared keys with one another; nothing is known of updates yet."""
        try:
            shared = self._told(secured.open, sites)
            reason = "the sum of this round was unmasked without it in an earlier attempt"
            self._round.turn(dict.fromkeys(secured.left_out, Turned("absent", reason)))
            self._need_quorum("shared keys", len(shared))
        except RunStopped:
            raise
        except FederationError as error:
            self._fail(str(error))
            raise
        return shared

    def _told(self, step: Callable[[Given], Found], argument: Given) -> Found:
        """A step of secure aggregation; where it fails, the round and the lost sites are named."""
        try:
            return step(argument)
        except RunStopped:
            raise
        except FederationError as error:
            raise FederationError(f"round {self._round.number}: {error}{self._lost()}") from error

    def _collect_masked(
        self, secured: SecureRound, replies: Iterable[Message], spool: Spool
    ) -> dict[str, Candidate]:
        """Take masked rows, and the next state from their sum."""
        current = self._round
        call = next(iter(current.calls.values()))
        size = Manifest.from_json(call.reply_manifest).size + 1

        def row(content: RecordDict, site: str) -> Spooled:
            return spool.put_bytes(messages.check_row(content, size))

        check = partial(self._end.check, phase="train")
        answers, turned = screen_answers(
            replies, current.nodes, current.calls, read=row, check=check
        )
        self._count("train")
        current.turn(turned)
        current.note_stage("train", turned)
        self._log_replies("train", turned)
        answers = {site: answers[site] for site in self.plan.sites if site in answers}
        for site in answers:
            current.note(site, status="ok", reason=None, weight=None)
        self._need_quorum("trained", len(answers))
        mean = self._told(secured.close, {site: one.value for site, one in answers.items()})
        current.secure = secured.record(mean)
        self.model.step_by(mean.update, call)
        return {site: masked_candidate(answer) for site, answer in answers.items()}

    def _ask(
        self,
        phase: Phase,
        requests: Mapping[str, RecordDict],
        read: Callable[[RecordDict, str], Any],
    ) -> dict[str, Any]:
        """See ``secure.exchange.Ask``."""
        current = self._round
        nodes = {node: site for node, site in current.nodes.items() if site in requests}
        asked = (
            self._message(phase, requests[site], site=site, node=node)
            for node, site in nodes.items()
        )
        answers, turned = screen_answers(
            self._grid.send_and_receive(asked, timeout=self.plan.timeout_s),
            nodes,
            current.calls,
            read=read,
            check=partial(self._end.check, phase=phase),
        )
        self._count(phase)
        if phase in ("keys", "shares"):
            current.turn(turned)
        current.note_stage(phase, turned, sites=nodes.values())
        self._log_replies(phase, turned)
        return {site: answers[site].value for site in self.plan.sites if site in answers}

    def _admit(self, site: str, candidate: Candidate) -> None:
        self._round.note(
            site,
            status="ok",
            reason=None,
            examples=candidate.examples,
            tokens=candidate.tokens,
            loss_first=candidate.loss_first,
            loss_last=candidate.loss_last,
            seconds=candidate.seconds,
            counts=dict(candidate.counts),
        )

    def _compare(self, candidates: Mapping[str, Candidate], spool: Spool) -> dict[str, Turned]:
        """Note what the replies look like beside one another, and who is refused for it."""
        options, refused = self.plan.screening, {}
        if len(self.plan.sites) == 1 or options.is_off:
            return {}
        groups = self._packed(candidates, spool)
        step = partial(self._last_step, spool)
        for site, finding in compare(groups, options, last_step=step).items():
            said, fate = suspected(finding, options)
            self._round.note(site, update=finding.numbers, flags=said)
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
        """L_k of every candidate that has a finite one; the others are refused."""
        self._tell("scoring", round=self._round.number, by=self.plan.validation)
        if self.plan.validation == "server":
            if self._server_losses is None:
                raise FederationError("validation at the server needs server_losses")
            adapters = [self._adapter(site, one) for site, one in candidates.items()]
            rows, tokens = [list(self._server_losses(adapters))], [1]
        else:
            rows, tokens = self._scores_of_sites(candidates)
        if any(len(row) != len(candidates) for row in rows):
            raise FederationError(
                f"server_losses gave {len(rows[0])} losses for {len(candidates)} candidates"
            )
        table = np.array(rows, dtype=np.float64)
        finite = [bool(np.isfinite(column).all()) for column in table.T]
        for site, good in zip(candidates, finite, strict=True):
            if not good:
                reason = "its adapter's validation loss is not finite"
                self._round.turn({site: Turned("refused", reason)})
        if not any(finite):
            return {}
        names = [site for site, good in zip(candidates, finite, strict=True) if good]
        pooled = pool_losses(list(table[:, finite]), tokens)
        losses = {site: float(loss) for site, loss in zip(names, pooled, strict=True)}
        for site, loss in losses.items():
            self._round.note(site, validation_loss=loss)
        return losses

    def _scores_of_sites(
        self, candidates: Mapping[str, Candidate]
    ) -> tuple[list[list[float]], list[int]]:
        """Every admitted site scores every candidate; rows of losses, and tokens counted."""
        first = self._round.calls[next(iter(candidates))]
        call, content = self.model.scoring_request(
            first, [candidate.packed.read() for candidate in candidates.values()]
        )
        nodes = {node: site for node, site in self._round.nodes.items() if site in candidates}
        messages = (
            self._message("score", content, site=site, node=node) for node, site in nodes.items()
        )
        replies = self._grid.send_and_receive(messages, timeout=self.plan.timeout_s)
        calls = dict.fromkeys(nodes.values(), call)
        scores, turned = screen_scores(
            replies,
            nodes,
            calls,
            candidates=[one.sha256 for one in candidates.values()],
            declared=self._roster.declared,
            check=partial(self._end.check, phase="score"),
        )
        self._count("score")
        self._round.answers.scored, self._round.answers.scores = tuple(candidates), scores
        self._round.answers.state("score", scores, turned)
        for site in scores:
            self._round.note(site, scoring="ok")
        for site, fate in turned.items():
            self._round.note(site, scoring=f"{fate.status}: {fate.reason}")
        self._log_replies("score", turned)
        self._need_quorum("scored the candidates", len(scores))
        good = [scores[site] for site in candidates if site in scores]
        return [list(score.losses) for score in good], [score.tokens for score in good]

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
        adapters = (self._adapter(site, one) for site, one in candidates.items())
        self.model.combine(adapters, list(candidates), weights, self._round.number, columns=columns)

    def _adapter(self, site: str, candidate: Candidate) -> Adapter:
        return candidate.adapter(self._round.calls[site])

    def _next_broadcast(self) -> ArrayRecord:
        """What Flower's loop passes on; the requests are made from ``model``, site by site."""
        return wire.adapter_arrays(pack(self.model.trainable, form_of(self.plan.wire)))

    def _finish(self, candidates: Mapping[str, Candidate]) -> None:
        current, number = self._round, self._round.number
        record = RoundRecord(
            round=number,
            method=self.plan.method,
            sites=self._round.sites,
            seconds=time.monotonic() - self._round.started,
            checkpoint=checkpoints.round_name(number),
            adapter_sha256=self.model.trainable.sha256,
            server_sha256=checkpoints.server_sha256(self.model.state),
            secure=current.secure,
        )
        checkpoints.write_round(
            self._folder,
            record,
            self.model.trainable,
            state=self.model.state,
            base_model=self.plan.base_model,
            contributions=contributions_of(
                self.plan,
                number,
                nonce=current.nonce,
                records=current.sites,
                candidates=candidates,
                answers=current.answers,
            ),
            kept=kept_files(candidates, current.answers) if self.plan.keep_replies else {},
        )
        self.records.append(record)
        self._tell("round-done", record=record)
        if self._on_round is not None:
            self._on_round(record, self.model.adapter)

    def _fail(self, reason: str) -> None:
        record = RoundRecord(
            round=self._round.number,
            method=self.plan.method,
            sites=self._round.sites,
            seconds=time.monotonic() - self._round.started,
            status="failed",
            reason=reason,
        )
        checkpoints.write_failed_round(self._folder, record)
        self._tell("round-failed", record=record)

    def _need_quorum(self, done: str, number: int) -> None:
        if number >= self.plan.quorum:
            return
        raise FederationError(
            f"round {self._round.number}: {number} of {len(self.plan.sites)} sites {done}, "
            f"{self.plan.quorum} are needed{self._lost()}"
        )

    def _lost(self) -> str:
        """The sites that did not do what was asked of them so far, and why; for a message."""
        lost = []
        for site, record in self._round.sites.items():
            stages = [fate for fate in record.secure.values() if fate != "ok"]
            if stages:
                lost.append(f"{site} {stages[0]}")
            elif record.secure:
                continue  # it is still at it
            elif record.status != "ok":
                lost.append(f"{site} {record.status} ({record.reason})")
            elif record.scoring not in (None, "ok"):
                lost.append(f"{site} ({record.scoring})")
        return f": {'; '.join(lost)}" if lost else ""

    # Messages and events

    def _message(self, phase: Phase, content: RecordDict, *, site: str, node: int) -> Message:
        content = self._end.address(content, phase=phase, node=node, site=site)
        group = str(self._round.number)
        return Message(content, node, MESSAGE_TYPES[phase], ttl=self.plan.ttl_s, group_id=group)

    def _log_replies(self, phase: Phase, turned: Mapping[str, Turned]) -> None:
        good = Turned("ok", "")
        for site in self._round.nodes.values():
            fate = turned.get(site, good)
            self._end.record(
                site,
                phase=phase,
                round=self._round.number,
                status=fate.status,
                reason=fate.reason or None,
            )

    def _note_late(self, request: Metadata) -> None:
        """An answer came after its round's deadline: it is named, and counts nowhere."""
        site, number = self.site(request.dst_node_id), int(request.group_id or 0)
        phase = PHASES[request.message_type]
        self._end.record_late(site, phase=phase, round=number)
        if site and number:
            self._round.note(site, late={**self._round.sites[site].late, phase: number})
            self._tell("late", site=site, round=number, phase=phase)

    def _count(self, phase: str) -> None:
        """Add the bytes of the latest exchange to the sites' records."""
        for node, exchange in self._grid.exchanges.items():
            site = self._round.nodes.get(node)
            if site is None:
                continue
            record = self._round.sites[site]
            if record.reason == "not connected":
                self._round.note(site, reason="no answer")
            self._round.note(
                site,
                bytes_down=record.bytes_down + exchange.down,
                bytes_up=record.bytes_up + exchange.up,
                phases={**record.phases, phase: (exchange.down, exchange.up)},
            )

    def _tell(self, kind: str, **facts: object) -> None:
        if self._on_event is not None:
            self._on_event(kind, **facts)
