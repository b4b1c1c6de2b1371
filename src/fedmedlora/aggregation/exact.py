"""FedEx-LoRA: what averaging the factors apart leaves out, as a low-rank pair of its own.

With s = alpha / r, Bm = sum_k p_k B_k and Am = sum_k p_k A_k, the ideal update is
s sum_k p_k B_k A_k = s Bm Am + s sum_k p_k (B_k - Bm)(A_k - Am). The second term is the residual
(Singhal et al., FedEx-LoRA, arXiv 2410.09432). There it is folded into the frozen weights; here it
stays beside them, so that a quantised backbone is never touched. Its rank is at most (K - 1) r.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
#: Singular values below this share of the largest are rounding, not rank.
_ROUNDING = 1e-7


def residual_pair(
    a: Sequence[NDArray[np.float32]],
    b: Sequence[NDArray[np.float32]],
    weights: Sequence[float],
    *,
    scale: float,
) -> tuple[Array, Array]:
    """One layer's residual as ``left @ right``, its rank not yet reduced.

    Args:
        a: K factors (r, d_in).
        b: K factors (d_out, r).
        weights: p_k.
        scale: s = alpha / r, the same at every site.

    Returns:
        left (d_out, K r) and right (K r, d_in).
    """
    mean_a = sum((p * f.astype(np.float64) for p, f in zip(weights, a, strict=True)), np.zeros(1))
    mean_b = sum((p * f.astype(np.float64) for p, f in zip(weights, b, strict=True)), np.zeros(1))
    left = [scale * p * (f - mean_b) for p, f in zip(weights, b, strict=True)]
    right = [f - mean_a for f in a]
    return np.concatenate(left, axis=1), np.concatenate(right, axis=0)


def compress_pair(left: Array, right: Array, *, rank: int | None = None) -> tuple[Array, Array]:
    """The pair of least rank with the same product; or its best approximation of rank ``rank``.

    QR of both factors and an SVD of the small core (Eckart and Young, 1936): never a matrix of
    (d_out, d_in).

    Args:
        left: (d_out, q).
        right: (q, d_in).
        rank: at most so many components; None keeps all that are not rounding.

    Returns:
        left (d_out, m) with orthogonal columns, falling in norm, which carry the singular values;
        right (m, d_in) with orthonormal rows. m is 0 where the product is.
    """
    q_left, r_left = np.linalg.qr(left)
    q_right, r_right = np.linalg.qr(right.T)
    u, values, vt = np.linalg.svd(r_left @ r_right.T, full_matrices=False)
    # Against the factors too: where their product cancels, the largest value is rounding itself.
    factors = float(np.linalg.norm(r_left) * np.linalg.norm(r_right))
    kept = int((values > max(_ROUNDING * values[0], 1e-13 * factors)).sum())
    if rank is not None:
        kept = min(kept, rank)
    # A singular vector and its partner may both change sign: fix it, so that equal bits come out.
    sign = np.where(u[np.abs(u).argmax(axis=0), np.arange(u.shape[1])] < 0, -1.0, 1.0)
    u, vt = u * sign, vt * sign[:, None]
    return q_left @ (u[:, :kept] * values[:kept]), vt[:kept] @ q_right.T


def add_pairs(*pairs: tuple[Array, Array]) -> tuple[Array, Array]:
    """The sum of several products as one pair, its rank reduced."""
    left = np.concatenate([pair[0] for pair in pairs], axis=1)
    right = np.concatenate([pair[1] for pair in pairs], axis=0)
    return compress_pair(left, right)
