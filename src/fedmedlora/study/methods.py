"""One method of a study: data and a workbench in, trained adapters and raw answers out.

Every trained method is a federation: a single site is a federation of one, centralised training
one of a single site that has all notes. So all train, checkpoint and resume alike.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from fedmedlora.config import Study
from fedmedlora.errors import ConfigError
from fedmedlora.evaluation.open_bias import choose_open_biases
from fedmedlora.federation.first_rounds import FirstRounds
from fedmedlora.federation.plan import FederationPlan, RoundRecord, Workers
from fedmedlora.federation.run import run_federation
from fedmedlora.federation.site import AdapterSite, Workbench, set_up_workbench
from fedmedlora.model.adapter import Adapter
from fedmedlora.model.backbone import load_backbone
from fedmedlora.model.decoding import DecodingSettings, EnforcedDecoder
from fedmedlora.model.encoding import EncodingReport, Row, encode_examples
from fedmedlora.model.lora import load_adapter
from fedmedlora.model.training import TrainingSettings, mean_loss
from fedmedlora.progress import OnEvent
from fedmedlora.schema import Document, Scheme
from fedmedlora.study.data import POOLED, SiteData, StudyData, load_data
from fedmedlora.tasks.build import BuildReport, build_examples
from fedmedlora.tasks.example import Example
from fedmedlora.tasks.settings import TaskSettings

SINGLE = "single-site/"
#: Merging the adapter into a copy of the weights makes decoding faster where a copy is cheap.
_MERGE_BELOW = 200_000_000


@dataclass(frozen=True)
class Encoded:
    """A site's rows for training and validation, and what became of its notes on the way."""

    train: list[Row]
    validation: list[Row]
    built: BuildReport
    encoded: EncodingReport


@dataclass(frozen=True)
class Trained:
    """What a method ends with: its adapter, its rounds, and the open bias of each task."""

    adapter: Adapter
    records: tuple[RoundRecord, ...]
    open_biases: Mapping[str, float]


