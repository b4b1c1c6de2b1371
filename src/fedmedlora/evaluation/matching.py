"""How many predictions are right: exact agreement, and maximum matching by overlap.

In go the gold and the predicted items of one type in one document; out comes the number of true
positives. A span is ``(start, end)``, a relation ``(head start, head end, start, end)`` with the
modifier last; all half-open character offsets.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Hashable, Sequence
from heapq import heappop, heappush
from itertools import accumulate

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

#: ``(start, end)`` or ``(head start, head end, start, end)``.
Place = tuple[int, ...]


def count_exact(gold: Sequence[Hashable], predicted: Sequence[Hashable]) -> int:
    """Size of the multiset intersection: every gold item satisfies one equal prediction at most."""
    if not gold or not predicted:
        return 0
    return (Counter(gold) & Counter(predicted)).total()


def match_spans(gold: Sequence[Place], predicted: Sequence[Place]) -> int:
    """Size of a maximum matching between gold and predicted spans that share a character."""
    return len(pair_spans(gold, predicted))


def pair_spans(gold: Sequence[Place], predicted: Sequence[Place]) -> list[tuple[int, int]]:
    """A maximum matching between spans that share a character: (place in gold, in predicted).

    Exact and in O(n log n); its size is independent of the order given. The unmatched span x (of
    either side) that ends first is paired with the overlapping span y of the other side that ends
    first. Every span that is left ends no earlier than x, so whatever could still take y could also
    take any other partner of x: taking y, the least useful partner, costs nothing.
    """
    if not gold or not predicted:
        return []
    spans = sorted(
        [(end, start, 0, place) for place, (start, end) in enumerate(gold)]
        + [(end, start, 1, place) for place, (start, end) in enumerate(predicted)]
    )
    by_start = sorted(range(len(spans)), key=lambda rank: spans[rank][1])
    # Ranks are places in the order of ends, so that a heap of ranks gives the earliest end.
    open_ranks: tuple[list[int], list[int]] = ([], [])
    taken = bytearray(len(spans))
    entered = 0
    pairs: list[tuple[int, int]] = []
    for rank, (end, _, side, place) in enumerate(spans):
        while entered < len(by_start) and spans[by_start[entered]][1] < end:
            heappush(open_ranks[spans[by_start[entered]][2]], by_start[entered])
            entered += 1
        if taken[rank]:
            continue
        partners = open_ranks[1 - side]
        while partners and (partners[0] < rank or taken[partners[0]]):
            heappop(partners)
        if partners:
            partner = heappop(partners)
            taken[partner] = 1
            other = spans[partner][3]
            pairs.append((other, place) if side else (place, other))
    return pairs


def match_relations(gold: Sequence[Place], predicted: Sequence[Place]) -> int:
    """Size of a maximum matching between relations of which heads and modifiers both overlap."""
    return len(pair_relations(gold, predicted))


def pair_relations(gold: Sequence[Place], predicted: Sequence[Place]) -> list[tuple[int, int]]:
    """A maximum matching between relations of which heads and modifiers both overlap.

    As (place in ``gold``, place in ``predicted``).
    """
    if not gold or not predicted:
        return []
    order = sorted(range(len(predicted)), key=lambda place: predicted[place][2])
    ordered = [predicted[place] for place in order]
    starts = [item[2] for item in ordered]
    reach = list(accumulate((item[3] for item in ordered), max))
    partners: list[list[int]] = []
    for head_start, head_end, start, end in gold:
        # Only these can overlap the modifier: they start before it ends, and end after it starts.
        first, last = bisect_right(reach, start), bisect_left(starts, end)
        partners.append(
            [
                place
                for place in range(first, last)
                if start < ordered[place][3]
                and head_start < ordered[place][1]
                and ordered[place][0] < head_end
            ]
        )
    columns = [place for row in partners for place in row]
    if len(set(columns)) == len(columns) and all(len(row) <= 1 for row in partners):
        return [(place, order[row[0]]) for place, row in enumerate(partners) if row]
    pointers = np.cumsum([0, *map(len, partners)], dtype=np.int32)
    graph = csr_array(
        (np.ones(len(columns), dtype=np.int8), np.array(columns, dtype=np.int32), pointers),
        shape=(len(gold), len(ordered)),
    )
    found = maximum_bipartite_matching(graph, perm_type="column")
    return [(place, order[column]) for place, column in enumerate(found) if column >= 0]
