"""The weights p_k of the sites: sizes and losses in, non-negative float64 that sum to 1 out.

Equations of arXiv 2601.22124 (Fed-MedLoRA, Fed-MedLoRA+) and of the code its authors published.
Nobody else in this package divides by a sum.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedmedlora.errors import FederationError


def data_size_weights(sizes: ArrayLike) -> NDArray[np.float64]:
    """Fed-MedLoRA: p_k = n_k / sum n.

    Args:
        sizes: K sizes n_k >= 0 (the authors count training tokens); zero means weight zero.

    Raises:
        FederationError: no size, a negative or non-finite one, or all are zero.
    """
    n = _vector("sizes", sizes, lowest=0.0)
    total = n.sum()
    if not (np.isfinite(total) and total > 0):
        raise FederationError(f"the sizes sum to {total}: no site can be averaged")
    weights: NDArray[np.float64] = n / total
    return weights


def utility_weights(
    sizes: ArrayLike, losses: ArrayLike, *, beta: float, tau: float
) -> NDArray[np.float64]:
    """Fed-MedLoRA+: p_k ~ n_k^beta exp(-(L_k - min L) / tau).

    beta = 1, tau = 1 is the paper's reading; beta = 0, tau = 1 is the authors' code, softmax(-L),
    in which sizes play no part (n^0 is 1, for n = 0 too).

    Args:
        sizes: K sizes n_k >= 0.
        losses: K mean validation losses L_k.
        beta: >= 0.
        tau: > 0; small trusts the losses more.

    Raises:
        FederationError: sizes or losses differ in number, are non-finite or negative sizes, all
            weights are zero, or beta or tau is out of range.
    """
    if not (np.isfinite(beta) and beta >= 0) or not (np.isfinite(tau) and tau > 0):
        raise FederationError(f"beta is {beta} and tau {tau}: beta must be >= 0, tau > 0")
    n = _vector("sizes", sizes, lowest=0.0)
    loss = _vector("losses", losses)
    if n.shape != loss.shape:
        raise FederationError(f"{n.size} sizes but {loss.size} losses")
    # log 0 = -inf and a loss that overflows to -inf both mean: weight zero.
    with np.errstate(over="ignore", divide="ignore"):
        utility = (loss.min() - loss) / tau
        return _normalised(utility if beta == 0 else utility + beta * np.log(n))


def unnormalised_weight(
    size: float, loss: float | None, *, beta: float, tau: float, reference: float = 0.0
) -> float:
    """One site's w_k, which it can compute alone; p_k = w_k / sum w.

    n_k by Fed-MedLoRA; n_k^beta exp(-(L_k - L_0) / tau) by Fed-MedLoRA+, in which the constant L_0
    cancels: it keeps w_k within a range. Secure aggregation is given w_k and w_k times the update.

    Args:
        size: n_k >= 0.
        loss: L_k; None weighs by size alone.
        beta, tau: as of ``utility_weights``.
        reference: L_0.

    Returns:
        w_k; at most e^700.

    Raises:
        FederationError: a size below 0 or not finite, or a loss that is not finite.
    """
    [n] = _vector("sizes", [size], lowest=0.0)
    if loss is None:
        return float(n)
    [found] = _vector("losses", [loss])
    if n == 0 and beta > 0:
        return 0.0
    power = 0.0 if beta == 0 else beta * math.log(n)
    return math.exp(min(power - (found - reference) / tau, 700.0))


def pool_losses(losses: Sequence[ArrayLike], counts: ArrayLike) -> NDArray[np.float64]:
    """The candidates' losses over the validation notes of all sites that scored them.

    L_k = sum_s c_s L_sk / sum c, with c_s the tokens that site s counted: the mean over all their
    tokens, as if they lay in one place.

    Args:
        losses: one row a scoring site, each of K mean losses.
        counts: tokens >= 0 of each scoring site.

    Returns:
        K losses.

    Raises:
        FederationError: rows of different length, non-finite losses, or counts all zero.
    """
    shares = data_size_weights(counts)
    rows = [_vector("losses", row) for row in losses]
    if len(rows) != shares.size or len({row.size for row in rows}) != 1:
        raise FederationError(
            f"{len(rows)} rows of {sorted({row.size for row in rows})} losses for "
            f"{shares.size} counts"
        )
    pooled = np.zeros(rows[0].size)
    for share, row in zip(shares, rows, strict=True):
        pooled += share * row
    return pooled


def _vector(name: str, values: ArrayLike, lowest: float = -np.inf) -> NDArray[np.float64]:
    vector = np.asarray(values, dtype=np.float64)
    if vector.ndim != 1 or not vector.size:
        raise FederationError(f"{name} must be a list of one number a site, not {vector.shape}")
    bad = [k for k, value in enumerate(vector) if not np.isfinite(value) or value < lowest]
    if bad:
        raise FederationError(
            f"{name}[{bad[0]}] is {vector[bad[0]]}: it must be finite"
            + (f" and at least {lowest:g}" if lowest > -np.inf else "")
        )
    return vector


def _normalised(logs: NDArray[np.float64]) -> NDArray[np.float64]:
    """exp(logs) / sum exp(logs), from the largest down so that nothing overflows."""
    largest = logs.max()
    if not np.isfinite(largest):
        raise FederationError("all weights are zero or out of range: no site can be averaged")
    scaled = np.exp(logs - largest)
    weights: NDArray[np.float64] = scaled / scaled.sum()
    return weights
