"""A tagger and examples in, batches, logits and answers out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from fedmedlora.model.bio import IGNORED, OUTSIDE, best_labels, label_names, read_tags
from fedmedlora.model.tagger import Tagger
from fedmedlora.model.tagging import TagReport, TagRow, encode_rows, write_answer
from fedmedlora.tasks.example import Example

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def encode_for(
    tagger: Tagger, examples: Sequence[Example], *, max_tokens: int
) -> tuple[list[TagRow], TagReport]:
    """``encode_rows`` with the tagger's tokenizer, markers and, where it is shorter, limit."""
    return encode_rows(
        examples,
        tagger.tokenizer,
        scheme=tagger.scheme,
        markers=tagger.markers,
        max_tokens=min(max_tokens, tagger.longest),
    )


def tag_examples(
    tagger: Tagger,
    examples: Sequence[Example],
    *,
    max_tokens: int,
    batch: int = 32,
    open_bias: float = 0.0,
    on_done: Callable[[int], None] | None = None,
) -> list[str]:
    """Answers to examples, in order: each a source with tags, exact to the character.

    Args:
        tagger: with the state to use.
        examples: entities, or modifiers with ``heads="marked"``; gold answers are not looked at.
        max_tokens: limit of a row; text behind it gets no tag.
        batch: rows at a time.
        open_bias: added to the logit of every label but O: above 0 more is tagged.
        on_done: told how many examples are done.

    Raises:
        SchemaError: an example with several heads.
    """
    rows, _ = encode_for(tagger, examples, max_tokens=max_tokens)
    order = sorted(range(len(rows)), key=lambda place: len(rows[place].ids))
    answers = [""] * len(rows)
    bias = np.where(np.arange(len(label_names(tagger.scheme))) == OUTSIDE, 0.0, open_bias)
    tagger.model.eval()
    for start in range(0, len(order), batch):
        places = order[start : start + batch]
        inputs = pad_rows([rows[place] for place in places], tagger)
        with torch.inference_mode():
            scores = logits_of(tagger.model, inputs).float().cpu().numpy()
        for number, place in enumerate(places):
            row = rows[place]
            text = [token for token, (s, e) in enumerate(row.offsets) if s < e]
            labels = best_labels(scores[number, text] + bias, row.allowed)
            offsets = [row.offsets[token] for token in text]
            spans = read_tags(labels, offsets, tagger.scheme.types)
            answers[place] = write_answer(examples[place], spans)
        if on_done is not None:
            on_done(start + len(places))
    return answers


class Padded(NamedTuple):
    """Rows as tensors on the model's device, padded on the right.

    Attributes:
        ids: (rows, tokens).
        present: (rows, tokens), 1 where there is a token.
        labels: (rows, tokens), ``IGNORED`` where there is no loss.
        allowed: (rows, labels), true for labels that the row may have.
    """

    ids: torch.Tensor
    present: torch.Tensor
    labels: torch.Tensor
    allowed: torch.Tensor


def pad_rows(rows: Sequence[TagRow], tagger: Tagger) -> Padded:
    """A batch of rows."""
    shape = len(rows), max(len(row.ids) for row in rows)
    ids = torch.full(shape, tagger.tokenizer.pad_token_id or 0)
    present = torch.zeros(shape, dtype=torch.long)
    labels = torch.full(shape, IGNORED)
    allowed = torch.zeros(len(rows), len(label_names(tagger.scheme)), dtype=torch.bool)
    for number, row in enumerate(rows):
        size = len(row.ids)
        ids[number, :size] = torch.tensor(row.ids)
        present[number, :size] = 1
        labels[number, :size] = torch.tensor(row.labels)
        allowed[number, list(row.allowed)] = True
    device = tagger.model.device
    return Padded(ids.to(device), present.to(device), labels.to(device), allowed.to(device))


def logits_of(model: PreTrainedModel, inputs: Padded) -> torch.Tensor:
    """(rows, tokens, labels); labels that a row may not have are at minus infinity."""
    logits: torch.Tensor = model(input_ids=inputs.ids, attention_mask=inputs.present).logits
    return logits.masked_fill(~inputs.allowed[:, None, :], -torch.inf)
