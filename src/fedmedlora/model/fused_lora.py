"""LoRA layers that train in fewer operations: y = x W' + s (x A') B' and its gradient, as one.

PEFT computes the same with autograd, which writes and reads a layer's output four times more. The
numbers agree to rounding (tests/model/test_fused_lora.py); layers that are more than a frozen
linear layer with one plain pair keep PEFT's way.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fedmedlora.errors import AdapterError

if TYPE_CHECKING:
    from peft import PeftModel

_ADAPTER = "default"


class LoraLinear(torch.autograd.Function):
    """Rows x (t, n), W (m, n), bias (m,) or None, A (r, n), B (m, r), scale -> (t, m).

    There is no gradient for W and the bias.
    """

    @staticmethod
    def forward(
        ctx: Any,
        rows: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        a: Tensor,
        b: Tensor,
        scale: float,
    ) -> Tensor:
        low = rows @ a.t()
        out = rows @ weight.t() if bias is None else torch.addmm(bias, rows, weight.t())
        out.addmm_(low, b.t(), alpha=scale)
        ctx.save_for_backward(rows, weight, a, b, low)
        ctx.scale = scale
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight, a, b, low = ctx.saved_tensors
        of_x, _, _, of_a, of_b, _ = ctx.needs_input_grad
        out = gradients[0]
        low_out = (out @ b).mul_(ctx.scale) if of_x or of_a else None
        return (
            (out @ weight).addmm_(low_out, a) if of_x else None,
            None,
            None,
            low_out.t() @ rows if of_a and low_out is not None else None,
            (out.t() @ low).mul_(ctx.scale) if of_b else None,
            None,
        )


class RowLoraLinear(torch.autograd.Function):
    """As ``LoraLinear``, for x (n, t, d_in); a factor's gradient is left at it row by row.

    ``factor.grad_sample`` then is (n, *its shape), and ``factor.grad`` nothing.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        a: Tensor,
        b: Tensor,
        scale: float,
    ) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        low = rows @ a.t()
        out = rows @ weight.t() if bias is None else torch.addmm(bias, rows, weight.t())
        out.addmm_(low, b.t(), alpha=scale)
        ctx.save_for_backward(x, weight, a, b, low.view(*x.shape[:2], -1))
        ctx.scale, ctx.factors = scale, (a, b)
        return out.view(*x.shape[:2], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, a, b, low = ctx.saved_tensors
        of_x, _, _, of_a, of_b, _ = ctx.needs_input_grad
        out = gradients[0]
        low_out = (out @ b).mul_(ctx.scale) if of_x or of_a else None
        if of_a and low_out is not None:
            _leave(ctx.factors[0], low_out.transpose(1, 2) @ x)
        if of_b:
            _leave(ctx.factors[1], (out.transpose(1, 2) @ low).mul_(ctx.scale))
        of_rows = None
        if of_x and low_out is not None:
            of_rows = (out @ weight).flatten(0, 1).addmm_(low_out.flatten(0, 1), a).view_as(x)
        return of_rows, None, None, None, None, None


def _leave(factor: Any, gradient: Tensor) -> None:
    before = getattr(factor, "grad_sample", None)
    factor.grad_sample = gradient if before is None else before + gradient


@contextmanager
def fused_lora(model: PeftModel, *, by_rows: bool = False) -> Iterator[int]:
    """Let the model's plain LoRA layers compute by ``LoraLinear`` until the block ends.

    Args:
        model: with its adapter.
        by_rows: by ``RowLoraLinear`` instead.

    Yields:
        how many layers do.
    """
    layers = [module for module in model.modules() if _is_plain(module)]
    for layer in layers:
        layer.forward = partial(_forward_by_rows if by_rows else _forward, layer)
    try:
        yield len(layers)
    finally:
        for layer in layers:
            del layer.forward


def _forward(layer: Any, x: Tensor) -> Tensor:
    base = layer.base_layer
    out: Tensor = LoraLinear.apply(  # type: ignore[no-untyped-call]
        x.reshape(-1, x.shape[-1]),
        base.weight,
        base.bias,
        layer.lora_A[_ADAPTER].weight,
        layer.lora_B[_ADAPTER].weight,
        layer.scaling[_ADAPTER],
    )
    return out.view(*x.shape[:-1], -1)


def check_rows(x: Tensor) -> None:
    """Refuse a layer's input in which rows and their tokens are not two dimensions.

    Raises:
        AdapterError: it is such.
    """
    if x.dim() != 3:
        raise AdapterError(
            f"a layer gets an input of shape {tuple(x.shape)}, in which the rows of a batch cannot "
            "be told apart, so no row's part in a step can be bounded; take another backbone"
        )


def _forward_by_rows(layer: Any, x: Tensor) -> Tensor:
    check_rows(x)
    base = layer.base_layer
    out: Tensor = RowLoraLinear.apply(  # type: ignore[no-untyped-call]
        x,
        base.weight,
        base.bias,
        layer.lora_A[_ADAPTER].weight,
        layer.lora_B[_ADAPTER].weight,
        layer.scaling[_ADAPTER],
    )
    return out


def _is_plain(module: nn.Module) -> bool:
    from peft.tuners.lora.layer import Linear

    if type(module) is not Linear or type(module.base_layer) is not nn.Linear:
        return False
    layer: Any = module
    if list(layer.active_adapters) != [_ADAPTER] or _ADAPTER in layer.lora_variant:
        return False
    pair = (layer.lora_A[_ADAPTER], layer.lora_B[_ADAPTER])
    weights = [layer.base_layer.weight, *(half.weight for half in pair)]
    return (
        all(half.bias is None for half in pair)
        and isinstance(layer.lora_dropout[_ADAPTER], nn.Identity)
        and not (layer.merged or layer.disable_adapters)
        and not any(parameter.requires_grad for parameter in layer.base_layer.parameters())
        and len({weight.dtype for weight in weights}) == 1
        and not torch.is_autocast_enabled(weights[0].device.type)
    )
