"""A study's backbone at work: notes to rows, adapters to answers; no federation here.

One backbone is loaded for all methods that share its adapter settings, when it is first needed: a
study of dictionaries and API models loads none.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedmedlora.config import Study
from fedmedlora.errors import ConfigError
from fedmedlora.federation.site import Workbench, set_up_workbench
from fedmedlora.model.adapter import Adapter
from fedmedlora.model.backbone import load_backbone
from fedmedlora.model.decoding import DecodingSettings, EnforcedDecoder
from fedmedlora.model.encoding import EncodingReport, Row, encode_examples
from fedmedlora.model.lora import load_adapter
from fedmedlora.schema import Document, Scheme
from fedmedlora.study.data import SiteData, StudyData
from fedmedlora.tasks.build import BuildReport, build_examples
from fedmedlora.tasks.example import Example
from fedmedlora.tasks.settings import TaskSettings

#: Merging the adapter into a copy of the weights makes decoding faster where a copy is cheap.
_MERGE_BELOW = 200_000_000


@dataclass(frozen=True)
class Encoded:
    """A site's rows for training and validation, and what became of its notes on the way."""

    train: list[Row]
    validation: list[Row]
    built: BuildReport
    encoded: EncodingReport


class StudyBench:
    """Encodes and decodes for the arms of one study.

    Args:
        study: checked; an arm's own settings come with each call.
        data: of the study.
    """

    def __init__(self, study: Study, data: StudyData) -> None:
        self.data = data
        self.scheme: Scheme = study.make_scheme()
        self.settings = task_settings(study)
        self._made: tuple[Study, Workbench] | None = None
        self._encoded: dict[tuple[object, ...], Encoded] = {}

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
        return bench

    def encode(self, site: SiteData, study: Study) -> Encoded:
        """A site's rows, made once.

        Raises:
            ConfigError: nothing is left to train on.
        """
        limit = study.training.max_tokens
        key = (site.name, len(site.train), study.absent, limit)
        if key not in self._encoded:
            shown, covers = self._asked(site, study)
            examples, built = self.examples(shown[0], covers, tasks=site.tasks)
            validation, _ = self.examples(shown[1], covers, tasks=site.tasks)
            tokenizer = self.workbench(study).backbone.tokenizer
            rows, encoded = encode_examples(examples, tokenizer, max_tokens=limit)
            valid, _ = encode_examples(validation, tokenizer, max_tokens=limit)
            if not rows:
                raise ConfigError(
                    f"sites.{site.name}: no example is left to train on: {len(examples)} were made,"
                    f" {len(encoded.dropped)} prompts alone fill training.max_tokens ({limit})"
                )
            self._encoded[key] = Encoded(rows, valid, built, encoded)
        return self._encoded[key]

    def _asked(
        self, site: SiteData, study: Study
    ) -> tuple[tuple[Sequence[Document], Sequence[Document]], frozenset[str]]:
        """A site's notes and the types that are asked for in them."""
        if study.absent == "unknown":
            return (site.train, site.validation), site.covers
        covers = frozenset().union(*(one.covers for one in self.data.sites))
        train, validation = (
            [Document(d.id, d.text, d.entities, d.relations, d.group) for d in documents]
            for documents in (site.train, site.validation)
        )
        return (train, validation), covers

    def examples(
        self,
        documents: Sequence[Document],
        covers: frozenset[str],
        *,
        tasks: Sequence[str] | None = None,
    ) -> tuple[list[Example], BuildReport]:
        """The questions of the study's tasks, or of some of them, about documents."""
        made, report = build_examples(
            documents, covers=covers, scheme=self.scheme, settings=self.settings
        )
        return [one for one in made if tasks is None or one.task in tasks], report

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
        """Raw answers of the backbone with ``adapter`` (None: untrained), in order."""
        bench = self.workbench(study)
        load_adapter(bench.model, adapter or bench.initial)
        model = _decodable(bench)
        tokenizer = bench.backbone.tokenizer
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
                settings = decoding_settings(study, open_biases[task])
                made = EnforcedDecoder(model, tokenizer, settings).decode(chosen, on_done=told)
            for i, answer in zip(part, made, strict=True):
                answers[i] = answer
            done += len(part)
        return answers


def _decodable(bench: Workbench) -> Any:
    backbone = bench.backbone
    small = backbone.model.num_parameters() < _MERGE_BELOW
    if backbone.precision == "fp32" and small:
        return copy.deepcopy(bench.model).merge_and_unload().eval()
    return bench.model.eval()


def task_settings(study: Study) -> TaskSettings:
    """The study's task section as the tasks take it."""
    return TaskSettings(**study.task.model_dump())


def decoding_settings(study: Study, open_bias: float) -> DecodingSettings:
    """The study's decoding section as the decoder takes it."""
    decoding = study.decoding
    return DecodingSettings(decoding.batch, decoding.draft, decoding.depth, open_bias)
