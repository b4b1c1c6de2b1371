"""The aggregation methods by name: how each weighs the sites, and whether it needs their losses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedmedlora.aggregation.average import average_factors
from fedmedlora.aggregation.weights import data_size_weights, utility_weights

State = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Method:
    """One way to make the next global adapter out of the sites' adapters.

    Attributes:
        weigh: (sizes, losses, beta, tau) -> p_k; losses are empty unless ``scored``.
        combine: (states, p_k) -> the new state.
        scored: whether every site's adapter must be scored on validation notes first.
    """

    weigh: Callable[[Sequence[float], Sequence[float], float, float], NDArray[np.float64]]
    combine: Callable[[Iterable[State], Sequence[float]], dict[str, NDArray[np.float32]]]
    scored: bool


METHODS: dict[str, Method] = {
    "fed-medlora": Method(
        weigh=lambda sizes, losses, beta, tau: data_size_weights(sizes),
        combine=average_factors,
        scored=False,
    ),
    "fed-medlora+": Method(
        weigh=lambda sizes, losses, beta, tau: utility_weights(sizes, losses, beta=beta, tau=tau),
        combine=average_factors,
        scored=True,
    ),
}
