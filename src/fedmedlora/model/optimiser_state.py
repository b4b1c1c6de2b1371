"""AdamW's memory of a model's trainable parameters, by name: out of one optimiser, into the next.

What it holds are running means of gradients and of their squares: as private as the notes that
they came from. It stays at the site.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from fedmedlora.errors import AdapterError

if TYPE_CHECKING:
    import torch

#: Parameter name -> what AdamW keeps of it: "step", a scalar, and two tensors of its shape.
OptimiserState = Mapping[str, Mapping[str, "torch.Tensor"]]

MOMENTS = ("exp_avg", "exp_avg_sq")
STEP = "step"


def optimiser_state(model: torch.nn.Module, optimiser: torch.optim.Optimizer) -> OptimiserState:
    """The memory of the parameters that are trained, without copying it."""
    return {
        name: {key: optimiser.state[parameter][key] for key in (STEP, *MOMENTS)}
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and parameter in optimiser.state
    }


def knows_all(model: torch.nn.Module, state: OptimiserState) -> bool:
    """Whether a memory has something of every parameter that is trained now."""
    return all(name in state for name, p in model.named_parameters() if p.requires_grad)


def put_optimiser_state(
    model: torch.nn.Module, optimiser: torch.optim.Optimizer, state: OptimiserState
) -> None:
    """Give an optimiser that made no step yet the memory of another.

    Args:
        model: whose parameters it steps.
        optimiser: AdamW.
        state: what is missing of it begins anew; parameters that are frozen now are passed over.

    Raises:
        AdapterError: a shape is another.
    """
    import torch

    on_device = {
        parameter: bool(group.get("fused") or group.get("capturable"))
        for group in optimiser.param_groups
        for parameter in group["params"]
    }
    for name, parameter in model.named_parameters():
        if name not in state or parameter not in on_device:
            continue
        for key in MOMENTS:
            if state[name][key].shape != parameter.shape:
                raise AdapterError(
                    f"the optimiser's state of {name} has shape {tuple(state[name][key].shape)}, "
                    f"and the parameter {tuple(parameter.shape)}: it is of another adapter"
                )
        device = parameter.device
        moments = {key: state[name][key].to(device, copy=True) for key in MOMENTS}
        # Fused kernels count their steps beside the parameter, the others on the CPU.
        there = device if on_device[parameter] else torch.device("cpu")
        step = state[name][STEP].to(there, torch.float32, copy=True)
        optimiser.state[parameter] = {STEP: step, **moments}
