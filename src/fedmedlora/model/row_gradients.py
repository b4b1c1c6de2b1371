"""A batch in, the gradient of every row by itself out.

One forward and one backward pass for all rows: what enters a LoRA factor and what comes back to it
are multiplied row by row. Plain layers do so themselves (``fused_lora``), all others by Opacus'
hooks: those of an NF4 backbone.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from fedmedlora.errors import AdapterError, ConfigError
from fedmedlora.model.fused_lora import check_rows, fused_lora
from fedmedlora.model.losses import Objective, batch_loss

if TYPE_CHECKING:
    from peft import PeftModel

_FACTOR = re.compile(r"\.lora_[AB]\.\w+$")


@dataclass(frozen=True)
class RowGradients:
    """Of one batch of n rows.

    Attributes:
        by_name: parameter -> (n, *its shape): the gradient of the row's summed loss.
        loss: summed over all rows.
        tokens: under the loss.
    """

    by_name: Mapping[str, torch.Tensor]
    loss: float
    tokens: int


class RowDifferentiator:
    """Computes row gradients of a model while ``row_gradients`` is open."""

    def __init__(self, model: PeftModel) -> None:
        self._model = model
        self._trained = {n: p for n, p in model.named_parameters() if p.requires_grad}

    def __call__(self, inputs: Mapping[str, torch.Tensor], objective: Objective) -> RowGradients:
        """The gradients of a padded batch.

        Args:
            inputs: as ``pad_rows`` makes them.
            objective: the loss.

        Raises:
            AdapterError: the model mixes the rows of a batch, so that none has a gradient of its
                own.
        """
        device = next(self._model.parameters()).device
        inputs = {name: tensor.to(device) for name, tensor in inputs.items()}
        loss, tokens = batch_loss(self._model, inputs, objective)
        loss.backward()  # type: ignore[no-untyped-call]
        rows = len(inputs["input_ids"])
        found = {}
        for name, parameter in self._trained.items():
            gradient: Any = parameter.grad_sample
            if isinstance(gradient, torch.Tensor) and gradient.shape == (rows, *parameter.shape):
                found[name] = gradient.float()
            elif parameter.grad is not None or gradient is not None:
                raise AdapterError(
                    f"{name}: its gradient cannot be told apart by rows, so no row's part in it "
                    "can be bounded; take a backbone whose layers keep the rows of a batch apart"
                )
            parameter.grad = None
            parameter.grad_sample = None
        return RowGradients(found, float(loss.detach()), tokens)


@contextmanager
def row_gradients(model: PeftModel) -> Iterator[RowDifferentiator]:
    """Let a model in training mode give row gradients until the block ends.

    Raises:
        ConfigError: Opacus is not installed.
    """
    try:
        from opacus.grad_sample.grad_sample_module import GradSampleHooks
    except ImportError as error:
        raise ConfigError('privacy needs Opacus: pip install "opacus>=1.6"') from error
    hooks = GradSampleHooks(model, loss_reduction="sum")
    factors = [module for name, module in model.named_modules() if _FACTOR.search(name)]
    checks = [module.register_forward_pre_hook(_keep_rows_apart) for module in factors]
    try:
        with warnings.catch_warnings(), fused_lora(model, by_rows=True):
            # The first layer's input needs no gradient: the hook is called all the same.
            warnings.filterwarnings("ignore", "Full backward hook is firing", UserWarning)
            yield RowDifferentiator(model)
    finally:
        for check in checks:
            check.remove()
        hooks.cleanup()


def _keep_rows_apart(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
    """Opacus takes whatever comes first for the rows: tokens, where a layer gets them flat."""
    check_rows(inputs[0])
