"""Inline tags: spans and a text in, marked-up text out, and the pieces that a tokenizer needs.

A tag is ``<span class="TYPE">`` or ``<span class="TYPE" head="N">``, closed by ``</span>``. Proper
nesting can be written; of two spans that cross, the shorter is left out (of equal ones the later).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fedmedlora.tasks.example import CLOSING

MASK = "‹"
"""Stands for a ``<`` of the note that could begin a span tag; as long as what it replaces."""

#: Every complete tag, as models write them: any case, odd spaces.
TAG = re.compile(r"<\s*(?P<close>/\s*)?span\b(?P<attributes>[^<>]*)>", re.IGNORECASE)

_TAG_LIKE = re.compile(r"<(?=\s*(?:/\s*)?span)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Mark:
    """A span to write: offsets into the text at hand, and its opening tag."""

    start: int
    end: int
    opening: str


def opening_tag(type_name: str, *, head: int | None = None, number: int | None = None) -> str:
    """The opening tag of a type; ``head`` names whose a modifier is, ``number`` numbers a head."""
    named = "" if head is None else f' head="{head}"'
    numbered = "" if number is None else f' id="{number}"'
    return f'<span class="{type_name}"{named}{numbered}>'


def mask(text: str) -> str:
    """``text`` with every ``<`` that could begin a span tag replaced by ``‹``: the same length."""
    return _TAG_LIKE.sub(MASK, text)


def drop_crossing(marks: Sequence[Mark]) -> tuple[list[Mark], list[Mark]]:
    """Part marks into those that nest properly, in writing order, and those left out.

    Longer marks go first, of equal length the earlier, then the order given. Marks of one span are
    nested in the order given.
    """
    kept: list[Mark] = []
    dropped: list[Mark] = []
    for mark in sorted(marks, key=lambda m: (m.start - m.end, m.start)):
        crossing = any(
            k.start < mark.start < k.end < mark.end or mark.start < k.start < mark.end < k.end
            for k in kept
        )
        (dropped if crossing else kept).append(mark)
    return sorted(kept, key=lambda m: (m.start, -m.end)), dropped


def write_marks(text: str, marks: Iterable[Mark]) -> str:
    """``text`` with ``marks`` as tags; ``marks`` nest properly and are in writing order."""
    pieces: list[str] = []
    ends: list[int] = []
    position = 0
    for mark in marks:
        while ends and ends[-1] <= mark.start:
            pieces += (text[position : ends[-1]], CLOSING)
            position = ends.pop()
        pieces += (text[position : mark.start], mark.opening)
        position = mark.start
        ends.append(mark.end)
    while ends:
        pieces += (text[position : ends[-1]], CLOSING)
        position = ends.pop()
    pieces.append(text[position:])
    return "".join(pieces)


def split_answer(answer: str) -> list[str]:
    """The pieces of a marked-up text in order: tags, and the stretches of text between them.

    No piece is empty, and joined they are ``answer``. Tokenised one by one they give the same
    tokens for a text whether tags stand in it or not. Prompts can be split in the same way.
    """
    pieces: list[str] = []
    position = 0
    for tag in TAG.finditer(answer):
        pieces += (answer[position : tag.start()], tag.group())
        position = tag.end()
    pieces.append(answer[position:])
    return [piece for piece in pieces if piece]
