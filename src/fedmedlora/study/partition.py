"""Splits of documents in, the same documents shared among K sites out: pure and seeded.

For studies of many sites, or of uneven ones, on notes that come from fewer sources. Every document
goes to exactly one site, within its split, and keeps the order of its split there; every site gets
at least one document of every split.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from fedmedlora.errors import ConfigError
from fedmedlora.schema import Document
from fedmedlora.seeds import derive_seed

#: Name of a split ("train", "validation") -> its documents.
Splits = Mapping[str, Sequence[Document]]
#: For each site: name of a split -> its documents.
Parts = tuple[dict[str, tuple[Document, ...]], ...]

#: Beyond these a Dirichlet draw is all or nothing, or even, to the last digit.
ALPHAS = (1e-4, 1e6)


def partition_evenly(splits: Splits, sites: int, *, seed: int) -> Parts:
    """Deal the documents of each split at random: sites' sizes differ by one at most.

    Groups are not kept together; ``partition_by_group`` does that.

    Args:
        splits: the documents.
        sites: K >= 1.
        seed: of the dealing, derived for each split.

    Raises:
        ConfigError: fewer than one site, or a split of fewer documents than sites.
    """

    def share(split: str, documents: Sequence[Document]) -> list[list[int]]:
        order = _generator(seed, "evenly", split).permutation(len(documents))
        return [[int(index) for index in order[site::sites]] for site in range(sites)]

    _check(splits, sites, whole_groups=False)
    return _parts(splits, {name: share(name, split) for name, split in splits.items()}, sites)


def partition_by_group(splits: Splits, sites: int, *, seed: int) -> Parts:
    """Share whole groups: the largest first, each to the site with the fewest documents so far.

    A document without a group is a group of its own. Groups of one size come in random order.

    Args:
        splits: the documents; a group is kept whole within each split.
        sites: K >= 1.
        seed: of the order, derived for each split.

    Raises:
        ConfigError: fewer than one site, or a split of fewer groups than sites.
    """

    def share(split: str, documents: Sequence[Document]) -> list[list[int]]:
        shares: list[list[int]] = [[] for _ in range(sites)]
        groups = _shuffled(_groups(documents), _generator(seed, "group", split))
        for group in sorted(groups, key=len, reverse=True):
            min(shares, key=len).extend(group)
        return shares

    _check(splits, sites, whole_groups=True)
    return _parts(splits, {name: share(name, split) for name, split in splits.items()}, sites)


def partition_by_dirichlet(
    splits: Splits,
    sites: int,
    *,
    alpha: float,
    seed: int,
    types: Collection[str] | None = None,
) -> Parts:
    """Share each class of documents by shares of its own: p_c ~ Dirichlet(alpha, ..., alpha).

    A group's class is the entity type that its documents have most of (the first by name where
    several have most), or none. The groups of a class, in random order, are laid end to end, and
    each goes to the site whose share of the class holds its middle. Small alpha: a class is at few
    sites; large alpha: all sites are alike. A site that is left without a document in a split gets
    the smallest group of the site that has most there and more than one.

    Args:
        splits: the documents; a class has the same shares in all splits, and a group is kept whole
            within each.
        sites: K >= 1.
        alpha: concentration, in ``ALPHAS``.
        seed: of the shares, derived for each class, and of the order, for each split and class.
        types: the entity types that make classes, such as the main entities'; ``None``: all.

    Raises:
        ConfigError: fewer than one site, alpha out of range, or a split of fewer groups than sites.
    """

    def share(split: str, documents: Sequence[Document]) -> list[list[int]]:
        classes: dict[str, list[list[int]]] = {}
        for group in _groups(documents):
            members = [documents[index] for index in group]
            classes.setdefault(_dominant_type(members, types), []).append(group)
        shares: list[list[list[int]]] = [[] for _ in range(sites)]
        for name in sorted(classes):
            drawn = _generator(seed, "dirichlet", name).dirichlet(np.full(sites, alpha))
            groups = _shuffled(classes[name], _generator(seed, "dirichlet", split, name))
            for group, site in zip(groups, _sites_of(groups, drawn), strict=True):
                shares[site].append(group)
        _fill_empty(shares)
        return [[index for group in groups for index in group] for groups in shares]

    _check(splits, sites, whole_groups=True)
    if not (math.isfinite(alpha) and ALPHAS[0] <= alpha <= ALPHAS[1]):
        raise ConfigError(f"alpha {alpha} is not between {ALPHAS[0]:g} and {ALPHAS[1]:g}")
    return _parts(splits, {name: share(name, split) for name, split in splits.items()}, sites)


def _generator(seed: int, *purpose: str) -> np.random.Generator:
    return np.random.default_rng(derive_seed(seed, "partition", *purpose))


def _groups(documents: Sequence[Document]) -> list[list[int]]:
    """The documents' indices, those of one group together, in order of first appearance."""
    groups: dict[str | int, list[int]] = {}
    for index, document in enumerate(documents):
        groups.setdefault(index if document.group is None else document.group, []).append(index)
    return list(groups.values())


