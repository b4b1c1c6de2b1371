"""A federation's folder in, whether every round is what its replies make of it out.

Each round's global adapter is made again from the kept replies by the code that made it, from the
state that the replies before it made, and its hash compared with the checkpoint's. No backbone and
no notes are needed. Methods with a decomposition (FlexLoRA, FedEx-LoRA) may differ in last bits on
another machine; how far is told.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from fedmedlora.aggregation.methods import METHODS, ServerState
from fedmedlora.aggregation.weights import pool_losses
from fedmedlora.errors import AdapterError, FederationError, RunError
from fedmedlora.federation import checkpoints
from fedmedlora.federation.contributions import (
    PACKED_FILE,
    Contribution,
    Contributions,
)
from fedmedlora.federation.plan import FederationPlan, RoundRecord
from fedmedlora.federation.server_model import ServerModel
from fedmedlora.federation.spool import Spool, Spooled
from fedmedlora.federation.stated import Statements
from fedmedlora.federation.statements import request_sha256
from fedmedlora.federation.sums import check_sums, file_sha256
from fedmedlora.federation.updates import packed_replies, robust_inputs
from fedmedlora.federation.wire import CANDIDATES, Call, array_in
from fedmedlora.model.adapter import Adapter, Manifest, check_adapter
from fedmedlora.model.adapter_files import read_adapter
from fedmedlora.model.packing import array_of, unpack_update

#: What may be wrong with a file that is there.
_BROKEN = (AdapterError, FederationError, RunError, OSError, ValueError, KeyError, TypeError)


@dataclass(frozen=True)
class RoundVerdict:
    """What was found of one round.

    Attributes:
        round: from 1.
        sites: whose replies it was made of.
        signed: how many of them are signed.
        recorded: hash (hex) of the checkpoint's adapter.
        made: hash of the one that was made again; "" if none could be.
        faults: what differs or is missing, one sentence each.
    """

    round: int
    sites: tuple[str, ...]
    signed: int
    recorded: str
    made: str
    faults: tuple[str, ...]

    @property
    def same(self) -> bool:
        """Whether the round is what its replies make of it."""
        return not self.faults and self.made == self.recorded != ""


def verify_federation(folder: Path) -> list[RoundVerdict]:
    """Make every round of the plan again from its kept replies; one that is not there is a fault.

    Raises:
        RunError: the folder holds no federation, no round, or the initial adapter is not the one
            that it began with.
    """
    content, digest, _ = checkpoints.read_plan(folder)
    try:
        plan = TypeAdapter(FederationPlan).validate_python(content)
        _refuse_masked(folder, plan)
        initial = read_adapter(folder / checkpoints.INITIAL_FOLDER)
    except (ValidationError, ValueError) as error:
        raise RunError(f"{folder / checkpoints.PLAN_FILE} holds no plan of this release") from error
    except AdapterError as error:
        raise RunError(
            f"{error}; replies are kept, and a run can be verified, with federation.keep_replies"
        ) from error
    if initial.sha256 != digest:
        raise RunError(
            f"{folder}: the initial adapter is not the one that the federation began with"
        )
    numbers = sorted(
        int(place.name.removeprefix("round-"))
        for place in folder.glob("round-[0-9][0-9][0-9][0-9]")
    )
    if not numbers:
        raise RunError(f"{folder} has no complete round")
    verdicts = []
    state = ServerState(initial.tensors)
    for number in range(1, max(numbers[-1], plan.rounds) + 1):
        verdict, state = _verify_round(folder, number, plan, initial, state)
        verdicts.append(verdict)
    return verdicts


def _refuse_masked(folder: Path, plan: FederationPlan) -> None:
    if plan.secure is not None:
        raise RunError(
            f"{folder}: its replies were masked (secure aggregation), and no round can be made "
            "again from them; hashes and signatures of what the sites sent are in each round's "
            "contributions.json and in the sites' own audit logs"
        )


def _verify_round(
    folder: Path, number: int, plan: FederationPlan, initial: Adapter, before: ServerState
) -> tuple[RoundVerdict, ServerState]:
    """What is found of a round, and the state to go on from: the checkpoint's, if there is one."""
    place = folder / checkpoints.round_name(number)
    if not place.exists():
        fault = f"it is not there, and the plan has {plan.rounds} rounds"
        return RoundVerdict(number, (), 0, "", "", (fault,)), before
    faults: list[str] = []
    try:
        check_sums(place)
        checkpoints.check_follows(folder, number)
    except _BROKEN as error:
        faults.append(_told(error))
    try:
        record, recorded = checkpoints.read_round(place, initial)
        contributions = Contributions.read(place)
    except _BROKEN as error:
        lost = RoundVerdict(number, (), 0, "", "", (*faults, _told(error)))
        return lost, before
    sites = tuple(one.signed.site for one in contributions.contributions)
    statements = Statements(place, plan, record, contributions)
    again = _Round(plan, ServerModel(plan, initial, before), statements, record, contributions)
    made = ""
    try:
        again.check_sites(number)
        model = again.combine()
        made = model.trainable.sha256
        faults += again.faults
        if made != record.adapter_sha256:
            faults.append(f"another adapter: {_difference(model.state.factors, recorded.factors)}")
        if checkpoints.server_sha256(model.state) != record.server_sha256:
            faults.append("what else the server keeps is another")
    except _BROKEN as error:
        faults += [*again.faults, _told(error)]
    verdict = RoundVerdict(
        round=number,
        sites=sites,
        signed=sum(bool(one.signed.signature) for one in contributions.contributions),
        recorded=record.adapter_sha256 or "",
        made=made,
        faults=tuple(dict.fromkeys(faults)),
    )
    return verdict, recorded


