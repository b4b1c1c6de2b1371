"""Text in, windows out: runs of whole sentences, each short enough for one prompt.

Windows depend on the text alone, never on its annotations: where gold entities lie must not show
in a prompt. What a window's edge cuts is counted in ``build``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from fedmedlora.tasks.sentences import COLUMN_GAP, sentence_spans

#: A run of more characters than this without white space counts as several words, so that the
#: length of a window in characters is bounded too.
WORD_CHARACTERS = COLUMN_GAP

_WORD = re.compile(rf"\S{{1,{WORD_CHARACTERS}}}")
_CLAUSE_END = frozenset(",;:.!?)")


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of a document: half-open character offsets into its text."""

    start: int
    end: int


def cut_windows(text: str, *, words: int) -> list[Window]:
    """Cut ``text`` into windows of whole sentences, at most ``words`` words each.

    Windows are disjoint and in order, begin and end with a character that is not white space, and
    leave only white space between them. A sentence of more than ``words`` words is broken, after
    a clause's punctuation where its second half has one, else at white space; a run without white
    space only if it alone is longer than a window.

    Args:
        text: any text, empty too.
        words: at least 1; words are runs without white space. A longer run, or white space between
            two words, counts one more for each ``WORD_CHARACTERS`` of it, so that a window has
            fewer than ``2 * words * WORD_CHARACTERS`` characters.
    """
    windows: list[Window] = []
    start = end = count = 0
    for piece_start, piece_end, size in _pieces(text, words):
        gap = (piece_start - end) // WORD_CHARACTERS
        if count and count + gap + size > words:
            windows.append(Window(start, end))
            count = 0
        if not count:
            start, gap = piece_start, 0
        end = piece_end
        count += gap + size
    if count:
        windows.append(Window(start, end))
    return windows


def _pieces(text: str, words: int) -> Iterator[tuple[int, int, int]]:
    """Sentences as (start, end, words), broken where they are longer than ``words``."""
    for start, end in sentence_spans(text):
        units = [match.span() for match in _WORD.finditer(text, start, end)]
        first = 0
        while len(units) - first > words:
            last = _break(text, units, first, words)
            yield units[first][0], units[last - 1][1], last - first
            first = last
        yield units[first][0], units[-1][1], len(units) - first


def _break(text: str, units: list[tuple[int, int]], first: int, words: int) -> int:
    """Index of the unit that begins the next piece: at most ``first + words``."""
    limit = first + words
    gaps = [i for i in range(first + 1, limit + 1) if units[i][0] > units[i - 1][1]]
    for i in reversed(gaps):
        if i - first <= words // 2:
            break
        if text[units[i - 1][1] - 1] in _CLAUSE_END:
            return i
    return gaps[-1] if gaps else limit
