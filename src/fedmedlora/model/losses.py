"""Rows in, the loss on their answers out, per target token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch.nn import functional

from fedmedlora.errors import DataError
from fedmedlora.model.encoding import Row
from fedmedlora.model.projection import Projection

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

IGNORED = -100
Vocabulary = Literal["full", "batch"]


def answer_loss(
    model: PreTrainedModel | PeftModel,
    input_ids: torch.Tensor,
    labels: torch.Tensor,
    *,
    vocabulary: Vocabulary = "full",
) -> tuple[torch.Tensor, int]:
    """Summed cross-entropy over the labelled tokens, and how many there are.

    The vocabulary projection is computed at labelled positions alone: the same loss at a third of
    the cost when answers are a part of the row. Rows are padded on the right, so the causal mask
    alone keeps padding out of every labelled position.

    Args:
        model: causal language model, adapted or plain.
        input_ids: (rows, tokens).
        labels: (rows, tokens), -100 where there is no loss.
        vocabulary: ``"full"``, or ``"batch"``: the softmax is over the tokens that occur in these
            rows. An enforced answer is made of its prompt's tokens, so these are all that decoding
            ever compares; what it costs no longer depends on the size of the vocabulary.
    """
    projection = Projection(model)
    states = projection.states(input_ids=input_ids, use_cache=False)
    wanted = labels[:, 1:] != IGNORED
    targets = labels[:, 1:][wanted]
    tokens = None
    if vocabulary == "batch":
        tokens = torch.unique(input_ids)
        targets = torch.searchsorted(tokens, targets)
    logits = projection.logits(states[:, :-1][wanted], tokens)
    return functional.cross_entropy(logits, targets, reduction="sum"), int(targets.numel())


def mean_loss(
    model: PreTrainedModel | PeftModel, rows: Sequence[Row], *, batch: int = 16
) -> tuple[float, int]:
    """Mean cross-entropy per target token over ``rows``, and the number of target tokens.

    Raises:
        DataError: there are no rows.
    """
    if not rows:
        raise DataError("no example is left to compute a validation loss on")
    ordered = sorted(rows, key=lambda row: len(row.ids))
    total, count = 0.0, 0
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    with torch.no_grad():
        for at in range(0, len(ordered), batch):
            part = pad_rows(ordered[at : at + batch])
            loss, tokens = answer_loss(
                model, part["input_ids"].to(device), part["labels"].to(device)
            )
            total += float(loss)
            count += tokens
    model.train(training)
    return total / count, count


def pad_rows(rows: Sequence[Row]) -> dict[str, torch.Tensor]:
    """Ids and labels of rows as tensors, filled up on the right."""
    width = max(len(row.ids) for row in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    labels = torch.full((len(rows), width), IGNORED)
    for i, row in enumerate(rows):
        ids[i, : len(row.ids)] = torch.tensor(row.ids)
        labels[i, row.answer : len(row.ids)] = ids[i, row.answer : len(row.ids)]
    return {"input_ids": ids, "labels": labels}
