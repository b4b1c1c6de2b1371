"""Averages that a few liars among the sites cannot move far: replies in, one adapter out.

Coordinate-wise median and trimmed mean (Yin et al., arXiv 1803.01498) count every site alike,
whatever its weight. Krum (Blanchard et al., arXiv 1703.02757) and norm clipping (Sun et al., arXiv
1911.07963) change the weights of an average.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fedmedlora.aggregation.columns import Columns, blocks_of
from fedmedlora.aggregation.weights import data_size_weights
from fedmedlora.errors import ConfigError, FederationError

Rule = Literal["none", "median", "trimmed-mean", "krum", "clip"]
RULES: tuple[Rule, ...] = ("none", "median", "trimmed-mean", "krum", "clip")
#: Rules that look at every value by itself, and those that look at whole updates.
BY_COLUMN: tuple[Rule, ...] = ("median", "trimmed-mean")
BY_UPDATE: tuple[Rule, ...] = ("krum", "clip")


@dataclass(frozen=True, slots=True)
class RobustOptions:
    """How the sites' adapters are combined, if not by their plain average.

    Attributes:
        rule: ``"none"`` is the average.
        malicious: so many sites may lie, >= 1: the trimmed mean leaves out as many at either end;
            Krum looks at the distances to all but as many and two.
        select: Krum averages so many of the sites, >= 1; ``None`` is all but ``malicious`` and two.
        clip: longer updates are cut to so many times the round's median norm, > 0.

    Raises:
        ConfigError: a value out of range.
    """

    rule: Rule = "none"
    malicious: int = 1
    select: int | None = None
    clip: float = 1.0

    def __post_init__(self) -> None:
        good = {
            "rule": self.rule in RULES,
            "malicious": self.malicious >= 1,
            "select": self.select is None or self.select >= 1,
            "clip": self.clip > 0,
        }
        for name, holds in good.items():
            if not holds:
                value = getattr(self, name)
                raise ConfigError(f"federation.robust.{name}: {value!r} is out of range")

    @property
    def least_sites(self) -> int:
        """Fewer sites cannot be told from their liars."""
        return {
            "trimmed-mean": 2 * self.malicious + 1,
            "krum": 2 * self.malicious + 3,
            "median": 3,
            "clip": 3,
        }.get(self.rule, 1)

    def fits(self, sites: int, *, quorum: int) -> bool:
        """Whether so many sites, of which at least ``quorum`` answer, are enough.

        A trimmed mean of fewer replies would have none left; the others go on with what there is.
        """
        return (quorum if self.rule == "trimmed-mean" else sites) >= self.least_sites


def centre_of(columns: Columns, options: RobustOptions) -> NDArray[np.float32]:
    """The median or the trimmed mean of every column.

    Args:
        columns: K adapters, flat.
        options: with a rule ``BY_COLUMN``.

    Returns:
        (size,), as Flower's FedMedian and FedTrimmedAvg (with a share of malicious / K) give it.

    Raises:
        FederationError: the trimmed mean would leave out all.
    """
    cut = options.malicious
    if options.rule == "trimmed-mean" and columns.rows <= 2 * cut:
        raise FederationError(
            f"{columns.rows} replies: a trimmed mean without {cut} at either end has none left"
        )
    centre = np.empty(columns.size, np.float32)
    for start, stop in blocks_of(columns):
        block = columns.read(start, stop)
        if options.rule == "median":
            centre[start:stop] = np.median(block, axis=0)
        else:
            ordered = np.partition(block, (cut, columns.rows - cut - 1), axis=0)
            centre[start:stop] = ordered[cut : columns.rows - cut].mean(axis=0)
    return centre


def krum_weights(
    gram: NDArray[np.float64], weights: Sequence[float], options: RobustOptions
) -> list[float]:
    """(Multi-)Krum: the weights of the sites nearest to one another; 0 for the others.

    A site's score is the sum of its squared distances to the K - malicious - 2 nearest others; the
    sites with the lowest are averaged by their weights.

    Args:
        gram: products of the K updates, (K, K).
        weights: p_k.
        options: with ``malicious`` and ``select``.

    Returns:
        K weights that sum to 1.
    """
    count = len(weights)
    squares = np.diag(gram)
    distances = np.maximum(squares[:, None] + squares[None, :] - 2 * gram, 0.0)
    np.fill_diagonal(distances, -1.0)  # itself comes first, whoever else is at the same place
    near = max(1, count - options.malicious - 2)
    scores = np.sort(distances, axis=1)[:, 1 : near + 1].sum(axis=1)
    select = near if options.select is None else min(options.select, count)
    chosen = np.argsort(scores, kind="stable")[:select]
    kept = np.zeros(count)
    kept[chosen] = np.asarray(weights)[chosen]
    return [float(weight) for weight in data_size_weights(kept)]


def clip_shares(gram: NDArray[np.float64], options: RobustOptions) -> list[float]:
    """The share of each update that is left when longer ones are cut.

    Args:
        gram: products of the K updates, (K, K).
        options: with ``clip``.

    Returns:
        K shares in [0, 1]; a clipped average is x + sum_k p_k share_k (x_k - x), x what was sent.
    """
    norms = np.sqrt(np.diag(gram))
    most = options.clip * float(np.median(norms))
    return [1.0 if norm <= most else most / float(norm) for norm in norms]


def robust_weights(
    weights: Sequence[float], options: RobustOptions, *, gram: NDArray[np.float64] | None
) -> list[float]:
    """What the weights p_k become under a rule.

    Args:
        weights: K weights that sum to 1.
        options: with the rule.
        gram: products of the K updates; for rules ``BY_UPDATE``.

    Returns:
        K weights: equal ones where every site counts alike; where updates are cut, they sum to less
        than 1, and the rest is that of the adapter that was sent.
    """
    if options.rule in BY_COLUMN:
        return [float(weight) for weight in data_size_weights(np.ones(len(weights)))]
    if options.rule not in BY_UPDATE:
        return list(weights)
    if gram is None:
        raise ValueError(f"{options.rule} needs the products of the updates")
    if options.rule == "krum":
        return krum_weights(gram, weights, options)
    shares = clip_shares(gram, options)
    return [weight * share for weight, share in zip(weights, shares, strict=True)]
