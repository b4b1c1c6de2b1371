"""The trained arms of a study: data and a bench in, adapters and their rounds out.

Every trained method is a federation: a single site is a federation of one, centralised training
one of a single site that has all notes, adaptation to a site one of a single round. So all train,
checkpoint and resume alike.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from fedmedlora.aggregation.methods import METHODS
from fedmedlora.config import Study
from fedmedlora.errors import ConfigError
from fedmedlora.evaluation.open_bias import choose_open_biases
from fedmedlora.federation.first_rounds import FirstRounds
from fedmedlora.federation.own_factors import OwnFactors
from fedmedlora.federation.own_optimiser import OwnOptimiser
from fedmedlora.federation.own_rounds import own_folder
from fedmedlora.federation.plan import SiteWorker, Workers
from fedmedlora.federation.records import RoundRecord
from fedmedlora.federation.run import run_federation
from fedmedlora.federation.secure.own_secrets import one_machines_keys
from fedmedlora.federation.site import AdapterSite
from fedmedlora.model.adapter import Adapter
from fedmedlora.model.adapter_files import read_adapter
from fedmedlora.model.candidates import candidate_losses
from fedmedlora.model.encoding import encode_examples
from fedmedlora.progress import OnEvent
from fedmedlora.schema import Document
from fedmedlora.seeds import derive_seed
from fedmedlora.study.arms import Arm, study_arms
from fedmedlora.study.benches import Bench, Rows, questions_about
from fedmedlora.study.data import POOLED, SiteData, StudyData, first_notes, load_data
from fedmedlora.study.lora_bench import LoraBench
from fedmedlora.study.planning import federation_plan, site_processes
from fedmedlora.study.privacy import is_private, private_rounds
from fedmedlora.study.tagger_bench import TaggerBench
from fedmedlora.tasks.example import Example


@dataclass(frozen=True)
class Trained:
    """What an arm's training ends with.

    Attributes:
        adapter: of everybody, or what a new site gets where sites keep factors of their own.
        records: its rounds.
        open_biases: of each task.
        own: site -> its own adapter, where sites keep factors.
    """

    adapter: Adapter
    records: tuple[RoundRecord, ...]
    open_biases: Mapping[str, float]
    own: Mapping[str, Adapter] = field(default_factory=dict)


class MethodRunner:
    """Trains arms of one study, one after another, on a bench for each kind of model.

    Attributes:
        data: of the study.
        on_event: told of progress.

    Args:
        study: checked.
        data: of the study.
        folder: the run folder; federations keep their checkpoints in its ``federation``.
        on_event: told of progress.
    """

    def __init__(self, study: Study, data: StudyData, folder: Path, on_event: OnEvent) -> None:
        self.data = data
        self.lora = LoraBench(study, data)
        self._tagger = TaggerBench(study, data)
        self._folder = folder
        self.on_event = on_event

    def bench(self, arm: Arm) -> Bench:
        """The bench that an arm's models are trained and asked on."""
        return self._tagger if arm.is_tagger else self.lora

    def questions(
        self,
        arm: Arm,
        documents: Sequence[Document],
        covers: frozenset[str],
        *,
        tasks: Sequence[str] | None = None,
    ) -> list[Example]:
        """What an arm is asked about documents."""
        bench = self.bench(arm)
        return questions_about(
            documents, covers=covers, scheme=bench.scheme, settings=bench.settings, tasks=tasks
        )

    def train(
        self, arm: Arm, *, on_round: Callable[[RoundRecord, Adapter], None] | None = None
    ) -> Trained:
        """Train an arm; goes on where an earlier call was interrupted.

        Args:
            arm: of a trained kind.
            on_round: told of every round that is made now, and of the last one before.
        """
        study = arm.study
        sites = self.sites(arm)
        names = (POOLED,) if arm.kind == "centralised" else tuple(site.name for site in sites)
        workers: Workers
        for site in sites:  # here, where an error still names its key
            self.bench(arm).encode(site, study)
        if METHODS[arm.federated_method].scored and study.federation.validation == "sites":
            self._refuse_nothing_to_score_on(sites, arm)
        if is_private(arm):
            for name in names:
                self._prepare(arm, name)
        initial = self.bench(arm).base(study).initial
        if study.federation.engine == "flower" or site_processes(study, names) > 1:
            self.bench(arm).forget()  # the sites' processes want its place
            place = self._folder.resolve()
            workers = partial(site_worker, study.model_dump_json(), place, arm.label)
        else:
            workers = {name: self.worker(arm, name) for name in names}
        folder = self._folder / "federation" / arm.label

        def tell(kind: str, /, **facts: object) -> None:
            if kind == "round":
                told = {"method": arm.label, "round": facts["round"], "rounds": facts["rounds"]}
                self.on_event("round", told)

        plan, keys = federation_plan(arm, names), dict[str, Path]()
        if plan.secure is not None:
            keys, public = one_machines_keys(folder, names)
            plan = replace(plan, public_keys=public)
        result = run_federation(
            plan,
            initial if arm.of is None else self._adapter_of(arm.of),
            workers=workers,
            folder=folder,
            engine=study.federation.engine,
            server_losses=partial(self._server_losses, study),
            on_round=on_round,
            on_event=tell,
            resume=folder.exists(),
            keys=keys,
        )
        own = self.own_adapters(arm, result.adapter)
        biases = self._open_biases(arm, sites, result.adapter, own)
        return Trained(result.adapter, result.records, biases, own)

    def _prepare(self, arm: Arm, name: str) -> None:
        """Have a site refuse now what its ledger will not let through."""
        worker = self.worker(arm, name)
        assert isinstance(worker, AdapterSite)
        worker.prepare()

    def sites(self, arm: Arm) -> tuple[SiteData, ...]:
        """The sites whose notes an arm is trained on."""
        if arm.site is None:
            return self.data.sites
        site = self.data.site(arm.site)
        if arm.notes is not None:
            site = first_notes(site, arm.notes, seed=arm.study.seed)
        return (site,)

    def _adapter_of(self, label: str) -> Adapter:
        return read_adapter(self._folder / "adapters" / label)

    def own_adapters(
        self, arm: Arm, adapter: Adapter, *, before: int | None = None
    ) -> dict[str, Adapter]:
        """Site -> the global adapter with the site's own factors of its last round in it.

        Empty where sites keep none. Rounds from ``before`` on are passed over: a killed run may
        have left factors of a round that it did not finish.
        """
        if METHODS[arm.federated_method].keeps is None:
            return {}
        return {
            site.name: self._own(arm, site.name).recall(adapter, before=before)
            for site in self.sites(arm)
        }

    def _own(self, arm: Arm, site: str) -> OwnFactors:
        return OwnFactors(own_folder(self._folder / "federation" / arm.label, site, "factors"))

    def _refuse_nothing_to_score_on(self, sites: Sequence[SiteData], arm: Arm) -> None:
        for site in sites:
            if not self.bench(arm).encode(site, arm.study).validation:
                raise ConfigError(
                    f"sites.{site.name}: fed-medlora+ needs validation notes, and of its own no "
                    "example could be made"
                )

    def worker(self, arm: Arm, name: str, *, share_first: bool = True) -> SiteWorker:
        """A site of an arm's federation; "pooled" has the notes of all.

        Args:
            arm: of the study.
            name: of the site.
            share_first: whether its first round may be shared with other methods of the run.
        """
        bench = self.bench(arm)
        if name == POOLED:
            sites = self.data.sites
            train = [row for site in sites for row in bench.encode(site, arm.study).train]
            sources = [
                (f"{site.name}/{note}", None if group is None else f"{site.name}/{group}")
                for site in sites
                for note, group in bench.encode(site, arm.study).sources
            ]
            rows = Rows(train, sources=sources, sites=len(sites))
        else:
            site = next(site for site in self.sites(arm) if site.name == name)
            rows = bench.encode(site, arm.study)
            rows = replace(rows, validation=_some(rows.validation, arm.study, name))

        def step(site: str, round: int, number: int, steps: int, loss: float | None) -> None:
            told = {"round": round, "step": number, "steps": steps, "loss": loss}
            self.on_event("step", {"method": arm.label, "site": site, **told})

        keeps = METHODS[arm.federated_method].keeps is not None
        optimiser = self._own_optimiser(arm, name)
        # Nothing else trains on the pooled notes, nor from another arm's adapter; a first round
        # that is taken up from another method has no optimiser to go on with; noise is never used
        # twice.
        alone = name == POOLED or arm.of is not None or optimiser is not None or is_private(arm)
        alone = alone or not share_first
        return bench.worker(
            name,
            arm,
            rows,
            on_step=step,
            first_rounds=None if alone else FirstRounds(first_rounds_of(self._folder)),
            own=self._own(arm, name) if keeps else None,
            optimiser=optimiser,
            private=private_rounds(arm, name, rows, run=self._folder),
        )

    def _own_optimiser(self, arm: Arm, site: str) -> OwnOptimiser | None:
        """Where a site keeps its optimiser; None if it begins anew in every round.

        So it does where the server cuts new factors: those remembered are gone.
        """
        section = arm.study.encoder if arm.is_tagger else arm.study.training
        if not section.keep_optimiser or METHODS[arm.federated_method].recuts:
            return None
        if arm.kind in ("adapted", "new-site"):
            return None  # one round
        federation = self._folder / "federation" / arm.label
        return OwnOptimiser(own_folder(federation, site, "optimiser"))

    def _server_losses(self, study: Study, adapters: Sequence[Adapter]) -> list[float]:
        """Mean loss of each adapter on the server's own validation notes."""
        covers = frozenset().union(*(site.covers for site in self.data.sites))
        examples = questions_about(
            self.data.server_validation,
            covers=covers,
            scheme=self.lora.scheme,
            settings=self.lora.settings,
        )
        bench = self.lora.workbench(study)
        rows, _ = encode_examples(
            examples, bench.backbone.tokenizer, max_tokens=study.training.max_tokens
        )
        losses, _ = candidate_losses(
            bench.model,
            adapters,
            _some(rows, study, "server"),
            objective=study.training.objective,
        )
        return losses

    def _open_biases(
        self,
        arm: Arm,
        sites: Sequence[SiteData],
        adapter: Adapter,
        own: Mapping[str, Adapter],
    ) -> dict[str, float]:
        """Chosen on validation notes if the study says so.

        A new site is known by its few training notes alone: there they are chosen on these, in
        sample, for an adapter from scratch; one that had a bias before keeps it.
        """
        bench = self.bench(arm)
        bias, candidates = bench.open_bias(arm.study)
        tasks = bench.settings.tasks
        if bias != "validation":
            return dict.fromkeys(tasks, float(bias))
        if arm.kind == "new-site" and arm.of is not None:
            return read_open_biases(self._folder / "adapters" / arm.of, tasks)
        notes = [
            (site.train if arm.kind == "new-site" else site.validation, site.covers, site.tasks)
            for site in sites
        ]
        adapters = [own.get(site.name, adapter) for site in sites]

        def answers(place: int, examples: Sequence[Example], bias: float) -> list[str]:
            biases = dict.fromkeys(tasks, bias)
            return bench.decode(arm.study, adapters[place], examples, biases, mode="enforced")

        self.on_event("tuning", {"method": arm.label, "candidates": len(candidates)})
        return choose_open_biases(
            notes, answers, candidates=candidates, scheme=bench.scheme, settings=bench.settings
        )