class MethodRunner:
    """Runs methods of one study, one after another, on one workbench.

    Args:
        study: checked.
        data: of the study.
        folder: the run folder; federations keep their checkpoints in its ``federation``.
        on_event: told of progress.
    """

    def __init__(self, study: Study, data: StudyData, folder: Path, on_event: OnEvent) -> None:
        import torch

        torch.set_num_threads(study.runtime.threads)
        self.study, self.data, self._folder, self._on_event = study, data, folder, on_event
        self.scheme: Scheme = study.make_scheme()
        self.settings = task_settings(study)
        self.bench: Workbench = set_up_workbench(
            load_backbone(study.backbone.name, precision=study.backbone.precision),
            **study.adapter.model_dump(),
            scheme=self.scheme.fingerprint,
            seed=study.seed,
        )
        self._encoded: dict[str, Encoded] = {}

    def encode(self, site: SiteData) -> Encoded:
        """A site's rows, made once."""
        if site.name not in self._encoded:
            examples, built = self._examples(site.train, site.covers)
            validation, _ = self._examples(site.validation, site.covers)
            tokenizer = self.bench.backbone.tokenizer
            limit = self.study.training.max_tokens
            rows, encoded = encode_examples(examples, tokenizer, max_tokens=limit)
            valid, _ = encode_examples(validation, tokenizer, max_tokens=limit)
            if not rows:
                raise ConfigError(
                    f"sites.{site.name}: no example is left to train on: {len(examples)} were made,"
                    f" {len(encoded.dropped)} prompts alone fill training.max_tokens ({limit})"
                )
            self._encoded[site.name] = Encoded(rows, valid, built, encoded)
        return self._encoded[site.name]

    def _examples(
        self, documents: Sequence[Document], covers: frozenset[str]
    ) -> tuple[list[Example], BuildReport]:
        return build_examples(documents, covers=covers, scheme=self.scheme, settings=self.settings)

    def _sites(self, label: str) -> tuple[SiteData, ...]:
        if label.startswith(SINGLE):
            return (self.data.site(label.removeprefix(SINGLE)),)
        return self.data.sites

    def train(self, label: str) -> Trained:
        """Train a method; goes on where an earlier call was interrupted.

        Args:
            label: ``"single-site/NAME"``, ``"fed-medlora"``, ``"fed-medlora+"`` or
                ``"centralised"``.
        """
        sites = self._sites(label)
        names = (POOLED,) if label == "centralised" else tuple(site.name for site in sites)
        workers: Workers
        federation = self.study.federation
        flower = federation.engine == "flower"
        if flower:
            workers = partial(site_worker, self.study, self._folder.resolve(), label)
        else:
            if label == "fed-medlora+" and federation.validation == "sites":
                self._refuse_nothing_to_score_on(sites)
            workers = {name: self.worker(label, name) for name in names}
        plan = FederationPlan(
            run_id=f"{self.study.name}/{label}",
            sites=names,
            rounds=federation.rounds,
            method="fed-medlora+" if label == "fed-medlora+" else "fed-medlora",
            beta=federation.beta,
            tau=federation.tau,
            validation=federation.validation,
            size=federation.size,
            wire=federation.wire,
            seed=self.study.seed,
            min_sites=federation.min_sites if len(names) > 1 else None,
            base_model=self.study.backbone.name,
            processes=self.study.runtime.processes if flower else 1,
        )
        folder = self._folder / "federation" / label

        def tell(kind: str, /, **facts: object) -> None:
            if kind == "round":
                told = {"method": label, "round": facts["round"], "rounds": facts["rounds"]}
                self._on_event("round", told)

        result = run_federation(
            plan,
            self.bench.initial,
            workers=workers,
            folder=folder,
            engine=federation.engine,
            server_losses=self._server_losses,
            on_event=tell,
            resume=folder.exists(),
        )
        bias = self.study.decoding.open_bias
        if bias == "validation":
            biases = self._tune(label, sites, result.adapter)
        else:
            biases = dict.fromkeys(self.settings.tasks, float(bias))
        return Trained(result.adapter, result.records, biases)

    def _refuse_nothing_to_score_on(self, sites: Sequence[SiteData]) -> None:
        for site in sites:
            if not self.encode(site).validation:
                raise ConfigError(
                    f"sites.{site.name}: fed-medlora+ needs validation notes, and of its own no "
                    "example could be made"
                )

    def worker(self, label: str, name: str) -> AdapterSite:
        """A site of a method's federation; "pooled" has the notes of all.

        Args:
            label: the method's.
            name: of a site, or ``POOLED``.
        """
        settings = training_settings(self.study)
        validation: Sequence[Row] = ()
        if name == POOLED:
            train = [row for site in self.data.sites for row in self.encode(site).train]
            settings = _times(settings, len(self.data.sites))
        else:
            encoded = self.encode(self.data.site(name))
            train, validation = encoded.train, encoded.validation

        def step(site: str, round: int, number: int, steps: int, loss: float | None) -> None:
            self._on_event(
                "step",
                {
                    "method": label,
                    "site": site,
                    "round": round,
                    "step": number,
                    "steps": steps,
                    "loss": loss,
                },
            )

        return AdapterSite(
            name,
            self.bench,
            train=train,
            validation=validation,
            settings=settings,
            seed=self.study.seed,
            on_step=step,
            # Nothing else trains on the pooled notes.
            first_rounds=None if name == POOLED else FirstRounds(first_rounds_of(self._folder)),
        )

    def _server_losses(self, adapters: Sequence[Adapter]) -> list[float]:
        """Mean loss of each adapter on the server's own validation notes."""
        documents = self.data.server_validation
        covers = frozenset().union(*(site.covers for site in self.data.sites))
        examples, _ = self._examples(documents, covers)
        rows, _ = encode_examples(
            examples, self.bench.backbone.tokenizer, max_tokens=self.study.training.max_tokens
        )
        losses = []
        for adapter in adapters:
            load_adapter(self.bench.model, adapter)
            losses.append(mean_loss(self.bench.model, rows)[0])
        return losses

    def _tune(self, label: str, sites: Sequence[SiteData], adapter: Adapter) -> dict[str, float]:
        candidates = self.study.decoding.open_biases

        def answers(examples: Sequence[Example], bias: float) -> list[str]:
            return self.decode(
                adapter, examples, dict.fromkeys(self.settings.tasks, bias), mode="enforced"
            )

        self._on_event("tuning", {"method": label, "candidates": len(candidates)})
        return choose_open_biases(
            [(site.validation, site.covers) for site in sites],
            answers,
            candidates=candidates,
            scheme=self.scheme,
            settings=self.settings,
        )

    def decode(
        self,
        adapter: Adapter | None,
        examples: Sequence[Example],
        open_biases: Mapping[str, float],
        *,
        mode: str | None = None,
        on_done: Callable[[int], None] | None = None,
    ) -> list[str]:
        """Raw answers of the backbone with ``adapter`` (None: untrained), in order."""
        load_adapter(self.bench.model, adapter or self.bench.initial)
        model = self._decodable()
        tokenizer = self.bench.backbone.tokenizer
        answers = [""] * len(examples)
        done = 0
        for task in self.settings.tasks:
            part = [i for i, example in enumerate(examples) if example.task == task]
            chosen = [examples[i] for i in part]

            def told(count: int, before: int = done) -> None:
                if on_done is not None:
                    on_done(before + count)

            if (mode or self.study.decoding.mode) == "free":
                from fedmedlora.model.generation import generate_answers

                batch = self.study.decoding.batch
                made = generate_answers(model, tokenizer, chosen, batch=batch, on_done=told)
            else:
                settings = decoding_settings(self.study, open_biases[task])
                made = EnforcedDecoder(model, tokenizer, settings).decode(chosen, on_done=told)
            for i, answer in zip(part, made, strict=True):
                answers[i] = answer
            done += len(part)
        return answers

    def _decodable(self) -> Any:
        backbone = self.bench.backbone
        small = backbone.model.num_parameters() < _MERGE_BELOW
        if backbone.precision == "fp32" and small:
            return copy.deepcopy(self.bench.model).merge_and_unload().eval()
        return self.bench.model.eval()


def first_rounds_of(folder: Path) -> Path:
    """Where the methods of a run folder share the first rounds of their sites."""
    return folder / "federation" / ".first-rounds"


def site_worker(study: Study, folder: Path, label: str, name: str) -> AdapterSite:
    """A site made from the study alone, in a process that has nothing else of it."""
    return _runner(study.model_dump_json(), folder).worker(label, name)


@cache
def _runner(study: str, folder: Path) -> MethodRunner:
    checked = Study.model_validate_json(study)
    return MethodRunner(checked, load_data(checked), folder, lambda kind, facts: None)


def _times(settings: TrainingSettings, sites: int) -> TrainingSettings:
    """As many steps as all sites together make; epochs count the pooled rows by themselves."""
    return settings if settings.steps is None else replace(settings, steps=settings.steps * sites)


def task_settings(study: Study) -> TaskSettings:
    """The study's task section as the tasks take it."""
    return TaskSettings(**study.task.model_dump())


def training_settings(study: Study) -> TrainingSettings:
    """The study's training section as a site takes it."""
    return TrainingSettings(**study.training.model_dump())


def decoding_settings(study: Study, open_bias: float) -> DecodingSettings:
    """The study's decoding section as the decoder takes it."""
    decoding = study.decoding
    return DecodingSettings(decoding.batch, decoding.draft, decoding.depth, open_bias)
