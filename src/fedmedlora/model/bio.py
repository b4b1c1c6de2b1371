"""Spans to BIO labels of tokens and back, by the tokens' own offsets: nothing is searched for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedmedlora.schema import Scheme

IGNORED = -100
"""Label of tokens that stand for no text: special tokens and markers."""

OUTSIDE = 0
"""Label of text in no span."""


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """A typed span: half-open character offsets into an example's ``source``."""

    start: int
    end: int
    type: str


def label_names(scheme: Scheme) -> tuple[str, ...]:
    """The labels in order: O, then B- and I- of every type, main entities first."""
    return ("O", *(f"{part}-{name}" for name in scheme.types for part in "BI"))


def tag_spans(
    spans: Iterable[Span], offsets: Sequence[tuple[int, int]], types: Sequence[str]
) -> list[int]:
    """Labels of tokens: the first token that a span touches gets B, the others I.

    Args:
        spans: that do not overlap.
        offsets: of the tokens, in order; empty ones stand for no text.
        types: B of ``types[i]`` is label ``2 i + 1``, I the next.
    """
    number = {name: place for place, name in enumerate(types)}
    labels = [OUTSIDE if start < end else IGNORED for start, end in offsets]
    for span in sorted(spans):
        label = 2 * number[span.type] + 1
        for token, (start, end) in enumerate(offsets):
            if labels[token] == OUTSIDE and start < span.end and span.start < end:
                labels[token] = label
                label = 2 * number[span.type] + 2
    return labels


def read_tags(
    labels: Sequence[int], offsets: Sequence[tuple[int, int]], types: Sequence[str]
) -> list[Span]:
    """The spans that labels say, in order, disjoint; the inverse of ``tag_spans``.

    An I that continues no span of its type begins one. Tokens that stand for no text are passed
    over.
    """
    spans: list[Span] = []
    going = OUTSIDE
    for label, (start, end) in zip(labels, offsets, strict=True):
        if start >= end:
            continue
        type_number, inside = divmod(label - 1, 2)
        if label == OUTSIDE:
            going = OUTSIDE
        elif inside and going == label:
            spans[-1] = Span(spans[-1].start, max(end, spans[-1].end), spans[-1].type)
        else:
            # The bytes of one character can be several tokens, all with its offsets.
            start = max(start, spans[-1].end) if spans else start
            spans.append(Span(start, max(start, end), types[type_number]))
            going = 2 * type_number + 2
    return [span for span in spans if span.start < span.end]


def outermost(spans: Iterable[Span]) -> list[Span]:
    """Spans without those that overlap a longer one, of equal length an earlier one; in order."""
    kept: list[Span] = []
    for span in sorted(spans, key=lambda span: (span.start - span.end, span.start)):
        if all(span.end <= other.start or other.end <= span.start for other in kept):
            kept.append(span)
    return sorted(kept)


def best_labels(scores: NDArray[np.floating], allowed: Sequence[int]) -> list[int]:
    """The best sequence of labels in which every I follows a B or I of its type (Viterbi).

    Args:
        scores: (tokens, labels), logits or log-probabilities, of tokens that stand for text.
        allowed: as in ``TagRow``: the labels that may be given.
    """
    if not len(scores):
        return []
    kept = np.asarray(allowed)
    steps = np.where(_follows(kept), 0.0, -np.inf)
    total = np.where((kept == OUTSIDE) | (kept % 2 == 1), scores[0, kept], -np.inf)
    back = []
    for row in scores[1:, kept]:
        paths = total[:, None] + steps
        back.append(paths.argmax(0))
        total = paths.max(0) + row
    best = [int(total.argmax())]
    for came_from in reversed(back):
        best.append(int(came_from[best[-1]]))
    return [int(kept[state]) for state in reversed(best)]


def _follows(labels: NDArray[np.intp]) -> NDArray[np.bool_]:
    """(before, after): whether a label may follow another."""
    inside = (labels != OUTSIDE) & (labels % 2 == 0)
    same_type = (labels[:, None] + 1) // 2 == (labels[None, :] + 1) // 2
    found: NDArray[np.bool_] = ~inside[None, :] | (same_type & (labels != OUTSIDE)[:, None])
    return found