def _some(rows: Sequence[Any], study: Study, name: str) -> Sequence[Any]:
    """The rows that score candidates: all, or so many as the study says, the same every round."""
    count = study.federation.validation_rows
    if count is None or len(rows) <= count:
        return rows
    rng = random.Random(derive_seed(study.seed, "validation rows", name))
    return [rows[place] for place in sorted(rng.sample(range(len(rows)), count))]


def read_open_biases(folder: Path, tasks: Iterable[str]) -> dict[str, float]:
    """The biases that an arm's saved adapter is decoded with; see ``method_run``."""
    import json

    told = json.loads((folder / "task.json").read_text(encoding="utf-8"))["decoding"]["open_bias"]
    return {task: float(told[task]) for task in tasks}


def first_rounds_of(folder: Path) -> Path:
    """Where the methods of a run folder share the first rounds of their sites."""
    return folder / "federation" / ".first-rounds"


def site_worker(study: str, folder: Path, label: str, name: str) -> SiteWorker:
    """A site made from the study alone, in a process that has nothing else of it."""
    runner, arms = _runner(study, folder)
    return runner.worker(arms[label], name)


@cache
def _runner(study: str, folder: Path) -> tuple[MethodRunner, dict[str, Arm]]:
    checked = Study.model_validate_json(study)
    runner = MethodRunner(checked, load_data(checked), folder, lambda kind, facts: None)
    return runner, {arm.label: arm for arm in study_arms(checked)}
