"""The wire form: an adapter in, one flat array out, and back.

One array because the number of arrays, not their size, is what slows the transport. Whole adapters
travel as bfloat16 or float32. What a site made of the one that it got may travel as a difference
instead, at 8 or 4 bits a value.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fedmedlora.errors import AdapterError
from fedmedlora.model.adapter import Adapter, Manifest, check_adapter
from fedmedlora.model.bfloat import from_bf16, to_bf16
from fedmedlora.model.quantising import BLOCK, Bits, dequantise, quantise, quantised_size

#: How a whole adapter travels.
Form = Literal["bf16", "fp32"]
#: How sites send what they trained.
Wire = Literal["bf16", "fp32", "int8", "int4"]

_TYPES: dict[str, type[np.generic]] = {"bf16": np.uint16, "fp32": np.float32}
_BITS: dict[str, Bits] = {"int8": 8, "int4": 4}
WIRES: tuple[Wire, ...] = ("bf16", "fp32", "int8", "int4")


def form_of(wire: Wire) -> Form:
    """How the server sends adapters where sites send ``wire``."""
    return "fp32" if wire == "fp32" else "bf16"


def is_difference(wire: Wire) -> bool:
    """Whether what a site sends is the difference to what it got."""
    return wire in _BITS


def array_of(wire: Wire, size: int) -> tuple[np.dtype[Any], int]:
    """Type and length of the array in which a site sends ``size`` values."""
    if wire in _BITS:
        return np.dtype(np.uint8), quantised_size(size, _BITS[wire])
    return np.dtype(_TYPES[wire]), size


def wire_bytes(size: int, wire: Wire) -> int:
    """Bytes of the array in which ``size`` values travel."""
    kind, length = array_of(wire, size)
    return length * kind.itemsize


def pack(adapter: Adapter, form: Form) -> NDArray[Any]:
    """An adapter as ONE array: its tensors in manifest order, flattened, one after another.

    Returns:
        1-D, ``adapter.manifest.size`` values: uint16 (the bits of bfloat16) or float32.

    Raises:
        AdapterError: names, shapes or types break the manifest. Values are not looked at: NaN
            stays NaN, and whoever receives it refuses it.
    """
    flat = _flat(adapter)
    return to_bf16(flat) if form == "bf16" else flat


def unpack(array: NDArray[Any], manifest: Manifest, form: Form) -> Adapter:
    """The adapter that ``pack`` flattened. Values are not looked at: ``check_adapter`` does that.

    Raises:
        AdapterError: the array is not 1-D, of another type, or of another length.
    """
    _check_array(array, manifest, form)
    flat = from_bf16(array) if form == "bf16" else array.astype(np.float32)
    return Adapter(manifest, _tensors(flat, manifest))


def pack_update(
    adapter: Adapter, before: Adapter, wire: Wire, carried: NDArray[np.float32] | None = None
) -> tuple[NDArray[Any], NDArray[np.float32] | None]:
    """What a site sends after training.

    Args:
        adapter: trained.
        before: what it started from: as the site got it, and as the server knows that.
        wire: how it travels.
        carried: (size,), what earlier rounds rounded away; added to the difference.

    Returns:
        the packed array, and what this round rounds away; None where the whole adapter travels.

    Raises:
        AdapterError: names, shapes or types break the manifest.
    """
    if wire not in _BITS:
        return pack(adapter, form_of(wire)), None
    difference = _flat(adapter) - _flat(before)
    if carried is not None:
        if carried.shape != difference.shape:
            raise AdapterError("what was carried over is of another adapter")
        difference += carried
    packed = quantise(difference, _BITS[wire])
    return packed, difference - dequantise(packed, difference.size, _BITS[wire])


def unpack_update(
    array: NDArray[Any], manifest: Manifest, wire: Wire, before: Adapter | None
) -> Adapter:
    """The adapter that ``pack_update`` packed, with what ``before`` has added if need be.

    Raises:
        AdapterError: the array is of another type or length.
    """
    if wire not in _BITS:
        return unpack(array, manifest, form_of(wire))
    if before is None:
        raise AdapterError("a difference came, and what it is a difference to is not known")
    _check_array(array, manifest, wire)
    flat = dequantise(array, manifest.size, _BITS[wire])
    flat += _flat(before)
    return Adapter(manifest, _tensors(flat, manifest))


def places_of(wire: Wire, size: int, *, start: int, stop: int) -> tuple[tuple[int, int], ...]:
    """Where in a packed update of ``size`` values those from ``start`` to ``stop`` are.

    Args:
        wire: how it travels.
        size: of all.
        start, stop: of the flat values; ``start`` a multiple of 64.

    Returns:
        (first, end) of pieces of the array; one after another they are what ``values_in`` takes.
    """
    if wire not in _BITS:
        return ((start, stop),)
    first, end, blocks = start // BLOCK, -(-stop // BLOCK), -(-size // BLOCK)
    codes = BLOCK * _BITS[wire] // 8
    return (2 * first, 2 * end), (2 * blocks + first * codes, 2 * blocks + end * codes)


def values_in(pieces: NDArray[Any], wire: Wire, *, count: int) -> NDArray[np.float32]:
    """The first ``count`` values of a packed update, or of pieces of one: of the adapter, or of its
    difference to what was sent."""
    if wire in _BITS:
        return dequantise(pieces, count, _BITS[wire])
    return from_bf16(pieces) if form_of(wire) == "bf16" else pieces.astype(np.float32)


def _check_array(array: NDArray[Any], manifest: Manifest, wire: Wire) -> None:
    kind, length = array_of(wire, manifest.size)
    if array.dtype != kind or array.shape != (length,):
        raise AdapterError(
            f"packed adapter is {array.dtype} of shape {array.shape}; the manifest asks for "
            f"{kind} of shape ({length},)"
        )


def _flat(adapter: Adapter) -> NDArray[np.float32]:
    tensors = adapter.tensors
    wanted = dict(adapter.manifest.tensors)
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    if shapes != wanted or any(tensor.dtype != np.float32 for tensor in tensors.values()):
        check_adapter(tensors, adapter.manifest)
    return np.concatenate([tensors[name].reshape(-1) for name in wanted])


def _tensors(flat: NDArray[np.float32], manifest: Manifest) -> dict[str, NDArray[np.float32]]:
    tensors: dict[str, NDArray[np.float32]] = {}
    place = 0
    for name, shape in manifest.tensors:
        end = place + math.prod(shape)
        tensors[name] = flat[place:end].reshape(shape)
        place = end
    return tensors
