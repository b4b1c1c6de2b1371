"""A backbone that copies in, one that decides better what to mark out: the second stage.

The loss is the product's ``decision_loss``: at every place of an answer, copy on or write a token
of a tag. It costs nothing for the vocabulary and spends no capacity on telling words apart.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from fedmedlora.model.encoding import Row
from fedmedlora.model.losses import decision_loss, pad_rows

from .exercises import ExerciseMaker
from .training import Encoder, Optimiser


@dataclass(frozen=True)
class DecisionPlan:
    """The second stage; ``tokens`` is the batch size in tokens."""

    decision_steps: int = 5500
    decision_tokens: int = 1800
    decision_matrix_rate: float = 0.003
    decision_other_rate: float = 4e-4
    decision_embedding_rate: float = 5e-5
    decision_seed: int = 29
    decision_mix: tuple[float, float, float, float, float] = (0.40, 0.08, 0.02, 0.10, 0.40)


def _row(encoder: Encoder, maker: ExerciseMaker) -> Row:
    exercise = maker.draw(longest=45, easy=0.0)
    ids, answer, tags = encoder.encode_tags(exercise)
    return Row("", tuple(ids), answer, tuple(tags), encoder.choices(exercise))


def train_decisions(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    maker: ExerciseMaker,
    *,
    plan: DecisionPlan,
    report: Callable[[str], None],
) -> int:
    """Train in place for ``plan.decision_steps`` steps; returns the number of tokens seen."""
    rng = random.Random(plan.decision_seed)
    encoder = Encoder(tokenizer, rng)
    optimiser = Optimiser(
        model,
        matrices=plan.decision_matrix_rate,
        others=plan.decision_other_rate,
        embeddings=plan.decision_embedding_rate,
    )
    pool: list[Row] = []
    seen, total, started = 0, 0.0, time.monotonic()
    model.train()
    for step in range(plan.decision_steps):
        warm = min(1.0, (step + 1) / 50)
        if len(pool) < 40:
            drawn = (_row(encoder, maker) for _ in range(500))
            pool += [row for row in drawn if len(row.ids) <= 320]
            pool.sort(key=lambda row: len(row.ids))
        at = rng.randrange(len(pool))
        batch: list[Row] = []
        while pool:
            at = min(at, len(pool) - 1)
            longest = max(len(row.ids) for row in (*batch, pool[at]))
            if batch and (len(batch) + 1) * longest > plan.decision_tokens:
                break
            batch.append(pool.pop(at))
        part = pad_rows(batch)
        loss, count = decision_loss(
            model, part["input_ids"], part["labels"], part["tags"], part["choices"]
        )
        (loss / count).backward()  # type: ignore[no-untyped-call]
        optimiser.step(warm * max(0.02, 1 - step / plan.decision_steps))
        seen += sum(len(row.ids) for row in batch)
        total += float(loss.detach()) / count
        if (step + 1) % 50 == 0:
            report(
                f"decisions: step {step + 1} tokens {seen / 1e6:.2f}M loss {total / 50:.4f} "
                f"seconds {time.monotonic() - started:.0f}"
            )
            total = 0.0
    return seen
