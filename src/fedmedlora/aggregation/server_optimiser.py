"""A step of the server's own: the average of the sites is a direction, not yet the next adapter.

Server momentum (Hsu et al., FedAvgM, arXiv 1909.06335) and FedAdam (Reddi et al., arXiv
2003.00295), with the equations and bias correction of Flower's strategies of these names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedmedlora.errors import ConfigError

State = Mapping[str, NDArray[np.float32]]
Step = tuple[dict[str, NDArray[np.float32]], dict[str, NDArray[np.float32]]]


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """How the server steps.

    Attributes:
        learning_rate: of the step, > 0; 1 goes all the way to the average. FedAdam is commonly run
            with .1 or less (every value moves by about this much in a round).
        momentum: share of the last step that is added to this one, in [0, 1); 0 adds none.
        beta_1: decay of FedAdam's first moment, in [0, 1).
        beta_2: of its second.
        adaptivity: tau of FedAdam, > 0: moments below it are small.

    Raises:
        ConfigError: a value out of range.
    """

    learning_rate: float = 1.0
    momentum: float = 0.0
    beta_1: float = 0.9
    beta_2: float = 0.99
    adaptivity: float = 1e-3

    def __post_init__(self) -> None:
        good = {
            "learning_rate": self.learning_rate > 0,
            "momentum": 0 <= self.momentum < 1,
            "beta_1": 0 <= self.beta_1 < 1,
            "beta_2": 0 <= self.beta_2 < 1,
            "adaptivity": self.adaptivity > 0,
        }
        for name, holds in good.items():
            if not holds:
                value = getattr(self, name)
                raise ConfigError(f"federation.server.{name}: {value!r} is out of range")

    @property
    def is_average(self) -> bool:
        """Whether the average itself is the next adapter."""
        return self.learning_rate == 1 and self.momentum == 0


def momentum_step(before: State, average: State, memory: State, options: ServerOptions) -> Step:
    """v <- momentum v + (x - average); x <- x - rate v; in round 1, v = x - average.

    Args:
        before: the global adapter that the sites started from.
        average: of the sites' adapters.
        memory: what the last step returned; empty in round 1.
        options: of the study.

    Returns:
        the next global adapter, and what to remember.
    """
    after, kept = {}, {}
    for name, mean in average.items():
        velocity = before[name] - mean
        if name in memory:
            velocity = np.float32(options.momentum) * memory[name] + velocity
        after[name] = before[name] - np.float32(options.learning_rate) * velocity
        kept[name] = velocity
    return after, kept


def adam_step(
    before: State, average: State, memory: State, options: ServerOptions, *, round: int
) -> Step:
    """FedAdam, its bias corrected as Flower's is, by exponents of round + 1.

    d = average - x; m <- b1 m + (1 - b1) d; v <- b2 v + (1 - b2) d^2; x <- x + rate' m / (sqrt v +
    tau), with rate' = rate sqrt(1 - b2^(t+1)) / (1 - b1^(t+1)). Arguments as ``momentum_step``.
    """
    one, two = options.beta_1, options.beta_2
    rate = options.learning_rate * np.sqrt(1 - two ** (round + 1)) / (1 - one ** (round + 1))
    after, kept = {}, {}
    for name, mean in average.items():
        delta = (mean - before[name]).astype(np.float64)
        first = one * _remembered(memory, f"first/{name}", delta) + (1 - one) * delta
        second = two * _remembered(memory, f"second/{name}", delta) + (1 - two) * delta**2
        step = rate * first / (np.sqrt(second) + options.adaptivity)
        after[name] = (before[name] + step).astype(np.float32)
        kept[f"first/{name}"] = first.astype(np.float32)
        kept[f"second/{name}"] = second.astype(np.float32)
    return after, kept


def _remembered(memory: State, name: str, like: NDArray[np.float64]) -> NDArray[np.float64]:
    return memory[name].astype(np.float64) if name in memory else np.zeros_like(like)
