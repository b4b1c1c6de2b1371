"""A study's backbone at work: notes to rows, adapters to answers; no federation here.

One backbone is loaded for all methods that share its adapter settings, when it is first needed: a
study of dictionaries and API models loads none.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from fedmedlora.config import Study
from fedmedlora.errors import ConfigError
from fedmedlora.federation.site import AdapterSite, Workbench, set_up_workbench
from fedmedlora.model.adapter import Adapter
from fedmedlora.model.backbone import load_backbone
from fedmedlora.model.decoding import DecodingSettings, EnforcedDecoder
from fedmedlora.model.encoding import Row, encode_examples
from fedmedlora.model.lora import load_adapter
from fedmedlora.model.memory import Estimator, available_memory
from fedmedlora.model.merged import merged
from fedmedlora.model.training import TrainingSettings
from fedmedlora.schema import Document, Scheme
from fedmedlora.study.arms import Arm
from fedmedlora.study.benches import Base, Rows, questions_about
from fedmedlora.study.data import SiteData, StudyData, asked_of
from fedmedlora.study.task_settings import task_settings
from fedmedlora.tasks.example import Example

#: Below so many parameters, activations are kept without asking whether there is room.
_NEVER_CHECKPOINTED = 50_000_000
#: Estimates of memory were up to 11 % low where nothing was checkpointed (docs/performance.md).
_ROOM = 1.2


class LoraBench:
    """LoRA adapters on the study's backbone; a ``benches.Bench``.

    Args:
        study: checked; an arm's own settings come with each call.
        data: of the study.
    """

    def __init__(self, study: Study, data: StudyData) -> None:
        self._data = data
        self.scheme: Scheme = study.make_scheme()
        self.settings = task_settings(study)
        self._made: tuple[Study, Workbench] | None = None
        self._parameters = 0
        self._encoded: dict[tuple[object, ...], Rows] = {}
        self._checkpointing: dict[tuple[object, ...], bool] = {}

    def workbench(self, study: Study) -> Workbench:
        """The backbone with the study's adapter in it; the one before if it has the same."""
        if self._made is not None:
            before, bench = self._made
            if (before.adapter, before.backbone, before.seed) == (
                study.adapter, study.backbone, study.seed,
            ):  # fmt: skip
                return bench
        import torch

        torch.set_num_threads(study.runtime.threads)
        self._made = None  # before the next one is loaded: there may not be room for two
        bench = set_up_workbench(
            load_backbone(study.backbone.name, precision=study.backbone.precision),
            **study.adapter.model_dump(),
            scheme=self.scheme.fingerprint,
            seed=study.seed,
        )
        self._made = (study, bench)
        # Now: a method with a residual adds layers for it later.
        self._parameters = int(bench.backbone.model.num_parameters())
        return bench

    def base(self, study: Study) -> Base:
        """See ``Bench``."""
        bench = self.workbench(study)
        return Base(
            fingerprint=bench.backbone.fingerprint,
            path=bench.backbone.path,
            parameters=self._parameters,
            initial=bench.initial,
        )

    def forget(self) -> None:
        """See ``Bench``."""
        self._made = None
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_available():
            torch.cuda.empty_cache()

    def encode(self, site: SiteData, study: Study) -> Rows:
        """See ``Bench``."""
        limit = study.training.max_tokens
        key = (site.name, len(site.train), study.absent, limit)
        if key not in self._encoded:
            shown, covers = asked_of(site, self._data.sites, absent=study.absent)
            ask = partial(
                questions_about, covers=covers, scheme=self.scheme, settings=self.settings
            )
            examples = ask(shown.train, tasks=site.tasks)
            validation = ask(shown.validation, tasks=site.tasks)
            tokenizer = self.workbench(study).backbone.tokenizer
            rows, report = encode_examples(examples, tokenizer, max_tokens=limit)
            valid, _ = encode_examples(validation, tokenizer, max_tokens=limit)
            if not rows:
                raise ConfigError(
                    f"sites.{site.name}: no example is left to train on: {len(examples)} were made,"
                    f" {len(report.dropped)} prompts alone fill training.max_tokens ({limit})"
                )
            self._encoded[key] = Rows(rows, valid, _sources(rows, examples, shown.train))
        return self._encoded[key]

    def worker(self, name: str, arm: Arm, rows: Rows, **more: Any) -> AdapterSite:
        """See ``Bench``."""
        settings = training_settings(arm)
        if settings.steps is not None:  # epochs count pooled rows by themselves
            settings = replace(settings, steps=settings.steps * rows.sites)
        bench = self.workbench(arm.study)
        if arm.study.training.gradient_checkpointing == "auto":
            settings = replace(
                settings, gradient_checkpointing=self._must_checkpoint(arm.study, settings)
            )
        return AdapterSite(
            name,
            bench,
            train=rows.train,
            validation=rows.validation,
            settings=settings,
            seed=arm.study.seed,
            **more,
        )

    def _must_checkpoint(self, study: Study, settings: TrainingSettings) -> bool:
        bench = self.workbench(study)
        if self._parameters < _NEVER_CHECKPOINTED:
            return False
        key = (
            study.backbone,
            study.adapter,
            settings.batch,
            settings.max_tokens,
            settings.objective,
        )
        if key not in self._checkpointing:
            estimator = Estimator(
                study.backbone.name,
                precision=study.backbone.precision,
                **study.adapter.model_dump(),
            )
            memory = estimator.training(
                batch=settings.batch,
                tokens=settings.max_tokens,
                checkpointing=False,
                objective=settings.objective,
            )
            # As if all processes shared a device, and none of the others had its weights yet.
            sharers = max(study.runtime.processes, study.runtime.site_processes)
            free = available_memory(bench.backbone.model.device)
            mine = (free - (sharers - 1) * memory.weights) / sharers
            self._checkpointing[key] = _ROOM * (memory.total - memory.weights) > mine
        return self._checkpointing[key]

    def open_bias(self, study: Study) -> tuple[float | str, Sequence[float]]:
        """See ``Bench``."""
        return study.decoding.open_bias, study.decoding.open_biases

    def decode(
        self,
        study: Study,
        adapter: Adapter | None,
        examples: Sequence[Example],
        open_biases: Mapping[str, float],
        *,
        mode: str | None = None,
        on_done: Callable[[int], None] | None = None,
    ) -> list[str]:
        """See ``Bench``."""
        bench = self.workbench(study)
        load_adapter(bench.model, adapter or bench.initial)
        with merged(bench.model.eval()):
            return self._answers(study, examples, open_biases, mode=mode, on_done=on_done)

    def _answers(
        self,
        study: Study,
        examples: Sequence[Example],
        open_biases: Mapping[str, float],
        *,
        mode: str | None,
        on_done: Callable[[int], None] | None,
    ) -> list[str]:
        bench = self.workbench(study)
        model, tokenizer = bench.model, bench.backbone.tokenizer
        answers = [""] * len(examples)
        done = 0
        for task in self.settings.tasks:
            part = [i for i, example in enumerate(examples) if example.task == task]
            chosen = [examples[i] for i in part]

            def told(count: int, before: int = done) -> None:
                if on_done is not None:
                    on_done(before + count)

            if (mode or study.decoding.mode) == "free":
                from fedmedlora.model.generation import generate_answers

                batch = study.decoding.batch
                made = generate_answers(model, tokenizer, chosen, batch=batch, on_done=told)
            else:
                settings = _decoding_settings(study, open_biases[task])
                made = EnforcedDecoder(model, tokenizer, settings).decode(chosen, on_done=told)
            for i, answer in zip(part, made, strict=True):
                answers[i] = answer
            done += len(part)
        return answers


def _sources(
    rows: Sequence[Row], examples: Sequence[Example], notes: Sequence[Document]
) -> list[tuple[str, str | None]]:
    """Id and group of the note of each row."""
    groups = {note.id: note.group for note in notes}
    documents = {example.id: example.document for example in examples}
    return [(documents[row.example], groups[documents[row.example]]) for row in rows]


def training_settings(arm: Arm) -> TrainingSettings:
    """The training section as a site of this arm takes it."""
    study = arm.study
    section = study.training.model_dump()
    asked = section.pop("gradient_checkpointing")  # "auto" is the bench's to decide
    settings = TrainingSettings(
        **section, gradient_checkpointing=asked is True, rounds=study.federation.rounds
    )
    if arm.method == "fedprox":
        settings = replace(settings, proximal=study.federation.proximal)
    if arm.kind in ("adapted", "new-site"):
        own = study.adaptation
        rate = own.learning_rate or settings.learning_rate
        settings = replace(
            settings, epochs=own.epochs, steps=own.steps, learning_rate=rate, rounds=1
        )
    return settings


def _decoding_settings(study: Study, open_bias: float) -> DecodingSettings:
    decoding = study.decoding
    return DecodingSettings(decoding.batch, decoding.draft, decoding.depth, open_bias)
