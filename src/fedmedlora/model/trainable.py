"""A model's trainable parameters: copied, put back, frozen for a while, looked at.

What every kind of training of adapters needs around its steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from fedmedlora.errors import AdapterError
from fedmedlora.model.adapter import Part, factor_of

if TYPE_CHECKING:
    from peft import PeftModel


def drift(model: PeftModel, start: dict[str, torch.Tensor]) -> torch.Tensor:
    """The squared distance of a model's parameters from those of ``start``: FedProx's term."""
    here = dict(model.named_parameters())
    return torch.stack([(here[name] - value).square().sum() for name, value in start.items()]).sum()


def trainable(model: PeftModel) -> dict[str, torch.Tensor]:
    """Copies of what is trained, by name."""
    return {
        name: parameter.detach().clone()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


@contextmanager
def only_factors(model: PeftModel, part: Part) -> Iterator[None]:
    """Freeze the factors that are not to be trained until the block ends."""
    frozen = [
        parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and factor_of(name) not in part
    ]
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)


def check_finite(model: PeftModel, steps: int) -> None:
    """Refuse what ``steps`` steps made if it is not finite.

    Raises:
        AdapterError: it is not.
    """
    for parameter in model.parameters():
        if parameter.requires_grad and not bool(torch.isfinite(parameter).all()):
            raise AdapterError(
                f"training diverged: after {steps} steps the adapter holds values that are no "
                "finite numbers; set a lower training.learning_rate"
            )


def put_back(model: PeftModel, values: dict[str, torch.Tensor]) -> None:
    """Give parameters the values that they had."""
    for name, parameter in model.named_parameters():
        if name in values:
            parameter.data = values[name].clone()
