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

_MOST_ROWS = 32
_CACHED_ROWS = 8  # on a CPU: what a layer works on stays in its cache (benchmarks/candidates.py)
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
    batches = padded_batches(rows, batch=_rows_at_once(model, rows, objective))
    losses, tokens = [], 0
    for adapter in adapters:
        load_adapter(model, adapter)
        with merged(model):
            loss, tokens = mean_loss_of(model, batches, objective=objective)
        losses.append(loss)
    return losses, tokens


def _rows_at_once(model: PeftModel, rows: Sequence[Row], objective: Objective) -> int:
    """So many that the logits of their answers stay small, whatever the vocabulary."""
    longest = max((row.targets for row in rows), default=1)
    columns: int = model.get_base_model().config.get_text_config().vocab_size
    if objective == "decisions":
        columns = min(columns, _MOST_ROWS * longest)
    most = _CACHED_ROWS if model.device.type == "cpu" else _MOST_ROWS
    return max(1, min(most, _LOGITS // (longest * columns)))
