"""Parts of adapters: one factor of every layer, fewer ranks, or two low-rank pairs as one.

Enters and leaves: manifests and adapters, checked by whoever uses them. What of an adapter travels
is a matter of the method; what its manifest then says is decided here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmedlora.aggregation.methods import Part
from fedmedlora.aggregation.mixed_rank import truncate_factors
from fedmedlora.errors import AdapterError
from fedmedlora.model.adapter import Adapter, Manifest, factor_of, partner_of


def factor_pairs(manifest: Manifest) -> tuple[tuple[str, str], ...]:
    """(name of A, name of B) of every adapted layer, in the manifest's order of A.

    Raises:
        AdapterError: a factor without its partner.
    """
    names = {name for name, _ in manifest.tensors}
    pairs = []
    for name in sorted(names):
        if factor_of(name) == "A":
            partner = partner_of(name)
            if partner not in names:
                raise AdapterError(f"the manifest lists {name}, but no {partner}")
            pairs.append((name, partner))
    return tuple(pairs)


def manifest_part(manifest: Manifest, part: Part) -> Manifest:
    """The manifest of one factor of every layer, or of both."""
    if part == "AB":
        return manifest
    return replace(
        manifest,
        tensors=tuple((name, shape) for name, shape in manifest.tensors if factor_of(name) == part),
    )


def adapter_part(adapter: Adapter, part: Part) -> Adapter:
    """One factor of every layer of an adapter, or both."""
    manifest = manifest_part(adapter.manifest, part)
    return Adapter(manifest, {name: adapter.tensors[name] for name, _ in manifest.tensors})


def completed(part: Adapter, rest: Adapter) -> Adapter:
    """An adapter with the tensors of ``part``, and those that it lacks from ``rest``."""
    tensors = {**rest.tensors, **part.tensors}
    return Adapter(rest.manifest, {name: tensors[name] for name, _ in rest.manifest.tensors})


def manifest_at_rank(manifest: Manifest, *, rank: int, alpha: float) -> Manifest:
    """The manifest of the same layers at another rank and alpha."""

    def shape_of(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (rank, shape[1]) if factor_of(name) == "A" else (shape[0], rank)

    tensors = tuple((name, shape_of(name, shape)) for name, shape in manifest.tensors)
    return replace(manifest, rank=rank, alpha=float(alpha), tensors=tensors)


def truncated(adapter: Adapter, manifest: Manifest) -> Adapter:
    """The first components of an adapter, at a smaller rank and its scale."""
    tensors: dict[str, NDArray[np.float32]] = {}
    for a, b in factor_pairs(adapter.manifest):
        tensors[a], tensors[b] = truncate_factors(
            adapter.tensors[a],
            adapter.tensors[b],
            rank=manifest.rank,
            scale=scale_of(adapter.manifest),
            wanted_scale=scale_of(manifest),
        )
    return Adapter(manifest, {name: tensors[name] for name, _ in manifest.tensors})


def residual_adapter(residual: Mapping[str, NDArray[Any]], manifest: Manifest) -> Adapter:
    """A residual pair with a scale of 1 as an adapter of its own rank."""
    first, _ = factor_pairs(manifest)[0]
    rank = residual[first].shape[0]
    own = manifest_at_rank(manifest, rank=rank, alpha=float(rank))
    return Adapter(own, {name: residual[name] for name, _ in own.tensors})


def joined(adapter: Adapter, residual: Adapter) -> Adapter:
    """Two low-rank pairs as one of their ranks' sum and scale 1: the same update, exactly."""
    rank = adapter.manifest.rank + residual.manifest.rank
    manifest = manifest_at_rank(adapter.manifest, rank=rank, alpha=float(rank))
    scales = scale_of(adapter.manifest), scale_of(residual.manifest)
    tensors: dict[str, NDArray[np.float32]] = {}
    for a, b in factor_pairs(adapter.manifest):
        tensors[a] = np.concatenate([adapter.tensors[a], residual.tensors[a]], axis=0)
        tensors[b] = np.concatenate(
            [
                np.float32(scale) * one.tensors[b]
                for scale, one in zip(scales, (adapter, residual), strict=True)
            ],
            axis=1,
        )
    return Adapter(manifest, {name: tensors[name] for name, _ in manifest.tensors})


def scale_of(manifest: Manifest) -> float:
    """s = alpha / r."""
    return manifest.alpha / manifest.rank
