"""One round made again from its kept replies by the code that made it; what differs is gathered."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmedlora.aggregation.methods import METHODS
from fedmedlora.aggregation.ring import Row
from fedmedlora.aggregation.weights import pool_losses
from fedmedlora.errors import RunError
from fedmedlora.federation.arrays import array_in
from fedmedlora.federation.contributions import (
    PACKED_FILE,
    UNMASKING_FILE,
    Contribution,
    Contributions,
)
from fedmedlora.federation.flower import RecordDict
from fedmedlora.federation.plan import FederationPlan
from fedmedlora.federation.records import RoundRecord
from fedmedlora.federation.secure.messages import asked_sha256
from fedmedlora.federation.secure.roster import Attempt
from fedmedlora.federation.secure.unmasking import Unmasking
from fedmedlora.federation.server_model import ServerModel
from fedmedlora.federation.spool import Spool, Spooled
from fedmedlora.federation.stated import Statements
from fedmedlora.federation.statements import BEGUN, request_sha256
from fedmedlora.federation.sums import file_sha256
from fedmedlora.federation.updates import packed_replies, robust_inputs
from fedmedlora.federation.wire import CANDIDATES, CONFIG, Call
from fedmedlora.model.adapter import Adapter, Manifest, check_adapter
from fedmedlora.model.packing import array_of, unpack_update

_NOT_KEPT = "its replies were not kept (federation.keep_replies)"


class RemadeRound:
    """One round while it is made again; faults that do not end that are gathered."""

    def __init__(
        self,
        plan: FederationPlan,
        model: ServerModel,
        statements: Statements,
        record: RoundRecord,
        contributions: Contributions,
        *,
        begun: str,
    ) -> None:
        self.faults = statements.faults
        self._plan, self._model, self._statements = plan, model, statements
        self._record, self._contributions = record, contributions
        self._begun = begun

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
            raise RunError(_NOT_KEPT)
        calls = self._calls()
        self._statements.check({site: call.reply_manifest for site, call in calls.items()})
        # Also what differences are differences to.
        asked = {site: self._asked(one) for site, one in self._model.requests(calls)}
        for one in told.contributions:
            self._check_statement(one, asked[one.signed.site])
        losses = self._losses(calls)
        with tempfile.TemporaryDirectory() as folder:
            self._step(losses, calls, Spool(Path(folder) / "sent"))
        return self._model

    def _asked(self, request: RecordDict) -> str:
        """The hash of a request to train, as the coordinator sent it."""
        if self._begun:
            request[CONFIG][BEGUN] = self._begun
        return request_sha256(request)

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


class RemadeMaskedRound(RemadeRound):
    """A round under secure aggregation: the sum of the masked rows, unmasked once more.

    Every row is the one that its site signed, the list of them has the signatures of the threshold,
    with the hash of what they were asked to train, and seeds and keys are those that the sites
    advertised: whoever keeps the folder cannot have put in another sum. What a site put into its
    row nobody can say.
    """

    def combine(self) -> ServerModel:
        """The model after the round, from the masked rows."""
        told, plan = self._contributions, self._plan
        if not self._statements.are_kept:
            raise RunError(_NOT_KEPT)
        calls = self._calls()
        self._statements.check({})
        attempt = Attempt(plan.run_id, self._record.round, told.nonce)
        data = self._statements.beside(UNMASKING_FILE).read_bytes()
        unmasking = Unmasking.from_json(data, plan.terms, attempt)
        if list(unmasking.survivors.sites) != self._sites():
            self.faults.append("its list of survivors has other sites than its contributions")
        request = next(one for _, one in self._model.requests(calls))
        if unmasking.survivors.asked != asked_sha256(request):
            self.faults.append("the sites have signed that they were asked to train something else")
        call = next(iter(calls.values()))
        mean = unmasking.open(self._total(Manifest.from_json(call.reply_manifest).size + 1))
        secure = self._record.secure or {}
        if (secure.get("weight"), secure.get("threshold")) != (mean.weight, plan.terms.threshold):
            self.faults.append(
                f"the weights sum to {mean.weight:g}, of {plan.terms.threshold} sites at least, "
                "and its record says otherwise"
            )
        self._model.step_by(mean.update, call)
        return self._model

    def _total(self, size: int) -> Row:
        """The sum of the masked rows, each the one that its site stated for this attempt."""
        total: Row = np.zeros(size, np.uint64)
        for one in self._contributions.contributions:
            site, path = one.signed.site, self._packed(one.signed.site)
            content = self._statements.read(one.signed, "train")
            if content["config"].get("nonce") != self._contributions.nonce:
                self.faults.append(f"{site}: its row is of another attempt at this round")
            if content["arrays"] != {"adapter/packed": file_sha256(path)}:
                self.faults.append(f"{site}: {PACKED_FILE} is not the row that it stated")
            total += array_in(path.read_bytes(), np.dtype("<u8"), size)
        return total


def difference(
    made: Mapping[str, NDArray[np.float32]], recorded: Mapping[str, NDArray[np.float32]]
) -> str:
    """How far two adapters are apart, in words."""
    apart = [name for name in recorded if not np.array_equal(made[name], recorded[name])]
    most = max((float(np.abs(made[name] - recorded[name]).max()) for name in apart), default=0.0)
    first = f", the first {apart[0]}" if apart else ""
    return f"{len(apart)} of {len(recorded)} tensors differ, by at most {most:.3g}{first}"
