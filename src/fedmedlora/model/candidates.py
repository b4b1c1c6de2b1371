"""Candidate adapters scored on one backbone: K adapters and rows in, K losses out.

What Fed-MedLoRA+ asks of a site or a server. The backbone is loaded once, rows are padded once,
each adapter is added to the weights while it is scored, and computes what prompts share once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from fedmedlora.errors import DataError
from fedmedlora.model.adapter import Adapter
from fedmedlora.model.beginnings import Computed, Group, can_go_on, group_by_beginning
from fedmedlora.model.encoding import Row
from fedmedlora.model.lora import load_adapter
from fedmedlora.model.losses import (
    Objective,
    batch_loss,
    evaluating,
    mean_of,
    on_device_of,
    pad_rows,
    row_losses,
)
from fedmedlora.model.merged import merged
from fedmedlora.model.projection import Projection

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers.cache_utils import Cache

_MOST_ROWS = 32
_CACHED_ROWS = 8  # on a CPU: what a layer works on stays in its cache (benchmarks/candidates.py)
_GROUP = 256  # tokens that a further group of prompts must save
_LOGITS = 1 << 26  # 256 MB in float32


def candidate_losses(
    model: PeftModel,
    adapters: Sequence[Adapter],
    rows: Sequence[Row],
    *,
    objective: Objective,
) -> tuple[list[float], int]:
    """Mean loss per target token of each adapter on ``rows``, and the number of target tokens.

    Args:
        model: takes on each adapter in turn, and keeps the last.
        adapters: K, for the layers that the model's adapter has.
        rows: at least one.
        objective: what the adapters were trained for.

    Raises:
        DataError: there are no rows.
        AdapterError: an adapter does not fit the model.
    """
    parts = _parts(model, rows, objective)
    losses, tokens = [], 0
    for adapter in adapters:
        load_adapter(model, adapter)
        with merged(model), evaluating(model), torch.inference_mode():
            loss, tokens = _mean_loss(model, parts, objective)
        losses.append(loss)
    return losses, tokens


def losses_by_row(
    model: PeftModel,
    adapters: Sequence[Adapter],
    rows: Sequence[Row],
    *,
    objective: Objective,
) -> NDArray[np.float64]:
    """The summed loss of each row with each adapter: (K, rows), rows in the order given.

    Arguments and errors as for ``candidate_losses``.
    """
    parts = _parts(model, rows, objective)
    losses = np.zeros((len(adapters), len(rows)))
    for place, adapter in enumerate(adapters):
        load_adapter(model, adapter)
        with merged(model), evaluating(model), torch.inference_mode():
            for past, batch in _batches(model, parts):
                found = row_losses(model, batch.inputs, objective, past=past)
                losses[place, list(batch.rows)] = found.cpu().numpy()
    return losses


@dataclass(frozen=True, slots=True)
class _Batch:
    """Rows of similar lengths: their places among the rows given, and their tensors."""

    rows: tuple[int, ...]
    inputs: dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class _Part:
    """Rows that begin alike: what with, and the rest of them in batches."""

    beginning: tuple[int, ...]
    batches: list[_Batch]


def _parts(model: PeftModel, rows: Sequence[Row], objective: Objective) -> list[_Part]:
    if not rows:
        raise DataError("no example is left to compute a validation loss on")
    # The last token of a prompt is the first whose logits are asked for.
    prompts = [row.ids[: row.answer - 1] for row in rows]
    groups = (
        group_by_beginning(prompts, worth=_GROUP)
        if can_go_on(Projection(model))
        else [Group(tuple(range(len(rows))), 0)]
    )
    parts = []
    for group in groups:
        rest = {place: rows[place].after(group.shared) for place in group.rows}
        size = _rows_at_once(model, list(rest.values()), objective)
        order = sorted(rest, key=lambda place: len(rest[place].ids))
        batches = []
        for at in range(0, len(order), size):
            chosen = tuple(order[at : at + size])
            inputs = on_device_of(model, pad_rows([rest[place] for place in chosen]))
            batches.append(_Batch(chosen, inputs))
        parts.append(_Part(prompts[group.rows[0]][: group.shared], batches))
    return parts


def _batches(model: PeftModel, parts: Sequence[_Part]) -> Iterator[tuple[Cache | None, _Batch]]:
    """Every batch with what its rows begin with, computed once a part."""
    for part in parts:
        begun = Computed(Projection(model), part.beginning) if part.beginning else None
        for batch in part.batches:
            yield begun.rows(len(batch.rows)) if begun else None, batch


def _mean_loss(model: PeftModel, parts: Sequence[_Part], objective: Objective) -> tuple[float, int]:
    return mean_of(
        batch_loss(model, batch.inputs, objective, past=past)
        for past, batch in _batches(model, parts)
    )


def _rows_at_once(model: PeftModel, rows: Sequence[Row], objective: Objective) -> int:
    """So many that the logits of their answers stay small, whatever the vocabulary."""
    longest = max((row.targets for row in rows), default=1)
    columns: int = model.get_base_model().config.get_text_config().vocab_size
    if objective == "decisions":
        columns = min(columns, _MOST_ROWS * longest)
    most = _CACHED_ROWS if model.device.type == "cpu" else _MOST_ROWS
    return max(1, min(most, _LOGITS // (longest * columns)))
