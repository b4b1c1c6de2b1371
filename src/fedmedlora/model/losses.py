"""Rows in, the loss on their answers out, per target token."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

import torch
from torch.nn import functional

from fedmedlora.errors import DataError
from fedmedlora.model.encoding import Row
from fedmedlora.model.projection import Projection

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel
    from transformers.cache_utils import Cache

IGNORED = -100
Objective = Literal["answer", "decisions"]


def answer_loss(
    model: PreTrainedModel | PeftModel,
    input_ids: torch.Tensor,
    labels: torch.Tensor,
    *,
    past: Cache | None = None,
) -> tuple[torch.Tensor, int]:
    """Summed cross-entropy over the labelled tokens, and how many there are.

    The vocabulary projection is computed at labelled positions alone: the same loss at a third of
    the cost when answers are a part of the row. Rows are padded on the right, so the causal mask
    alone keeps padding out of every labelled position.

    Args:
        model: causal language model, adapted or plain.
        input_ids: (rows, tokens).
        labels: (rows, tokens), -100 where there is no loss.
        past: what the rows begin with, computed already; it is added to.
    """
    scores, targets, _ = _answer_scores(model, input_ids, labels, past=past)
    return functional.cross_entropy(scores, targets, reduction="sum"), int(targets.numel())


def decision_loss(
    model: PreTrainedModel | PeftModel,
    input_ids: torch.Tensor,
    labels: torch.Tensor,
    tags: torch.Tensor,
    choices: torch.Tensor,
    *,
    past: Cache | None = None,
) -> tuple[torch.Tensor, int]:
    """Summed cross-entropy of the decisions that enforced decoding leaves to the model.

    At every place of an answer the model copies the text's next token or writes one of a tag: the
    softmax is over that one token and the tokens of all tags that the row's answer may use, whether
    it does or not, not over the vocabulary. So nothing is learnt, or paid, for telling the next
    word from words that could not be written.

    Args:
        model: causal language model, adapted or plain.
        input_ids: (rows, tokens).
        labels: (rows, tokens), -100 where there is no loss.
        tags: (rows, tokens), true at the tokens of an answer's tags.
        choices: (rows, most choices), the tokens of the tags that each row may use, filled up with
            -100.
        past: what the rows begin with, computed already; it is added to.
    """
    scores, best, _ = _decision_scores(model, input_ids, labels, tags, choices, past=past)
    return functional.cross_entropy(scores, best, reduction="sum"), int(best.numel())


def _answer_scores(
    model: PreTrainedModel | PeftModel,
    input_ids: torch.Tensor,
    labels: torch.Tensor,
    *,
    past: Cache | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits (targets, vocabulary), the targets, and the row of each."""
    projection = Projection(model)
    states = _states(projection, input_ids, past)
    wanted = labels[:, 1:] != IGNORED
    logits = projection.logits(states[:, :-1][wanted])
    return logits, labels[:, 1:][wanted], torch.nonzero(wanted)[:, 0]