class _Round:
    """One round while it is made again; faults that do not end that are gathered."""

    def __init__(
        self,
        plan: FederationPlan,
        model: ServerModel,
        statements: Statements,
        record: RoundRecord,
        contributions: Contributions,
    ) -> None:
        self.faults = statements.faults
        self._plan, self._model, self._statements = plan, model, statements
        self._record, self._contributions = record, contributions

    def check_sites(self, number: int) -> None:
        """That the record and the contributions tell of the same sites, run and round."""
        told, plan = self._contributions, self._plan
        if (told.run, told.round, told.method) != (plan.run_id, number, plan.method):
            self.faults.append("its contributions are to another run, round or method")
        if (self._record.round, self._record.method) != (number, plan.method):
            self.faults.append("its record is of another round or method")
        if tuple(self._record.sites) != plan.sites:
            self.faults.append("its record has other sites than the plan")
        counted = [name for name, site in self._record.sites.items() if site.status == "ok"]
        if counted != [one.signed.site for one in told.contributions]:
            self.faults.append("its record counts other sites than its contributions")

    def combine(self) -> ServerModel:
        """The model after the round, from the replies."""
        told = self._contributions
        if told.contributions and not self._statements.are_kept:
            raise RunError("its replies were not kept (federation.keep_replies)")
        calls = self._calls()
        self._statements.check({site: call.reply_manifest for site, call in calls.items()})
        # Also what differences are differences to.
        asked = {site: request_sha256(one) for site, one in self._model.requests(calls)}
        for one in told.contributions:
            self._check_statement(one, asked[one.signed.site])
        losses = self._losses(calls)
        with tempfile.TemporaryDirectory() as folder:
            self._step(losses, calls, Spool(Path(folder) / "sent"))
        return self._model

    def _step(self, losses: list[float], calls: Mapping[str, Call], spool: Spool) -> None:
        """Weigh the replies and combine them; ``spool`` is for what was sent."""
        told = self._contributions
        replies = {
            one.signed.site: Spooled(self._packed(one.signed.site)) for one in told.contributions
        }
        weights, columns = robust_inputs(
            self._plan.robust,
            self._model.weigh(told.contributions, losses),
            lambda: packed_replies(replies, calls, model=self._model, spool=spool)[0][1],
        )
        for one, weight in zip(told.contributions, weights, strict=True):
            if one.weight != weight or self._record.sites[one.signed.site].weight != weight:
                self.faults.append(f"{one.signed.site}: the weight is {weight}, not {one.weight}")
        adapters = (self._adapter(one, calls[one.signed.site]) for one in told.contributions)
        sites = [one.signed.site for one in told.contributions]
        self._model.combine(adapters, sites, weights, self._record.round, columns=columns)

    def _calls(self) -> dict[str, Call]:
        told, number = self._contributions, self._record.round
        sites = dict.fromkeys((*self._sites(), *told.candidates))
        return {site: replace(self._model.call(site, number), nonce=told.nonce) for site in sites}

    def _packed(self, site: str) -> Path:
        return self._statements.file(site, PACKED_FILE)

    def _check_statement(self, one: Contribution, asked: str) -> None:
        site = one.signed.site
        content = self._statements.read(one.signed, "train")
        if content["request"] != asked:
            self.faults.append(f"{site}: it answered another request than this round's")
        if content["arrays"] != {"adapter/packed": file_sha256(self._packed(site))}:
            self.faults.append(f"{site}: {PACKED_FILE} is not the adapter that it stated")

    def _losses(self, calls: Mapping[str, Call]) -> list[float]:
        """L_k: as the sites that scored stated them, or as the server noted its own."""
        told = self._contributions
        if not METHODS[self._plan.method].scored:
            return []
        noted = [one.validation_loss for one in told.contributions]
        losses = [float("nan") if loss is None else loss for loss in noted]
        if self._plan.validation == "server":
            return losses
        stated = self._scores(calls)
        rows = [stated[site] for site in told.candidates if site in stated]
        if {len(row["losses"]) for row in rows} != {len(told.candidates)}:
            raise RunError(f"there are not {len(told.candidates)} losses of every site that scored")
        table = np.array([[float(loss) for loss in row["losses"]] for row in rows])
        good = [site in self._sites() for site in told.candidates]
        pooled = pool_losses(list(table[:, good]), [row["tokens"] for row in rows])
        if pooled.tolist() != losses:
            self.faults.append("the validation losses are not those that the sites stated")
        return [float(loss) for loss in pooled]

    def _scores(self, calls: Mapping[str, Call]) -> dict[str, Mapping[str, Any]]:
        """What the sites stated of the candidates, by scoring site."""
        told = self._contributions
        files = [self._packed(site) for site in told.candidates]
        hashes = [file_sha256(path) for path in files]
        packed = [Spooled(path).read() for path in files]
        _, request = self._model.scoring_request(calls[told.candidates[0]], packed)
        asked, named = request_sha256(request), ", ".join(told.candidates)
        stated = {}
        for signed in told.scorers:
            content = self._statements.read(signed, "score")
            if content["request"] != asked:
                self.faults.append(
                    f"{signed.site}: its losses answer another request than this round's"
                )
            if content["config"].get(CANDIDATES) != hashes:
                self.faults.append(f"{signed.site}: its losses are not of the candidates {named}")
            stated[signed.site] = content["numbers"]["metrics"]
        return stated

    def _sites(self) -> list[str]:
        return [one.signed.site for one in self._contributions.contributions]

    def _adapter(self, one: Contribution, call: Call) -> Adapter:
        data = self._packed(one.signed.site).read_bytes()
        manifest = Manifest.from_json(call.reply_manifest)
        packed = array_in(data, *array_of(call.wire, manifest.size))
        adapter = unpack_update(packed, manifest, call.wire, self._model.before(call))
        check_adapter(adapter.tensors, manifest)
        return adapter


def _difference(
    made: Mapping[str, NDArray[np.float32]], recorded: Mapping[str, NDArray[np.float32]]
) -> str:
    """How far two adapters are apart, in words."""
    apart = [name for name in recorded if not np.array_equal(made[name], recorded[name])]
    most = max((float(np.abs(made[name] - recorded[name]).max()) for name in apart), default=0.0)
    first = f", the first {apart[0]}" if apart else ""
    return f"{len(apart)} of {len(recorded)} tensors differ, by at most {most:.3g}{first}"


def _told(error: BaseException) -> str:
    if isinstance(error, AdapterError | FederationError | RunError):
        return str(error)
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}"
    return f"a file of it is broken ({type(error).__name__})"


def federations_in(run: Path) -> list[Path]:
    """The folders of all federations in a run folder, or the one that it is itself."""
    return sorted(place.parent for place in run.rglob(checkpoints.PLAN_FILE))
