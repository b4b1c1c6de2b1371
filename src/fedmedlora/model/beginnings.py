"""Prompts that begin alike: rows of token ids in, groups with what each group shares out.

Windows that are asked for the same types share all of a prompt but its text. What a group shares
is computed once, and its rows go on from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

if TYPE_CHECKING:
    from fedmedlora.model.projection import Projection

#: A beginning of this many tokens is worth computing once.
LEAST = 12


@dataclass(frozen=True, slots=True)
class Group:
    """Rows that begin alike.

    Attributes:
        rows: places among the rows given, in their order.
        shared: how many tokens all of them begin with; 0 if too few to be worth it.
    """

    rows: tuple[int, ...]
    shared: int


def shared_beginning(rows: Sequence[Sequence[int]]) -> int:
    """How many tokens all rows begin with; 0 if too few to be worth it, or for a single row."""
    if len(rows) < 2:
        return 0
    # What the first and the last in order share, all between them do.
    same = _alike(min(rows, key=list), max(rows, key=list))
    return same if same >= LEAST else 0


def group_by_beginning(prompts: Sequence[Sequence[int]], *, worth: int) -> list[Group]:
    """Groups that save tokens, each row in one of them.

    Args:
        prompts: token ids; a group shares at most what its shortest prompt has.
        worth: tokens that a further group must save, as it makes batches smaller.
    """
    order = sorted(range(len(prompts)), key=lambda place: list(prompts[place]))
    # What each shares with the next in order; a stretch of the order shares its least.
    alike = [_alike(prompts[a], prompts[b]) for a, b in pairwise(order)]
    groups = []
    for start, stop in _cut(alike, len(order), worth):
        shared = min(alike[start : stop - 1], default=0)
        rows = tuple(sorted(order[start:stop]))
        groups.append(Group(rows, shared if shared >= LEAST else 0))
    return groups


class Computed:
    """A beginning that a model has computed, to go on from with any number of rows.

    Args:
        projection: of the model.
        ids: token ids.
    """

    def __init__(self, projection: Projection, ids: Sequence[int]) -> None:
        base = projection.base
        self._cache = DynamicCache(config=base.config.get_text_config())
        tokens = torch.tensor([list(ids)], device=next(base.parameters()).device)
        projection.states(input_ids=tokens, past_key_values=self._cache, use_cache=True)

    def rows(self, count: int) -> Cache:
        """A cache of its own for so many rows."""
        cache = deepcopy(self._cache)
        cache.batch_repeat_interleave(count)
        return cache


def can_go_on(projection: Projection) -> bool:
    """Whether the model keeps nothing of a beginning but each token's keys and values."""
    layers = DynamicCache(config=projection.base.config.get_text_config()).layers
    return all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers)


def _cut(alike: Sequence[int], count: int, worth: int) -> list[tuple[int, int]]:
    """Stretches of the order, cut where its rows have least in common."""
    stretches, left = [], [(0, count)]
    while left:
        start, stop = left.pop()
        if start >= stop:
            continue
        inner = alike[start : stop - 1]
        least = min(inner, default=0)
        parts, at = [], start
        for place, same in enumerate(inner, start + 1):
            if same == least:
                parts.append((at, place))
                at = place
        parts.append((at, stop))
        gain = sum(_saved(alike, *part) for part in parts) - _saved(alike, start, stop)
        if len(parts) > 1 and gain > worth * (len(parts) - 1):
            left += reversed(parts)
        else:
            stretches.append((start, stop))
    return stretches


def _saved(alike: Sequence[int], start: int, stop: int) -> int:
    shared = min(alike[start : stop - 1], default=0)
    return (stop - start - 1) * shared if shared >= LEAST else 0


def _alike(one: Sequence[int], other: Sequence[int]) -> int:
    same = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        same += 1
    return same
