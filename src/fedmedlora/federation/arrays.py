"""Packed arrays of messages as bytes: untrusted ones looked at before they are read, and hashes.

An array travels as numpy saves it, and in that one writing: equal values have equal bytes.
"""

from __future__ import annotations

import hashlib
import io
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmedlora.errors import FederationError
from fedmedlora.federation.flower import RecordDict
from fedmedlora.federation.wire import ARRAYS, PACKED
from fedmedlora.model.adapter import Manifest
from fedmedlora.model.packing import Wire, array_of


def packed_array(content: RecordDict, manifest: Manifest, wire: Wire) -> NDArray[Any]:
    """The packed array of an untrusted reply, looked at before it is decoded.

    Raises:
        FederationError: not exactly one array, or not of the type and size that were sent out.
    """
    arrays = content.array_records
    if list(arrays) != [ARRAYS] or list(arrays[ARRAYS]) != [PACKED]:
        raise FederationError("it does not hold exactly one packed adapter")
    array = arrays[ARRAYS][PACKED]
    kind, length = array_of(wire, manifest.size)
    if (
        array.stype != "numpy.ndarray"
        or array.dtype != str(kind)
        or tuple(array.shape) != (length,)
    ):
        raise FederationError(
            f"its packed adapter is {_word(array.dtype)} of shape {tuple(array.shape)[:4]} in "
            f"{len(array.data)} bytes; {kind} of shape ({length},) was asked for"
        )
    return array_in(array.data, kind, length)


def array_in(data: bytes, kind: np.dtype[Any], length: int) -> NDArray[Any]:
    """The one-dimensional array that untrusted data hold, as numpy saves it; read-only, no copy.

    Not by numpy's own reader, which takes as much memory as the header says, and takes several
    headers for the same array: equal values have one writing and one hash.

    Raises:
        FederationError: it is not of this type and length, or not as numpy saves it.
    """
    header = _header(kind, length)
    if not data.startswith(header) or len(data) != len(header) + length * kind.itemsize:
        raise FederationError("its packed adapter is not of the type and shape that it claims")
    packed: NDArray[Any] = np.frombuffer(data, kind, offset=len(header))
    return packed


def _header(kind: np.dtype[Any], length: int) -> bytes:
    """What numpy writes before the values of a one-dimensional array."""
    file = io.BytesIO()
    told = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": (length,)}
    np.lib.format.write_array_header_1_0(file, told)
    return file.getvalue()


def candidates_sha256(content: RecordDict) -> list[str]:
    """SHA-256 (hex) of each of the K candidates of a scoring request, as its own site sent it."""
    found = []
    for row in content[ARRAYS][PACKED].numpy():
        digest = hashlib.sha256(_header(row.dtype, row.size))
        digest.update(np.ascontiguousarray(row).data)
        found.append(digest.hexdigest())
    return found


def _word(text: str) -> str:
    """An untrusted name, cut to what is safe to print."""
    return re.sub(r"[^A-Za-z0-9_]", "?", text)[:20]
