"""FlexLoRA, HLoRA: sites of any rank in, the best global factors of one rank out.

The ideal update D = sum_k p_k s_k B_k A_k with s_k = alpha_k / r_k is a product of stacked factors;
QR and the SVD of a small core give its best approximation of every rank at once (Bai et al.,
FlexLoRA, arXiv 2402.11505, without the full-size matrix). Components fall in size, so a site of
rank r takes the first r of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedmedlora.aggregation.exact import compress_pair

#: Norm of a row of A as LoRA is initialised (Kaiming uniform with a = sqrt 5 gives variance
#: 1 / (3 d_in)): a site goes on with the step sizes that its learning rate is meant for.
_ROW_NORM = 1 / np.sqrt(3)


def combine_ranks(
    a: Sequence[NDArray[np.float32]],
    b: Sequence[NDArray[np.float32]],
    weights: Sequence[float],
    scales: Sequence[float],
    *,
    rank: int,
    scale: float,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """One layer's global factors of rank ``rank`` for the scale ``scale``.

    Args:
        a: K factors (r_k, d_in).
        b: K factors (d_out, r_k).
        weights: p_k.
        scales: s_k = alpha_k / r_k.
        rank: of the result.
        scale: alpha / rank of whoever uses the result.

    Returns:
        A (rank, d_in) and B (d_out, rank) with scale * B A the best approximation of D of that
        rank. Where D has a smaller one, the last columns of B are zero and the rows of A that go
        with them are orthogonal to the others, so that they can still learn.
    """
    left = np.concatenate(
        [
            p * s * factor.astype(np.float64)
            for p, s, factor in zip(weights, scales, b, strict=True)
        ],
        axis=1,
    )
    right = np.concatenate([factor.astype(np.float64) for factor in a], axis=0)
    u, v = compress_pair(left, right, rank=rank)
    rows = _fill(v, right, rank=rank)
    columns = np.zeros((u.shape[0], rank))
    columns[:, : u.shape[1]] = u
    return (
        (rows * _ROW_NORM).astype(np.float32),
        (columns / (_ROW_NORM * scale)).astype(np.float32),
    )


def truncate_factors(
    a: NDArray[np.float32],
    b: NDArray[np.float32],
    *,
    rank: int,
    scale: float,
    wanted_scale: float,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The first ``rank`` components of global factors, for a site's own scale.

    Args:
        a: (R, d_in) and ``b`` (d_out, R), components falling in size, for the scale ``scale``.
        rank: <= R.
        scale: alpha / R of the global factors.
        wanted_scale: alpha_k / r_k of the site.
    """
    ratio = np.float32(scale / wanted_scale)
    return a[:rank].copy(), b[:, :rank] * ratio


def _fill(v: NDArray[np.float64], right: NDArray[np.float64], *, rank: int) -> NDArray[np.float64]:
    """``rank`` orthonormal rows, the first of them ``v``; the others from what the sites learnt."""
    lacking = rank - len(v)
    if lacking == 0:
        return v
    spread = np.random.default_rng(0).standard_normal((lacking, right.shape[1]))
    pool = np.concatenate([right, spread])
    pool = pool - (pool @ v.T) @ v
    _, values, vt = np.linalg.svd(pool, full_matrices=False)
    rows = np.zeros((rank, right.shape[1]))
    rows[: len(v)] = v
    more = vt[:lacking][values[:lacking] > 1e-9 * max(1.0, float(values[0]))]
    # Fewer than ``rank`` orthogonal rows exist where rank > d_in: the last ones stay zero.
    rows[len(v) : len(v) + len(more)] = more
    return rows
