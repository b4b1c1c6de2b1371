"""One seed of a study in, a seed for every site, round and purpose out."""

from __future__ import annotations

import hashlib


def derive_seed(seed: int, *purpose: object) -> int:
    """A seed in [0, 2**31) of ``seed`` and ``purpose`` alone, whatever was derived before."""
    text = "\x1f".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1
