"""Few-shot questions of a study: worked examples of its sites' training notes before each."""

from __future__ import annotations

from collections.abc import Sequence

from fedmedlora.study.arms import Arm
from fedmedlora.study.methods import MethodRunner
from fedmedlora.tasks.example import Example
from fedmedlora.tasks.few_shot import (
    TrainingNotes,
    count_fitting,
    draw_demonstrations,
    show_demonstrations,
)

#: Of a model's positions, so much may be prompt; the rest is for the answer.
_PROMPT_SHARE = 2 / 3


def show_examples(
    runner: MethodRunner, arm: Arm, examples: Sequence[Example], *, examples_of: int
) -> tuple[list[Example], int]:
    """The questions with worked examples, as many as the backbone has room for, and how many."""
    bench = runner.lora
    backbone = bench.workbench(arm.study).backbone
    notes = training_notes(runner)
    settings = {"scheme": bench.scheme, "settings": bench.settings, "seed": arm.study.seed}
    drawn = draw_demonstrations(examples, notes, k=examples_of, **settings)  # type: ignore[arg-type]
    positions = getattr(backbone.model.config, "max_position_embeddings", None)
    count = examples_of
    if positions is not None:
        count = count_fitting(
            examples,
            drawn,
            count_tokens=lambda text: len(backbone.tokenizer(text)["input_ids"]),
            limit=int(positions * _PROMPT_SHARE),
        )
    if count == 0:
        return list(examples), 0
    if count < examples_of:
        drawn = draw_demonstrations(examples, notes, k=count, **settings)  # type: ignore[arg-type]
    return show_demonstrations(examples, drawn), count


def training_notes(runner: MethodRunner) -> list[TrainingNotes]:
    """What every site lends worked examples from."""
    return [TrainingNotes(site.name, site.train, site.covers) for site in runner.data.sites]
