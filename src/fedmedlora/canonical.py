"""The one writing of plain values, and its hash: what is signed, chained and compared."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any


def canonical(content: Mapping[str, Any]) -> bytes:
    """The one writing of plain values: equal values, equal bytes.

    Numbers that are not finite become the words "nan", "inf" and "-inf", bytes hexadecimal digits.

    Raises:
        TypeError: a value is none of None, bool, int, float, str, bytes, list, tuple, mapping.
    """
    return json.dumps(_plain(content), sort_keys=True, separators=(",", ":")).encode()


def sha256(data: bytes) -> str:
    """SHA-256, hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a {type(value).__name__} has no canonical writing")
