"""The aggregation methods by name: what sites train and send, how they are weighed and combined.

A new one is a function ``(before, replies, layout) -> ServerState`` and a line of ``METHODS``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fedmedlora.aggregation.average import average_factors
from fedmedlora.aggregation.columns import Columns
from fedmedlora.aggregation.exact import Array, add_pairs, residual_pair
from fedmedlora.aggregation.mixed_rank import combine_ranks
from fedmedlora.aggregation.refactoring import refactor_pair
from fedmedlora.aggregation.robust import BY_COLUMN, RobustOptions, centre_of
from fedmedlora.aggregation.server_optimiser import ServerOptions, adam_step, momentum_step
from fedmedlora.aggregation.weights import data_size_weights, utility_weights

State = Mapping[str, NDArray[np.float32]]
#: Which of a layer's factors: A, B or both.
Part = Literal["A", "B", "AB"]


@dataclass(frozen=True)
class ServerState:
    """What the server keeps from round to round.

    Attributes:
        factors: the trainable global adapter.
        residual: FedEx-LoRA's second pair by the names of ``factors``, with a scale of 1; or empty.
        memory: the server optimiser's; or empty.
    """

    factors: State
    residual: State = field(default_factory=dict)
    memory: State = field(default_factory=dict)


@dataclass(frozen=True)
class Replies:
    """What the sites of a round sent, in the plan's order.

    Attributes:
        states: K mappings of tensor name to array; may be lazy.
        weights: K weights p_k that sum to 1.
        scales: K scales alpha_k / r_k.
        columns: the states again, flat, each in the order of ``shapes``; for rules that need all
            of them at once.
        shapes: (name, shape) of a state's tensors.
    """

    states: Iterable[State]
    weights: Sequence[float]
    scales: Sequence[float]
    columns: Columns | None = None
    shapes: Sequence[tuple[str, tuple[int, ...]]] = ()


@dataclass(frozen=True)
class Layout:
    """What the tensors are, and when this is.

    Attributes:
        pairs: (name of A, name of B) of every adapted layer.
        rank: of the global adapter.
        scale: its alpha / rank.
        round: from 1.
        server: how the server steps, for methods that average or adapt.
        robust: what stands for the average, for the same.
        refactor_every: rounds between new factors, for FedSVD.
    """

    pairs: Sequence[tuple[str, str]]
    rank: int
    scale: float
    round: int
    server: ServerOptions = field(default_factory=ServerOptions)
    robust: RobustOptions = field(default_factory=RobustOptions)
    refactor_every: int = 1


def _centre(replies: Replies, layout: Layout) -> State:
    """The average of what was sent, or what stands for it."""
    if layout.robust.rule not in BY_COLUMN:
        return average_factors(replies.states, replies.weights)
    if replies.columns is None:
        raise ValueError(f"{layout.robust.rule} needs the replies' columns")
    flat = centre_of(replies.columns, layout.robust)
    ends = np.cumsum([math.prod(shape) for _, shape in replies.shapes])
    parts = np.split(flat, ends[:-1])
    return {n: part.reshape(s) for (n, s), part in zip(replies.shapes, parts, strict=True)}


def step_to_average(before: ServerState, replies: Replies, layout: Layout) -> ServerState:
    """The average of what was sent, or a step of the server's towards it; the rest stays."""
    average = _centre(replies, layout)
    if layout.server.is_average:
        return ServerState({**before.factors, **average})
    after, memory = momentum_step(before.factors, average, before.memory, layout.server)
    return ServerState({**before.factors, **after}, memory={**before.memory, **memory})


def add_residual(before: ServerState, replies: Replies, layout: Layout) -> ServerState:
    """FedEx-LoRA: the average, and its error added to the residual of the rounds before."""
    states = list(replies.states)
    after = ServerState(average_factors(states, replies.weights))
    found: dict[str, tuple[Array, Array]] = {}
    for a, b in layout.pairs:
        left, right = residual_pair(
            [state[a] for state in states],
            [state[b] for state in states],
            replies.weights,
            scale=layout.scale,
        )
        earlier = before.residual
        old = [(earlier[b].astype(np.float64), earlier[a].astype(np.float64))] if earlier else []
        found[a] = add_pairs(*old, (left, right))
    rank = max(1, *(left.shape[1] for left, _ in found.values()))
    residual = {}
    for a, b in layout.pairs:
        left, right = found[a]
        more = rank - left.shape[1]
        residual[a] = np.pad(right, ((0, more), (0, 0))).astype(np.float32)
        residual[b] = np.pad(left, ((0, 0), (0, more))).astype(np.float32)
    return ServerState(after.factors, residual)


