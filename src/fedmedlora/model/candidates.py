"""Candidate adapters scored on one backbone: K adapters and rows in, K losses out.

What Fed-MedLoRA+ asks of a site or a server. The backbone is loaded once, rows are padded once, and
each adapter is added to the weights while it is scored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fedmedlora.model.adapter import Adapter
from fedmedlora.model.encoding import Row
from fedmedlora.model.lora import load_adapter
from fedmedlora.model.losses import Objective, mean_loss_of, padded_batches
from fedmedlora.model.merged import merged

if TYPE_CHECKING:
    from peft import PeftModel


def candidate_losses(
    model: PeftModel,
    adapters: Sequence[Adapter],
    rows: Sequence[Row],
    *,
    objective: Objective,
    batch: int = 32,
) -> tuple[list[float], int]:
    """Mean loss per target token of each adapter on ``rows``, and the number of target tokens.

    Args:
        model: takes on each adapter in turn, and keeps the last.
        adapters: K, for the layers that the model's adapter has.
        rows: at least one.
        objective: what the adapters were trained for.
        batch: rows at once.

    Raises:
        DataError: there are no rows.
        AdapterError: an adapter does not fit the model.
    """
    batches = padded_batches(rows, batch=batch)
    losses, tokens = [], 0
    for adapter in adapters:
        load_adapter(model, adapter)
        with merged(model):
            loss, tokens = mean_loss_of(model, batches, objective=objective)
        losses.append(loss)
    return losses, tokens
