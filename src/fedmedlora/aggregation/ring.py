"""Weighted updates as whole numbers modulo 2^64, so that masks on them add and cancel exactly.

Enters: one site's update and weight. Leaves: its row of the ring, ``(w, w u)``. Enters again: the
sum of some sites' rows. Leaves: the weighted mean of their updates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedmedlora.errors import ConfigError, FederationError

Row = NDArray[np.uint64]
#: Bytes of one of its values.
ROW_BYTES = 8
#: What a mean may be off by, relative to its own Euclidean norm.
TOLERANCE = 1e-5
_BLOCK = 1 << 17  # values at a time: they stay in the processor's cache


@dataclass(frozen=True)
class Clipped:
    """What a site contributes.

    Attributes:
        update: (m,), of Euclidean norm ``largest_norm`` at most.
        weight: in [0, ``largest_weight``].
        norm: of the update as it was.
        raw_weight: the weight as it was.
    """

    update: NDArray[np.float32]
    weight: float
    norm: float
    raw_weight: float


@dataclass(frozen=True)
class Mean:
    """What a sum of rows says.

    Attributes:
        update: (m,), the weighted mean.
        weight: the sum of the weights.
        error: at most so far is the mean from that of the rows before they were rounded, relative
            to its norm; 0 where it is zero.
    """

    update: NDArray[np.float32]
    weight: float
    error: float


@dataclass(frozen=True)
class Ring:
    """Fixed-point numbers: with b bits, a weight w is 2^b w / W, and its update u 2^b w u / (W C).

    A row of honest values is within +-2^b, and b is such that a sum of ``summands`` of them is
    within half of the ring: it never goes round.

    Attributes:
        summands: at most so many rows are added, >= 1.
        largest_weight: W > 0.
        largest_norm: C > 0, of an update's Euclidean norm, so of every value of it.

    Raises:
        ConfigError: a value out of range.
    """

    summands: int
    largest_weight: float
    largest_norm: float

    def __post_init__(self) -> None:
        for name in ("largest_weight", "largest_norm"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(f"secure_aggregation.{name}: {value!r} must be finite, above 0")
        if not 1 <= self.summands <= 2**16:
            raise ConfigError(f"secure aggregation is for 1 to 65536 sites, not {self.summands}")

    @property
    def bits(self) -> int:
        """b."""
        return 62 - (self.summands - 1).bit_length()

    def clip(self, update: NDArray[np.float32], weight: float) -> Clipped:
        """Bring an update and its weight within the bounds; the update's direction stays.

        Args:
            update: (m,).
            weight: >= 0.

        Raises:
            FederationError: a value is not finite, or the weight negative.
        """
        norm = math.sqrt(_sum_of_squares(update))
        if not math.isfinite(norm):
            raise FederationError("an update with values that are not finite cannot be sent")
        if not (math.isfinite(weight) and weight >= 0):
            raise FederationError(f"a weight of {weight} cannot be sent")
        if norm > self.largest_norm:
            # A little more than that: rounded up it would be too long again.
            update = update * np.float32(self.largest_norm / norm * (1 - 1e-6))
        return Clipped(update, min(weight, self.largest_weight), norm, weight)

    def encode(self, clipped: Clipped) -> Row:
        """A site's row, (m + 1,): its weight, then its weighted update.

        Raises:
            FederationError: a value is out of bounds, or so far below them that nothing is left of
                the weight or of the update: its sum would pass for sites that learned nothing.
        """
        update, weight = clipped.update, clipped.weight / self.largest_weight
        if not 0 <= weight <= 1 or (
            update.size and not float(np.abs(update).max()) <= self.largest_norm
        ):
            raise FederationError("an update or a weight is out of the bounds of the ring")
        unit = 2.0**self.bits
        row = np.empty(update.size + 1, np.uint64)
        row[0] = round(weight * unit)
        factor = weight / self.largest_norm * unit
        for start in range(0, update.size, _BLOCK):
            values = update[start : start + _BLOCK].astype(np.float64) * factor
            whole = np.rint(values, out=values).astype(np.int64)
            row[1 + start : 1 + start + whole.size] = whole.view(np.uint64)
        if clipped.weight > 0 and (not row[0] or (update.any() and not row[1:].any())):
            raise FederationError(
                "a weight or an update is nothing in units of the ring: choose "
                "secure_aggregation.largest_weight and largest_norm closer to what sites have and, "
                "where sites weigh by loss, secure_aggregation.reference_loss near the losses"
            )
        return row

    def decode(self, total: Row, *, summands: int) -> Mean:
        """The mean of rows from their sum.

        Args:
            total: (m + 1,), the sum of ``summands`` rows modulo 2^64.
            summands: <= ``self.summands``.

        Raises:
            FederationError: the sum cannot be one of so many honest rows, all weights are 0, or the
                weights are so small that the mean would be off by more than ``TOLERANCE``.
        """
        signed = total.view(np.int64)
        weights, most = int(signed[0]), summands * 2**self.bits
        if not 0 <= weights <= most:
            raise FederationError(
                f"the sum of {summands} weights is not within 0 and {summands} times "
                f"{self.largest_weight:g}: a site did not keep to the bounds, or masks are left"
            )
        if weights == 0:
            raise FederationError(
                "the weights of all sites are 0, or too small beside secure_aggregation."
                f"largest_weight {self.largest_weight:g}: nothing can be averaged; where sites "
                "weigh by loss, choose secure_aggregation.reference_loss near the losses"
            )
        update = np.empty(total.size - 1, np.float32)
        factor = self.largest_norm / weights
        squares = 0.0
        for start in range(0, update.size, _BLOCK):
            values = signed[1 + start : 1 + start + _BLOCK].astype(np.float64) * factor
            squares += float(values @ values)
            update[start : start + values.size] = values
        norm = math.sqrt(squares)
        # Each row rounded by half a unit at most, in the weight and in every value.
        off = math.sqrt(update.size + 1) * summands * factor
        if norm > self.largest_norm * (1 + 1e-6) + off:
            raise FederationError(
                f"the mean of the updates has a norm of {norm:g}, and no update is longer than "
                f"{self.largest_norm:g}: a site did not keep to the bounds, or masks are left"
            )
        if 0 < norm < off / TOLERANCE:
            raise FederationError(
                f"the mean of the updates has a norm of {norm:g}, and rounding may be off by "
                f"{off:g}: choose secure_aggregation.largest_weight and largest_norm closer to "
                "what sites have"
            )
        weight = weights / 2.0**self.bits * self.largest_weight
        return Mean(update, weight, off / norm if norm else 0.0)


def _sum_of_squares(values: NDArray[np.float32]) -> float:
    total = 0.0
    for start in range(0, values.size, _BLOCK):
        block = values[start : start + _BLOCK].astype(np.float64)
        total += float(block @ block)
    return total