def refactor(before: ServerState, replies: Replies, layout: Layout) -> ServerState:
    """FlexLoRA: the best factors of the global rank, whatever the sites' ranks."""
    states = list(replies.states)
    factors = {}
    for a, b in layout.pairs:
        factors[a], factors[b] = combine_ranks(
            [state[a] for state in states],
            [state[b] for state in states],
            replies.weights,
            replies.scales,
            rank=layout.rank,
            scale=layout.scale,
        )
    return ServerState({name: factors[name] for name in before.factors})


def average_and_refactor(before: ServerState, replies: Replies, layout: Layout) -> ServerState:
    """FedSVD: the average of B; every so many rounds, B A in factors anew."""
    factors = {**before.factors, **average_factors(replies.states, replies.weights)}
    if layout.round % layout.refactor_every == 0:
        for a, b in layout.pairs:
            factors[a], factors[b] = refactor_pair(factors[a], factors[b])
    return ServerState(factors)


def adapt(before: ServerState, replies: Replies, layout: Layout) -> ServerState:
    """FedAdam."""
    average = _centre(replies, layout)
    after, memory = adam_step(
        before.factors, average, before.memory, layout.server, round=layout.round
    )
    return ServerState(after, memory=memory)


@dataclass(frozen=True)
class Method:
    """One way to make the next global adapter out of the sites' adapters.

    Attributes:
        combine: (state before, replies, layout) -> state after.
        weights: by data size, or by data size and validation loss (every site's adapter is then
            scored first).
        trains: round -> the factors that sites train; the others are frozen.
        sends: the factors that the server sends out; a site has the others itself.
        keeps: factors that a site trains but keeps for itself.
        mixed_ranks: whether sites may have ranks of their own.
        recuts: whether the server cuts new factors: what a site remembers of the old ones, of its
            optimiser or of rounding, is then of no use.
    """

    combine: Callable[[ServerState, Replies, Layout], ServerState] = step_to_average
    weights: Literal["size", "utility"] = "size"
    trains: Callable[[int], Part] = lambda round: "AB"
    sends: Part = "AB"
    keeps: Part | None = None
    mixed_ranks: bool = False
    recuts: bool = False

    @property
    def scored(self) -> bool:
        """Whether every site's adapter must be scored on validation notes first."""
        return self.weights == "utility"

    @property
    def averages(self) -> bool:
        """Whether it goes to the average of what was sent, or towards it."""
        return self.combine in (step_to_average, adapt)

    @property
    def linear(self) -> bool:
        """Whether the sum of weighted updates is all it needs of the sites'."""
        return self.averages or self.combine is average_and_refactor

    def returns(self, round: int) -> Part:
        """The factors that a site sends back."""
        if self.keeps is None:
            return self.trains(round)
        return "A" if self.keeps == "B" else "B"

    def weigh(
        self, sizes: Sequence[float], losses: Sequence[float], *, beta: float, tau: float
    ) -> NDArray[np.float64]:
        """The weights p_k; ``losses`` are looked at only if ``scored``."""
        if self.weights == "utility":
            return utility_weights(sizes, losses, beta=beta, tau=tau)
        return data_size_weights(sizes)


METHODS: dict[str, Method] = {
    "fed-medlora": Method(),
    "fed-medlora+": Method(weights="utility"),
    # Sun et al., arXiv 2403.12313: A keeps its random start, which every site makes by itself.
    "ffa-lora": Method(trains=lambda round: "B", sends="B"),
    # Chen et al., arXiv 2502.01755: B in odd rounds, A in even ones.
    "rolora": Method(trains=lambda round: "B" if round % 2 else "A"),
    # Guo et al., arXiv 2410.01463: A is shared, every site keeps its own B.
    "fedsa-lora": Method(sends="A", keeps="B"),
    "fedex-lora": Method(combine=add_residual),
    "flexlora": Method(combine=refactor, mixed_ranks=True, recuts=True),
    # Lee et al., arXiv 2505.12805: as ffa-lora, with an A that follows what was learnt.
    "fedsvd": Method(combine=average_and_refactor, trains=lambda round: "B", recuts=True),
    # Hsu et al., arXiv 1909.06335: with server momentum, which any average may have here.
    "fedavgm": Method(),
    "fedadam": Method(combine=adapt),
}
