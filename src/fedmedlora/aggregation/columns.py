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
#: Values of a sketch: two unrelated arrays have a cosine of about 1 / sqrt(SKETCH) in theirs.
SKETCH = 256


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


def gram_and_sketches(columns: Columns) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """``gram_of``, and a sketch of each row, (rows, SKETCH); read once.

    A sketch's value is the sum of every SKETCH-th value of the array, each with a sign of its own
    that depends on its place alone: the products of sketches are, but for their noise, those of the
    arrays (Charikar, Chen, Farach-Colton, "Finding frequent items in data streams", 2004).
    """
    gram = np.zeros((columns.rows, columns.rows))
    sketches = np.zeros((columns.rows, SKETCH))
    for start, stop in blocks_of(columns):
        block = columns.read(start, stop).astype(np.float64)
        gram += block @ block.T
        lead = start % SKETCH
        whole = np.zeros((columns.rows, -(-(lead + stop - start) // SKETCH) * SKETCH))
        whole[:, lead : lead + stop - start] = block * _signs(start, stop)
        sketches += whole.reshape(columns.rows, -1, SKETCH).sum(axis=1)
    return gram, sketches


def _signs(start: int, stop: int) -> NDArray[np.float64]:
    """A sign for each place: a bit of the place, mixed as SplitMix64 does."""
    mixed = np.arange(start, stop, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed ^= mixed >> np.uint64(shift)
        mixed *= np.uint64(factor)
    return np.where(mixed >> np.uint64(63), 1.0, -1.0)
