"""Differences at 8 or 4 bits a value: a float32 array in, one array of bytes out, and back.

Every ``BLOCK`` values share a scale, their largest magnitude over the largest code, in bfloat16.
What is rounded away is up to the caller to carry on (error feedback: Seide et al., 2014;
Karimireddy et al., arXiv 1901.09847).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fedmedlora.errors import AdapterError
from fedmedlora.model.bfloat import from_bf16, to_bf16

Bits = Literal[8, 4]
BLOCK = 64


def quantised_size(size: int, bits: Bits) -> int:
    """Bytes that ``size`` values take."""
    blocks = -(-size // BLOCK)
    return 2 * blocks + blocks * BLOCK * bits // 8


def quantise(values: NDArray[np.float32], bits: Bits) -> NDArray[np.uint8]:
    """Values (n,) as bytes: the blocks' scales, then the codes; the last block is filled up.

    A block that holds a value that is not finite comes back as values that are not.
    """
    most = 2 ** (bits - 1) - 1
    blocks = np.zeros((-(-values.size // BLOCK), BLOCK), np.float32)
    blocks.reshape(-1)[: values.size] = values
    with np.errstate(invalid="ignore", over="ignore"):
        scales = to_bf16(np.abs(blocks).max(axis=1, initial=0) / np.float32(most))
        steps = from_bf16(scales)[:, None]
        codes = np.divide(blocks, steps, out=np.zeros_like(blocks), where=steps != 0)
        codes = np.clip(np.nan_to_num(np.rint(codes)), -most, most).astype(np.int8)
    if bits == 4:
        nibbles = (codes.reshape(-1, 2) & 0xF).view(np.uint8)
        packed = nibbles[:, 0] | (nibbles[:, 1] << 4)
    else:
        packed = codes.reshape(-1).view(np.uint8)
    return np.concatenate([scales.view(np.uint8), packed])


def dequantise(packed: NDArray[np.uint8], size: int, bits: Bits) -> NDArray[np.float32]:
    """The values (size,) that ``quantise`` made bytes of, but for its rounding.

    Raises:
        AdapterError: the array is of another type or length.
    """
    wanted = quantised_size(size, bits)
    if packed.dtype != np.uint8 or packed.shape != (wanted,):
        raise AdapterError(
            f"quantised values are {packed.dtype} of shape {packed.shape}, not {wanted} bytes"
        )
    blocks = -(-size // BLOCK)
    scales = from_bf16(packed[: 2 * blocks].view(np.uint16))
    codes = packed[2 * blocks :]
    if bits == 4:
        pairs = np.stack([codes << 4, codes & 0xF0], axis=1).view(np.int8)
        signed = pairs.reshape(blocks, BLOCK) >> 4
    else:
        signed = codes.view(np.int8).reshape(blocks, BLOCK)
    with np.errstate(invalid="ignore", over="ignore"):
        # A scale that is no number must show in all of its block, zeros included.
        values = signed.astype(np.float32) * scales[:, None]
    return values.reshape(-1)[:size]
