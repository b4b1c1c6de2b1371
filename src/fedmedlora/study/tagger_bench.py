"""A study's token classifier at work: the BERT-class baseline, whole model trained and averaged."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from fedmedlora.config import Study
from fedmedlora.errors import ConfigError
from fedmedlora.federation.tagger_site import TaggerSite
from fedmedlora.model.adapter import Adapter
from fedmedlora.model.tagger import Tagger, load_state, load_tagger
from fedmedlora.model.tagger_answers import encode_for, tag_examples
from fedmedlora.model.tagger_training import TaggerSettings
from fedmedlora.study.arms import Arm
from fedmedlora.study.benches import Base, Rows, questions_about
from fedmedlora.study.data import SiteData, StudyData, asked_of
from fedmedlora.study.task_settings import tagger_task_settings
from fedmedlora.tasks.example import Example


class TaggerBench:
    """A token classifier of the study's ``encoder``; a ``benches.Bench``.

    Args:
        study: checked; an arm's own settings come with each call.
        data: of the study.
    """

    def __init__(self, study: Study, data: StudyData) -> None:
        self._data = data
        self.scheme = study.make_scheme()
        self.settings = tagger_task_settings(study)
        self._made: tuple[Study, Tagger] | None = None
        self._encoded: dict[tuple[object, ...], Rows] = {}

    def forget(self) -> None:
        """See ``Bench``."""
        self._made = None

    def _tagger(self, study: Study) -> Tagger:
        if self._made is not None:
            before, tagger = self._made
            if (before.encoder.name, before.seed) == (study.encoder.name, study.seed):
                return tagger
        import torch

        torch.set_num_threads(study.runtime.threads)
        self._made = None
        tagger = load_tagger(study.encoder.name, scheme=self.scheme, seed=study.seed)
        self._made = (study, tagger)
        return tagger

    def base(self, study: Study) -> Base:
        """See ``Bench``."""
        tagger = self._tagger(study)
        return Base(
            fingerprint=tagger.manifest.backbone,
            path=tagger.path,
            parameters=sum(p.numel() for p in tagger.model.parameters()),
            initial=tagger.initial,
        )

    def encode(self, site: SiteData, study: Study) -> Rows:
        """See ``Bench``."""
        limit = study.encoder.max_tokens
        key = (site.name, len(site.train), study.absent, limit)
        if key not in self._encoded:
            shown, covers = asked_of(site, self._data.sites, absent=study.absent)
            ask = partial(
                questions_about, covers=covers, scheme=self.scheme, settings=self.settings
            )
            examples = ask(shown.train, tasks=site.tasks)
            validation = ask(shown.validation, tasks=site.tasks)
            tagger = self._tagger(study)
            rows, _ = encode_for(tagger, examples, max_tokens=limit)
            valid, _ = encode_for(tagger, validation, max_tokens=limit)
            if not any(row.targets for row in rows):
                raise ConfigError(f"sites.{site.name}: no example is left to train on")
            self._encoded[key] = Rows(rows, valid)
        return self._encoded[key]

    def worker(self, name: str, arm: Arm, rows: Rows, **more: Any) -> TaggerSite:
        """See ``Bench``; ``first_rounds`` and ``own`` are not for taggers."""
        settings = tagger_settings(arm.study)
        if settings.steps is not None:  # epochs count pooled rows by themselves
            settings = replace(settings, steps=settings.steps * rows.sites)
        return TaggerSite(
            name,
            self._tagger(arm.study),
            train=rows.train,
            validation=rows.validation,
            settings=settings,
            seed=arm.study.seed,
            on_step=more.get("on_step"),
            optimiser=more.get("optimiser"),
        )

    def open_bias(self, study: Study) -> tuple[float | str, Sequence[float]]:
        """See ``Bench``."""
        return study.encoder.open_bias, study.encoder.open_biases

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
        """See ``Bench``; a tagger's text is the source's own, so ``mode`` plays no part."""
        tagger = self._tagger(study)
        load_state(tagger, adapter or tagger.initial)
        answers = [""] * len(examples)
        for task in self.settings.tasks:
            part = [i for i, example in enumerate(examples) if example.task == task]
            made = tag_examples(
                tagger,
                [examples[i] for i in part],
                max_tokens=study.encoder.max_tokens,
                open_bias=open_biases[task],
                on_done=on_done,
            )
            for i, answer in zip(part, made, strict=True):
                answers[i] = answer
        return answers


def tagger_settings(study: Study) -> TaggerSettings:
    """The study's encoder section as the training takes it."""
    given = study.encoder.model_dump(exclude={"name", "open_bias", "open_biases"})
    return TaggerSettings(**given, rounds=study.federation.rounds)
