"""A model's trainable parameters: copied, put back, frozen for a while, looked at.

What every kind of training of adapters needs around its steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from fedmedlora.errors import AdapterError, ConfigError
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


def refuse_dropout(model: torch.nn.Module) -> None:
    """Refuse a model that drops activations: its masks are drawn for a batch as a whole.

    One unit more or less would give every other row another mask, and so another gradient: what a
    unit can change would not be bounded by its own.

    Raises:
        ConfigError: the adapter or the backbone has dropout.
    """
    layers = any(isinstance(one, torch.nn.Dropout) and one.p > 0 for one in model.modules())
    # Of attention it is a number that layers look up, and no layer.
    config = getattr(model, "config", None)
    told = [
        name
        for name, value in ({} if config is None else vars(config)).items()
        if name.endswith(("dropout", "pdrop")) and isinstance(value, float) and value > 0
    ]
    if layers or told:
        raise ConfigError(
            "adapter.dropout: with privacy there must be none, neither of the adapter nor of the "
            f"backbone (its settings: {', '.join(told) or 'none'}): what one note changes could "
            "not be bounded; set adapter.dropout: 0, or take another backbone"
        )
