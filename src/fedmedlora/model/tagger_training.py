"""One site's training of a tagger: rows in, the tagger trained in place, losses out.

A plain loop over torch's AdamW and transformers' schedules, begun anew at every call by default, as
for adapters. Labels that a row does not ask for are out of its softmax: a type that nobody
looked for is unknown there, not absent, and gets no gradient.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import get_args

import torch
from torch.nn import functional

from fedmedlora.errors import AdapterError, ConfigError, DataError
from fedmedlora.model.bio import IGNORED, OUTSIDE
from fedmedlora.model.losses import mean_of
from fedmedlora.model.optimiser_state import (
    OptimiserState,
    knows_all,
    optimiser_state,
    put_optimiser_state,
)
from fedmedlora.model.tagger import Tagger, load_state, state_of
from fedmedlora.model.tagger_answers import Padded, logits_of, pad_rows
from fedmedlora.model.tagging import TagRow, tagger_tasks
from fedmedlora.model.training import (
    OnStep,
    Schedule,
    TrainingOutcome,
    length_order,
    rates_in_round,
    warmup_steps,
)
from fedmedlora.tasks.settings import TASKS, TaskSettings


@dataclass(frozen=True, slots=True)
class TaggerSettings:
    """How a site trains a tagger in one round, and how long the texts are that it sees.

    Attributes:
        epochs: passes over the site's rows; used when ``steps`` is None. The paper: 3.
        steps: optimiser steps a round, whatever the number of rows.
        batch: rows a step.
        learning_rate: peak of the schedule; 5e-5 for real encoders, 2e-3 for the embedded one.
        warmup: share of the steps that warm up, in [0, 1).
        weight_decay: AdamW's, of matrices.
        max_tokens: limit of a row. The paper: 512; less where the encoder takes less.
        window_words: a window packs whole sentences up to this many words.
        schedule, rounds, final_rate, keep_optimiser: see ``training.TrainingSettings``; the rate
            falls linearly in either schedule.

    Raises:
        ConfigError: a value out of range.
    """

    epochs: float = 3.0
    steps: int | None = None
    batch: int = 16
    learning_rate: float = 5e-5
    warmup: float = 0.1
    weight_decay: float = 0.01
    max_tokens: int = 512
    window_words: int = 40
    schedule: Schedule = "round"
    rounds: int = 1
    final_rate: float = 0.0
    keep_optimiser: bool = False

    def __post_init__(self) -> None:
        wrong = {
            "epochs": not 0 < self.epochs < math.inf,
            "steps": self.steps is not None and self.steps < 1,
            "batch": self.batch < 1,
            "learning_rate": not 0 < self.learning_rate < math.inf,
            "warmup": not 0 <= self.warmup < 1,
            "weight_decay": not 0 <= self.weight_decay < math.inf,
            "max_tokens": self.max_tokens < 8,
            "window_words": self.window_words < 1,
            "schedule": self.schedule not in get_args(Schedule),
            "rounds": self.rounds < 1,
            "final_rate": not 0 <= self.final_rate < self.learning_rate,
        }
        for name in (name for name, is_wrong in wrong.items() if is_wrong):
            raise ConfigError(f"tagger.{name}: {getattr(self, name)!r} is out of range")

    def in_round(self, round: int) -> TaggerSettings:
        """The settings of a round, from 1; rounds past the last are as the last."""
        if self.schedule == "round":
            return self
        first, last = rates_in_round(self.learning_rate, round, self.rounds)
        return replace(self, learning_rate=first, final_rate=last)

    def tasks(self, names: tuple[str, ...] = TASKS) -> TaskSettings:
        """How documents become the examples of a tagger: one head marked at a time."""
        return tagger_tasks(self.window_words, names)


def tagging_loss(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Summed cross-entropy over the tokens that stand for text, and how many these are.

    Args:
        logits: (rows, tokens, labels), as ``logits_of`` gives them.
        labels: (rows, tokens), ``IGNORED`` where there is no loss.
    """
    total = functional.cross_entropy(
        logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum"
    )
    return total, int((labels != IGNORED).sum())


