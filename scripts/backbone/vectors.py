"""Sequences of ids in, one vector for each id out: things that keep the same company are near.

Singular vectors of the positive pointwise mutual information between an id and the ids around it,
contexts smoothed, or rare ones would rule (Levy, Goldberg and Dagan 2015).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.linalg import svds

WINDOW = 2


def company_vectors(
    sequences: Sequence[Sequence[int]], *, size: int, contexts: int, dimensions: int, seed: int
) -> NDArray[np.float64]:
    """(size, dimensions), rows of length 1, or 0 for an id that never has company.

    Args:
        sequences: ids in [0, size); -1 for what is neither placed nor a context.
        size: number of ids.
        contexts: only ids below this count as company.
        dimensions: of a vector.
        seed: of the start of the decomposition.
    """
    gap = [-1] * WINDOW
    flat = np.concatenate([np.array([*sequence, *gap]) for sequence in sequences])
    rows, columns, weights = [], [], []
    for offset in range(1, WINDOW + 1):
        left, right = flat[:-offset], flat[offset:]
        # What stands before and what stands behind are different company.
        for here, other, side in ((left, right, 0), (right, left, contexts)):
            counted = (here >= 0) & (other >= 0) & (other < contexts)
            rows.append(here[counted])
            columns.append(other[counted] + side)
            weights.append(np.full(int(counted.sum()), 1 / offset))
    pairs = (np.concatenate(rows), np.concatenate(columns))
    counts = coo_matrix((np.concatenate(weights), pairs), shape=(size, 2 * contexts))
    counts = counts.tocsr().tocoo()
    of_row, of_column = np.asarray(counts.sum(1)).ravel(), np.asarray(counts.sum(0)).ravel()
    smoothed = of_column**0.75 / (of_column**0.75).sum()
    information = np.log(counts.data / (of_row[counts.row] * smoothed[counts.col]))
    kept = information > 0
    matrix = coo_matrix(
        (information[kept], (counts.row[kept], counts.col[kept])), shape=counts.shape
    )
    start = np.random.default_rng(seed).standard_normal(min(matrix.shape))
    u, s, _ = svds(matrix.tocsr(), k=dimensions, v0=start)
    vectors: NDArray[np.float64] = u * np.sqrt(s)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    lengths[lengths < 1e-9] = np.inf
    vectors /= lengths
    return vectors
