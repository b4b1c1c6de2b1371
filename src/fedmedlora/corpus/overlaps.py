"""How spans lie to each other: counts of duplicate, nested and crossing pairs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from fedmedlora.schema import Entity


def count_overlaps(entities: Iterable[Entity]) -> dict[str, int]:
    """Count the pairs of spans that share a character, each under one name.

    Returns:
        "duplicate": same place and type; "same place": same place, other type; "nested": one
        inside the other; "crossing": neither inside the other. Names with a count of 0 are absent.
    """
    counts: Counter[str] = Counter()
    open_spans: list[Entity] = []
    for span in sorted(entities, key=lambda e: (e.start, -e.end)):
        open_spans = [other for other in open_spans if other.end > span.start]
        for other in open_spans:
            if (other.start, other.end) == (span.start, span.end):
                counts["duplicate" if other.type == span.type else "same place"] += 1
            elif span.end <= other.end:
                counts["nested"] += 1
            else:
                counts["crossing"] += 1
        open_spans.append(span)
    return dict(counts)