def train_tagger(
    tagger: Tagger,
    rows: Sequence[TagRow],
    *,
    settings: TaggerSettings,
    seed: int,
    optimiser: OptimiserState | None = None,
    on_step: OnStep | None = None,
) -> TrainingOutcome:
    """Train ``tagger`` on ``rows``, in place; embeddings stay as they are.

    Args:
        tagger: with the state to start from.
        rows: those that ask for nothing are passed over.
        settings: of this round.
        seed: order of the rows and dropout; equal seeds give equal bits on one machine.
        optimiser: what AdamW begins with; if it knows all that is trained, there is no warm-up.
        on_step: told after every step.

    Raises:
        DataError: there are no rows.
        AdapterError: the loss or a weight became infinite or no number; the tagger is then what it
            was before; or ``optimiser`` is of another tagger.
    """
    rows = [row for row in rows if row.allowed != (OUTSIDE,) and row.targets]
    if not rows:
        raise DataError("no example is left to train on")
    started = time.monotonic()
    before = state_of(tagger)
    losses: list[float] = []
    adam = _optimiser(tagger, settings)
    if optimiser:
        put_optimiser_state(tagger.model, adam, optimiser)
        if knows_all(tagger.model, optimiser):
            settings = replace(settings, warmup=0.0)
    devices = [tagger.model.device] if tagger.model.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices):
            torch.manual_seed(seed)
            _run(tagger, rows, adam, settings=settings, seed=seed, losses=losses, on_step=on_step)
        state_of(tagger)  # refuses what is not finite
    except AdapterError as error:
        load_state(tagger, before)
        raise AdapterError(
            f"training diverged after {len(losses)} steps: {error}; set a lower "
            f"tagger.learning_rate (it is {settings.learning_rate})"
        ) from error
    finally:
        tagger.model.eval()
    edge = max(1, len(losses) // 10)
    return TrainingOutcome(
        steps=len(losses),
        loss_first=sum(losses[:edge]) / edge,
        loss_last=sum(losses[-edge:]) / edge,
        tokens=sum(row.targets for row in rows),
        seconds=time.monotonic() - started,
        optimiser=optimiser_state(tagger.model, adam),
    )


def mean_tagging_loss(
    tagger: Tagger, rows: Sequence[TagRow], *, batch: int = 32
) -> tuple[float, int]:
    """Mean cross-entropy a token over all rows, and the number of tokens; no dropout.

    Raises:
        DataError: no row has a token that stands for text.
    """
    order = sorted(rows, key=lambda row: len(row.ids))
    tagger.model.eval()
    with torch.inference_mode():
        parts = (
            pad_rows(order[start : start + batch], tagger) for start in range(0, len(order), batch)
        )
        return mean_of(
            tagging_loss(logits_of(tagger.model, inputs), inputs.labels) for inputs in parts
        )


def _optimiser(tagger: Tagger, settings: TaggerSettings) -> torch.optim.AdamW:
    trained = [p for p in tagger.model.parameters() if p.requires_grad]
    matrices = [p for p in trained if p.ndim >= 2]
    others = [p for p in trained if p.ndim < 2]
    return torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": settings.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ],
        lr=settings.learning_rate,
    )


def _run(
    tagger: Tagger,
    rows: Sequence[TagRow],
    optimiser: torch.optim.AdamW,
    *,
    settings: TaggerSettings,
    seed: int,
    losses: list[float],
    on_step: OnStep | None,
) -> None:
    from transformers import get_polynomial_decay_schedule_with_warmup

    steps = settings.steps or math.ceil(len(rows) / settings.batch * settings.epochs)
    trained = [p for p in tagger.model.parameters() if p.requires_grad]
    schedule = get_polynomial_decay_schedule_with_warmup(
        optimiser,
        warmup_steps(settings.warmup, steps),
        steps,
        lr_end=settings.final_rate,
        power=1.0,
    )
    tagger.model.train()
    batches = _batches(tagger, rows, batch=settings.batch, rng=random.Random(seed))
    for step in range(1, steps + 1):
        inputs = next(batches)
        total, count = tagging_loss(logits_of(tagger.model, inputs), inputs.labels)
        loss = total / count
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        schedule.step()
        losses.append(float(loss.detach()))
        if not math.isfinite(losses[-1]):
            raise AdapterError(f"the loss is {losses[-1]}")
        if on_step is not None:
            on_step(step, steps, losses[-1])
    optimiser.zero_grad(set_to_none=True)


def _batches(
    tagger: Tagger, rows: Sequence[TagRow], *, batch: int, rng: random.Random
) -> Iterator[Padded]:
    """Batches of rows of similar length, without end; every pass has all rows in a new order."""
    lengths = [len(row.ids) for row in rows]
    while True:
        order = length_order(lengths, batch=batch, rng=rng)
        for start in range(0, len(order), batch):
            yield pad_rows([rows[place] for place in order[start : start + batch]], tagger)
