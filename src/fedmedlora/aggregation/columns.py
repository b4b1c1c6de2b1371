"""Several flat arrays of one length, looked at a few columns of all at a time.

So memory does not grow with the number of arrays, whatever is computed over them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

#: Blocks begin at multiples of this; quantised arrays can be cut there.
STEP = 64
_VALUES = 1 << 22  # in memory at a time, of all arrays together


class Columns(Protocol):
    """``rows`` arrays of ``size`` values.

    Attributes:
        rows: how many.
        size: of each.
    """

    rows: int
    size: int

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        """Values ``start`` to ``stop`` of all, (rows, stop - start); ``start`` as ``STEP`` says."""
        ...


def blocks_of(columns: Columns, *, values: int = _VALUES) -> Iterator[tuple[int, int]]:
    """(start, stop) of blocks that cover all columns, each of about ``values`` in all rows."""
    width = max(1, values // max(1, columns.rows) // STEP) * STEP
    for start in range(0, columns.size, width):
        yield start, min(start + width, columns.size)


def gram_of(columns: Columns) -> NDArray[np.float64]:
    """The rows' products with one another, (rows, rows), summed in float64; read once."""
    gram = np.zeros((columns.rows, columns.rows))
    for start, stop in blocks_of(columns):
        block = columns.read(start, stop).astype(np.float64)
        gram += block @ block.T
    return gram
