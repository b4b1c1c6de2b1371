"""The wire form: an adapter in, one flat array of bfloat16 or float32 out, and back."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fedmedlora.errors import AdapterError
from fedmedlora.model.adapter import Adapter, Manifest, check_adapter

Wire = Literal["bf16", "fp32"]

_BLOCK = 1 << 16  # values

WIRE_TYPES: dict[Wire, type[np.generic]] = {"bf16": np.uint16, "fp32": np.float32}


def pack(adapter: Adapter, dtype: Wire) -> NDArray[Any]:
    """An adapter as ONE array: its tensors in manifest order, flattened, one after another.

    One array because the number of arrays, not their size, is what slows the transport.

    Returns:
        1-D, ``adapter.manifest.size`` values: uint16 (the bits of bfloat16) or float32.

    Raises:
        AdapterError: names, shapes or types break the manifest. Values are not looked at: NaN
            stays NaN, and whoever receives it refuses it.
    """
    tensors = adapter.tensors
    wanted = dict(adapter.manifest.tensors)
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    if shapes != wanted or any(tensor.dtype != np.float32 for tensor in tensors.values()):
        check_adapter(tensors, adapter.manifest)
    flat = np.concatenate([tensors[name].reshape(-1) for name in wanted])
    return to_bf16(flat) if dtype == "bf16" else flat


def unpack(array: NDArray[Any], manifest: Manifest, dtype: Wire) -> Adapter:
    """The adapter that ``pack`` flattened. Values are not looked at: ``check_adapter`` does that.

    Raises:
        AdapterError: the array is not 1-D, of another type, or of another length.
    """
    expected = WIRE_TYPES[dtype]
    if array.dtype != expected or array.shape != (manifest.size,):
        raise AdapterError(
            f"packed adapter is {array.dtype} of shape {array.shape}; the manifest asks for "
            f"{np.dtype(expected)} of shape ({manifest.size},)"
        )
    flat = from_bf16(array) if dtype == "bf16" else array.astype(np.float32)
    tensors: dict[str, NDArray[np.float32]] = {}
    place = 0
    for name, shape in manifest.tensors:
        end = place + math.prod(shape)
        tensors[name] = flat[place:end].reshape(shape)
        place = end
    return Adapter(manifest, tensors)


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
