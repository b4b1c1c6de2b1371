"""FedSVD: a pair of factors with the same product, its A with orthonormal rows.

A^T = Q R and B R^T = U S V^T give B A = (U S) (V^T Q^T): the new B is U S, the new A is V^T Q^T
(Lee et al., FedSVD, arXiv 2505.12805). V is a whole rotation: where B has less than full rank, as
in its first rounds, A still has all of its rows.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Factor = NDArray[np.float32]


def refactor_pair(a: Factor, b: Factor) -> tuple[Factor, Factor]:
    """New factors of B A.

    Args:
        a: (r, d_in).
        b: (d_out, r).

    Returns:
        a with orthonormal rows (min(r, d_in) of them, the others are 0) and b with orthogonal
        columns, falling in norm; shapes as before.
    """
    q, rest = np.linalg.qr(a.T.astype(np.float64))
    left, core = np.linalg.qr(b.astype(np.float64) @ rest.T)
    u, values, vt = np.linalg.svd(core)
    # A singular vector and its partner may both change sign: fix it, so that equal bits come out.
    signs = np.where(vt[np.arange(len(vt)), np.abs(vt).argmax(axis=1)] < 0, -1.0, 1.0)
    vt = vt * signs[:, None]
    new_a, new_b = np.zeros(a.shape), np.zeros(b.shape)
    new_a[: len(vt)] = vt @ q.T
    kept = len(values)
    new_b[:, :kept] = left @ (u[:, :kept] * (signs[:kept] * values))
    return new_a.astype(np.float32), new_b.astype(np.float32)