def _shuffled(groups: Sequence[list[int]], generator: np.random.Generator) -> list[list[int]]:
    return [groups[index] for index in generator.permutation(len(groups))]


def _dominant_type(documents: Sequence[Document], types: Collection[str] | None) -> str:
    counts = Counter(
        entity.type
        for document in documents
        for entity in document.entities
        if types is None or entity.type in types
    )
    return min(counts, key=lambda name: (-counts[name], name), default="")


def _sites_of(groups: Sequence[list[int]], shares: NDArray[np.float64]) -> list[int]:
    """The site of each group, by where its middle lies on the groups laid end to end."""
    sizes = np.array([len(group) for group in groups], dtype=np.float64)
    middles = (np.cumsum(sizes) - sizes / 2) / sizes.sum()
    found = np.searchsorted(np.cumsum(shares), middles, side="right")
    return [min(int(site), len(shares) - 1) for site in found]


def _fill_empty(shares: list[list[list[int]]]) -> None:
    for groups in shares:
        if not groups:
            giver = max((s for s in shares if len(s) > 1), key=lambda s: sum(map(len, s)))
            groups.append(giver.pop(min(range(len(giver)), key=lambda n: len(giver[n]))))


def _check(splits: Splits, sites: int, *, whole_groups: bool) -> None:
    if sites < 1:
        raise ConfigError(f"{sites} sites: there must be one at least")
    for name, documents in splits.items():
        count = len(_groups(documents)) if whole_groups else len(documents)
        if count < sites:
            what = "groups of documents" if whole_groups else "documents"
            raise ConfigError(
                f"{name}: {count} {what} cannot be shared among {sites} sites; ask for fewer sites"
            )


def _parts(splits: Splits, shares: Mapping[str, Sequence[list[int]]], sites: int) -> Parts:
    return tuple(
        {
            name: tuple(documents[index] for index in sorted(shares[name][site]))
            for name, documents in splits.items()
        }
        for site in range(sites)
    )


def withhold_notes(
    documents: Sequence[Document], count: int, *, seed: int
) -> tuple[tuple[Document, ...], tuple[Document, ...]]:
    """Notes that stay, and ``count`` that are taken out, or as many more as their patients have.

    Raises:
        ConfigError: none would stay.
    """
    unit = {one.id: one.group or f"note {one.id}" for one in documents}
    order = list(dict.fromkeys(unit.values()))
    random.Random(seed).shuffle(order)
    out: set[str] = set()
    while order and sum(group in out for group in unit.values()) < count:
        out.add(order.pop())
    if not order:
        raise ConfigError(
            f"leakage.withhold: {count} of a site's {len(documents)} training notes leave nothing "
            "to train on"
        )
    return (
        tuple(one for one in documents if unit[one.id] not in out),
        tuple(one for one in documents if unit[one.id] in out),
    )
