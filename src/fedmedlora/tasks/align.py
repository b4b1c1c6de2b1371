"""Words of an answer in, the source's words that they copy out: a monotone global alignment."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

UNALIGNED = -1
AMBIGUOUS = -2

#: Above this product of lengths the answer's later words are left unaligned (64 MB of scores).
MAX_CELLS = 4_000_000

_WORD = re.compile(r"[^\W\d_]+|\d+|\S")
_NEVER = -(2**60)
#: Worth of a pair, and of continuing one: more than all columns of an alignment together.
_PAIR = MAX_CELLS + 1


@dataclass(frozen=True, slots=True)
class Word:
    """A run of letters, a run of digits or one other sign; half-open offsets into its text."""

    start: int
    end: int
    text: str

    @property
    def key(self) -> str:
        """What is compared: the word without regard to case."""
        return self.text.casefold()


def read_words(text: str) -> list[Word]:
    """The words of ``text`` in order; all but its white space lies in one of them."""
    return [Word(m.start(), m.end(), m.group()) for m in _WORD.finditer(text)]


def align_words(source: Sequence[str], answer: Sequence[str]) -> list[int]:
    """For each word of ``answer`` the index of the word of ``source`` that it copies.

    The alignment is monotone and maximises the number of aligned words plus the number of pairs
    that directly continue another (the answer's beginning continues the source's beginning: an
    answer may stop early, but begins where its source begins). Among equals, the earlier words of
    the answer are aligned: of a text that it repeats, the first copy counts. A word has a place
    only if all best alignments give it that place; if only some do it is ``AMBIGUOUS``, if none
    does ``UNALIGNED``. Where in the source a word lies is never decided by a preference.

    Time and memory are O(len(source) * len(answer)); beyond ``MAX_CELLS`` the answer's tail is
    left unaligned.
    """
    if list(source) == list(answer):
        return list(range(len(source)))
    if not source or not answer:
        return [UNALIGNED] * len(answer)
    considered = answer[: MAX_CELLS // len(source)]
    vocabulary: dict[str, int] = {}
    rows = np.array([vocabulary.setdefault(w, len(vocabulary)) for w in source], np.int32)
    columns = np.array([vocabulary.setdefault(w, len(vocabulary)) for w in considered], np.int32)
    places = _best_places(rows, columns)
    return [*places.tolist(), *[UNALIGNED] * (len(answer) - len(considered))]


def _best_places(rows: NDArray[np.int32], columns: NDArray[np.int32]) -> NDArray[np.int32]:
    """The row of each column in all best alignments, or UNALIGNED or AMBIGUOUS."""
    n, m = len(rows), len(columns)
    ending, before = _forward_scores(rows, columns)
    total = before[n, m]
    worth = _PAIR - np.arange(m)
    places = np.full(m, UNALIGNED, np.int32)
    # Of the rows from i on: `pair[j]` is the best score that begins with the pair (i, j), `free[j]`
    # the best score of the columns from j on; `without[j]` the best score that leaves out column j.
    pair = np.full(m + 1, _NEVER, np.int64)
    free = np.zeros(m + 1, np.int64)
    without = before[n, :m].copy()
    for i in range(n - 1, -1, -1):
        after = np.maximum(pair[1:] + _PAIR, free[1:])
        equal = columns == rows[i]
        best = equal & (ending[i] + after == total)
        places[best] = np.where(places[best] == UNALIGNED, i, AMBIGUOUS)
        pair = np.full(m + 1, _NEVER, np.int64)
        pair[:-1][equal] = (after + worth)[equal]
        free = np.maximum.accumulate(np.maximum(pair, free)[::-1])[::-1]
        np.maximum(without, before[i, :m] + free[1:], out=without)
    places[(places != UNALIGNED) & (without == total)] = AMBIGUOUS
    return places


def _forward_scores(
    rows: NDArray[np.int32], columns: NDArray[np.int32]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Best score that ends with each pair, (n, m); of the first i rows and j columns, one more."""
    n, m = len(rows), len(columns)
    ending = np.empty((n, m), np.int64)
    before = np.zeros((n + 1, m + 1), np.int64)
    pair = np.full(m + 1, _NEVER, np.int64)
    pair[0] = 0
    worth = _PAIR - np.arange(m)
    for i in range(n):
        scores = np.maximum(pair[:-1] + _PAIR, before[i, :-1]) + worth
        ending[i] = np.where(columns == rows[i], scores, _NEVER)
        pair[0] = _NEVER
        pair[1:] = ending[i]
        before[i + 1] = np.maximum.accumulate(np.maximum(pair, before[i]))
    return ending, before
