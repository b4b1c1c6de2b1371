"""Masks: a key in, as many uniform 64-bit words as a row has added to it or taken away.

The words are the key stream of AES-256 in counter mode from 0 (NIST SP 800-38A), read as
little-endian; a key masks one row and nothing else.
"""

from __future__ import annotations

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CTR

from fedmedlora.aggregation.ring import Row

_CHUNK = 1 << 18  # bytes at a time: they stay in the processor's cache
_ZEROS = bytes(_CHUNK)
_BLOCK = 16


def add_mask(row: Row, key: bytes) -> None:
    """Add a key's mask to a row, in place, modulo 2^64.

    Args:
        row: 1-D, writable.
        key: 32 bytes.
    """
    _mask(row, key, np.add)


def take_mask(row: Row, key: bytes) -> None:
    """Take a key's mask from a row; see ``add_mask``."""
    _mask(row, key, np.subtract)


def _mask(row: Row, key: bytes, combine: np.ufunc) -> None:
    stream = Cipher(AES256(key), CTR(bytes(_BLOCK))).encryptor()
    words = bytearray(_CHUNK + _BLOCK - 1)
    step = _CHUNK // row.itemsize
    for start in range(0, row.size, step):
        part = row[start : start + step]
        stream.update_into(_ZEROS[: part.nbytes], words)
        combine(part, np.frombuffer(words, "<u8", part.size), out=part)
