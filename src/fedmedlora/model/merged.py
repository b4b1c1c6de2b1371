"""A model that computes with its adapter added to its weights, for as long as a block lasts.

Without gradients a LoRA layer need not be three products where one will do. PEFT's own merging
rounds: taken back, weights differ in their last bits. Here the frozen weights are set aside and put
back as they were.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from peft import PeftModel

#: Parameters of models whose weights may lie in memory twice.
MERGE_BELOW = 200_000_000


@contextmanager
def merged(model: PeftModel) -> Iterator[int]:
    """Let LoRA on float32 linear layers be part of their weights until the block ends.

    Every active adapter is added, scaled. Other layers (quantised, of half precision, tied to the
    embeddings) go on computing their pairs beside the weights, and so do all of a model of
    ``MERGE_BELOW`` parameters or more, where a second copy would cost too much memory. The block
    must not train.

    Yields:
        how many layers are merged.
    """
    small = sum(parameter.numel() for parameter in model.parameters()) < MERGE_BELOW
    tied = model.get_base_model().get_input_embeddings().weight
    layers: list[Any] = [
        module
        for module in (model.modules() if small else ())
        if _can_merge(module) and module.base_layer.weight is not tied
    ]
    weights = [layer.base_layer.weight.data for layer in layers]
    try:
        for layer in layers:
            layer.base_layer.weight.data = _sum(layer)
            layer.forward = layer.base_layer.forward
        yield len(layers)
    finally:
        for layer, weight in zip(layers, weights, strict=True):
            layer.base_layer.weight.data = weight
            layer.__dict__.pop("forward", None)


def _can_merge(module: nn.Module) -> Any:
    from peft.tuners.lora.layer import Linear

    if type(module) is not Linear or type(module.base_layer) is not nn.Linear:
        return False
    layer: Any = module
    return (
        layer.base_layer.weight.dtype == torch.float32
        and not layer.merged
        and not layer.disable_adapters
        and not any(name in layer.lora_variant for name in layer.active_adapters)
        and not any(layer.lora_B[name].bias is not None for name in _active(layer))
    )


def _active(layer: Any) -> list[str]:
    return [name for name in layer.active_adapters if name in layer.lora_A]


def _sum(layer: Any) -> torch.Tensor:
    total: torch.Tensor = layer.base_layer.weight.data
    for name in _active(layer):
        a, b = layer.lora_A[name].weight.data, layer.lora_B[name].weight.data
        total = torch.addmm(total, b, a, alpha=layer.scaling[name])
    return total
