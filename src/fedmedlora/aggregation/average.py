"""The weighted average of the sites' factors: named arrays and weights in, named arrays out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from fedmedlora.errors import FederationError

_BLOCK = 1 << 17  # values weighted at a time: they stay in the processor's cache


def average_factors(
    states: Iterable[Mapping[str, NDArray[np.float32]]], weights: Sequence[float]
) -> dict[str, NDArray[np.float32]]:
    """Average A and B apart: A = sum_k p_k A_k, B = sum_k p_k B_k (FedIT, Fed-MedLoRA).

    Not the average of the products B A: the error is sum_k p_k (B_k - B)(A_k - A).

    Sums in float64 in the order given, so that the same sites give the same bits; holds one
    accumulator and one state at a time, so ``states`` may be lazy.

    Args:
        states: K mappings of tensor name to array; same names and shapes.
        weights: K weights p_k >= 0 that sum to 1.

    Returns:
        Name to float32 array, in the order of the first state.

    Raises:
        FederationError: weights that do not sum to 1, another number of states, or states that
            differ in names or shapes.
    """
    if not all(weight >= 0 for weight in weights) or abs(math.fsum(weights) - 1) > 1e-9:
        raise FederationError(f"weights must be 0 or more and sum to 1, not {list(weights)}")
    total: dict[str, NDArray[np.float64]] = {}
    place = -1
    for place, state in enumerate(states):
        if place >= len(weights):
            break
        if place == 0:
            total = {name: np.zeros(tensor.shape) for name, tensor in state.items()}
        elif {n: t.shape for n, t in state.items()} != {n: t.shape for n, t in total.items()}:
            raise FederationError(
                f"adapter {place} has other tensor names or shapes than the first"
            )
        for name, tensor in state.items():
            _add(total[name], tensor, weights[place])
    if place + 1 != len(weights):
        more = "more" if place + 1 > len(weights) else str(place + 1)
        raise FederationError(f"{len(weights)} weights but {more} adapters")
    return {name: tensor.astype(np.float32) for name, tensor in total.items()}


def _add(total: NDArray[np.float64], tensor: NDArray[np.float32], weight: float) -> None:
    """``total += weight * tensor`` in float64, without a copy of the tensor."""
    sums, values = total.reshape(-1), np.ascontiguousarray(tensor).reshape(-1)
    block = np.empty(min(_BLOCK, values.size))
    for at in range(0, values.size, _BLOCK):
        part = block[: min(_BLOCK, values.size - at)]
        part[...] = values[at : at + _BLOCK]
        part *= weight
        sums[at : at + _BLOCK] += part