def _decision_scores(
    model: PreTrainedModel | PeftModel,
    input_ids: torch.Tensor,
    labels: torch.Tensor,
    tags: torch.Tensor,
    choices: torch.Tensor,
    *,
    past: Cache | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits (targets, what may be written), which of them is right, and the row of each."""
    projection = Projection(model)
    states = _states(projection, input_ids, past)
    wanted = labels[:, 1:] != IGNORED
    states, targets, in_tag = states[:, :-1][wanted], labels[:, 1:][wanted], tags[:, 1:][wanted]
    row_of = torch.nonzero(wanted)[:, 0]
    # The text's next token: the first at or after the place that is not of a tag. A row that the
    # length limit cut within a tag has none at its end, and its own last token, a tag's, stands
    # there: never another row's.
    count = len(targets)
    places = torch.arange(count, device=targets.device)
    after = torch.where(in_tag, count - 1, places)
    nearest = torch.flip(torch.cummin(torch.flip(after, [0]), 0).values, [0])
    last = torch.searchsorted(row_of, row_of, right=True) - 1
    following = targets[torch.minimum(nearest, last)]
    of_tags = torch.unique(choices[choices != IGNORED])
    columns = torch.cat([of_tags, torch.unique(following)])
    logits = projection.logits(states, columns)
    text = torch.searchsorted(columns[len(of_tags) :].contiguous(), following) + len(of_tags)
    decided = torch.cat([logits[:, : len(of_tags)], logits.gather(1, text[:, None])], dim=1)
    may_use = (choices[:, :, None] == of_tags).any(1)
    # A word that is also a tag's ("drug") is one token: it counts once, as what it is here.
    same = following[:, None] == of_tags
    open_to = may_use[row_of] & ~(same & ~in_tag[:, None])
    text_open = ~(same & may_use[row_of]).any(1) | ~in_tag
    barred = ~torch.cat([open_to, text_open[:, None]], dim=1)
    decided = decided.masked_fill(barred, -torch.inf)
    best = torch.where(in_tag, torch.searchsorted(of_tags, targets), len(of_tags))
    return decided, best, row_of


def _states(projection: Projection, input_ids: torch.Tensor, past: Cache | None) -> torch.Tensor:
    if past is None:
        return projection.states(input_ids=input_ids, use_cache=False)
    return projection.states(input_ids=input_ids, past_key_values=past, use_cache=True)


def batch_loss(
    model: PreTrainedModel | PeftModel,
    inputs: Mapping[str, torch.Tensor],
    objective: Objective,
    *,
    past: Cache | None = None,
) -> tuple[torch.Tensor, int]:
    """The summed loss of one batch as ``pad_rows`` makes it, and how many target tokens it has."""
    ids, labels = inputs["input_ids"], inputs["labels"]
    if objective == "decisions":
        return decision_loss(model, ids, labels, inputs["tags"], inputs["choices"], past=past)
    return answer_loss(model, ids, labels, past=past)


def row_losses(
    model: PreTrainedModel | PeftModel,
    inputs: Mapping[str, torch.Tensor],
    objective: Objective,
    *,
    past: Cache | None = None,
) -> torch.Tensor:
    """The summed loss of each row of one batch as ``pad_rows`` makes it: (rows,), float64."""
    ids, labels = inputs["input_ids"], inputs["labels"]
    if objective == "decisions":
        scores, targets, rows = _decision_scores(
            model, ids, labels, inputs["tags"], inputs["choices"], past=past
        )
    else:
        scores, targets, rows = _answer_scores(model, ids, labels, past=past)
    each = functional.cross_entropy(scores, targets, reduction="none").double()
    return torch.zeros(len(ids), dtype=each.dtype, device=each.device).index_add(0, rows, each)


def mean_loss(
    model: PreTrainedModel | PeftModel,
    rows: Sequence[Row],
    *,
    batch: int = 16,
    objective: Objective = "answer",
) -> tuple[float, int]:
    """Mean loss per target token over ``rows``, and the number of target tokens.

    Args:
        model: in any mode; evaluated, and left as it was.
        rows: at least one.
        batch: rows at once.
        objective: what the model was trained for: a model that learnt decisions alone gives
            words that cannot be written any share of the vocabulary.

    Raises:
        DataError: there are no rows.
    """
    with evaluating(model), torch.no_grad():
        return mean_of(
            batch_loss(model, on_device_of(model, part), objective)
            for part in padded_batches(rows, batch=batch)
        )


def mean_of(batches: Iterable[tuple[torch.Tensor, int]]) -> tuple[float, int]:
    """Mean loss a token over batches, and the number of tokens.

    Args:
        batches: summed loss and number of tokens of each, such as ``batch_loss`` gives.

    Raises:
        DataError: there is no token.
    """
    total, count = 0.0, 0
    for loss, tokens in batches:
        total += float(loss)
        count += tokens
    if not count:
        raise DataError("no example is left to compute a loss on")
    return total / count, count


def padded_batches(rows: Sequence[Row], *, batch: int) -> list[dict[str, torch.Tensor]]:
    """Rows in batches of similar lengths, as ``batch_loss`` takes them.

    Raises:
        DataError: there are no rows.
    """
    if not rows:
        raise DataError("no example is left to compute a validation loss on")
    ordered = sorted(rows, key=lambda row: len(row.ids))
    return [pad_rows(ordered[at : at + batch]) for at in range(0, len(ordered), batch)]


@contextmanager
def evaluating(model: PreTrainedModel | PeftModel) -> Iterator[None]:
    """Evaluation mode (no dropout) until the block ends."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def on_device_of(
    model: PreTrainedModel | PeftModel, inputs: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """A batch's tensors where the model is."""
    device = next(model.parameters()).device
    return {name: tensor.to(device) for name, tensor in inputs.items()}


def pad_rows(rows: Sequence[Row]) -> dict[str, torch.Tensor]:
    """The tensors that the losses take, filled up on the right."""
    width = max(len(row.ids) for row in rows)
    choices = torch.full((len(rows), max(len(row.choices) for row in rows)), IGNORED)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    labels = torch.full((len(rows), width), IGNORED)
    tags = torch.zeros(len(rows), width, dtype=torch.bool)
    for i, row in enumerate(rows):
        tags[i, list(row.tags)] = True
        choices[i, : len(row.choices)] = torch.tensor(row.choices, dtype=torch.long)
        ids[i, : len(row.ids)] = torch.tensor(row.ids)
        labels[i, row.answer : len(row.ids)] = ids[i, row.answer : len(row.ids)]
    return {"input_ids": ids, "labels": labels, "tags": tags, "choices": choices}
