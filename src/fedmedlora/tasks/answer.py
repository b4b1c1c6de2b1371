"""One answer in, what it says of the document out: grounded spans, and counts of all the rest.

An answer's text without tags is aligned to the source that it should copy. A span is taken over
only if its words copy consecutive words of the source, differences of case and white space aside;
its offsets are then those of the note's own words.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fedmedlora.schema import Entity, Scheme
from fedmedlora.tasks.align import AMBIGUOUS, UNALIGNED, Word, align_words, read_words
from fedmedlora.tasks.example import Example
from fedmedlora.tasks.parse import Parsed, TagSpan, parse_answer, parse_opening
from fedmedlora.tasks.read_counts import ReadCounts

#: Where a span lies in the source, or the name of the count of spans that lie nowhere.
Place = tuple[int, int] | str


@dataclass(frozen=True, slots=True)
class Said:
    """One thing that an answer says.

    Attributes:
        type: a type of the scheme, asked for.
        start: first character in the document.
        end: one past the last.
        head: modifiers: the main entity that it belongs to; entities: None.
    """

    type: str
    start: int
    end: int
    head: Entity | None


def read_answer(example: Example, answer: str, *, scheme: Scheme) -> tuple[list[Said], ReadCounts]:
    """What ``answer`` says, in the order of its tags, and what became of all its spans."""
    parsed = parse_answer(answer, source=example.source)
    exact = parsed.text == example.source
    ground, readable = (_exact_place, True) if exact else _grounding(parsed, example.source)
    allowed = _Allowed(example, scheme)
    said: list[Said] = []
    tally: Counter[str] = Counter()
    for span in parsed.spans:
        place = ground(span)
        for verdict in allowed.verdicts(span):
            if isinstance(verdict, str):
                tally[verdict] += 1
            elif isinstance(place, str):
                tally[place] += 1
            else:
                name, head = verdict
                said.append(Said(name, example.start + place[0], example.start + place[1], head))
    return said, ReadCounts(
        answers=1,
        unreadable=not readable,
        changed=not exact,
        truncated=parsed.truncated,
        spans=len(said) + tally.total() + parsed.unclosed + parsed.malformed,
        accepted=len(said),
        unclosed=parsed.unclosed,
        malformed=parsed.malformed,
        stray_closings=parsed.stray,
        **tally,
    )


class _Allowed:
    """What the tags of answers to one example may say."""

    def __init__(self, example: Example, scheme: Scheme) -> None:
        self._scheme = scheme
        self._names = {name.casefold(): name for name in scheme.types}
        self._names |= {name: name for name in scheme.types}
        self._asked = {parse_opening(tag) for tag in example.openings}
        self._numbered = any(number is not None for _, number in self._asked)
        self._heads: dict[str | None, Entity] = {
            str(number) if self._numbered else None: head
            for number, head in enumerate(example.heads, start=1)
        }

    def verdicts(self, span: TagSpan) -> list[tuple[str, Entity | None] | str]:
        """For each head that the tag names: type and head, or the reason why neither counts."""
        written = span.type or ""
        name = self._names.get(written) or self._names.get(written.casefold())
        if name is None:
            return ["unknown_class"]
        if not self._numbered:
            return [self._verdict(name, None)]
        numbers = re.split(r"[\s,;]+", span.head or "")
        return [self._verdict(name, number) for number in dict.fromkeys(numbers)]

    def _verdict(self, name: str, number: str | None) -> tuple[str, Entity | None] | str:
        head = self._heads.get(number)
        if (name, number) in self._asked:
            return name, head
        if not self._heads or name in self._scheme.mains:
            return "unasked"
        if head is None:
            return "unknown_head"
        return "unasked" if self._scheme.valid(head.type, name) else "invalid_pair"


def _exact_place(span: TagSpan) -> Place:
    """The place of a span of an answer that copies its source character by character."""
    return (span.start, span.end) if span.start < span.end else "blank"


def _grounding(parsed: Parsed, source: str) -> tuple[Callable[[TagSpan], Place], bool]:
    """How to place the spans of a changed answer, and whether any of its words has a place."""
    source_words, answer_words = read_words(source), read_words(parsed.text)
    places = align_words([w.key for w in source_words], [w.key for w in answer_words])

    def ground(span: TagSpan) -> Place:
        return _place(span, source_words, answer_words, places)

    return ground, any(place != UNALIGNED for place in places)


def _place(
    span: TagSpan, source: Sequence[Word], answer: Sequence[Word], places: Sequence[int]
) -> Place:
    first = bisect_right(answer, span.start, key=lambda word: word.end)
    last = bisect_left(answer, span.end, key=lambda word: word.start)
    if span.start == span.end or first >= last:
        return "blank"
    mine = places[first:last]
    if UNALIGNED in mine:
        return "changed_words"
    if AMBIGUOUS in mine:
        return "ambiguous"
    if any(place != mine[0] + number for number, place in enumerate(mine)):
        return "dropped_words"
    start = _offset(answer[first], source[mine[0]], max(span.start - answer[first].start, 0))
    end = _offset(
        answer[last - 1],
        source[mine[-1]],
        min(span.end, answer[last - 1].end) - answer[last - 1].start,
    )
    return "changed_words" if start is None or end is None else (start, end)


def _offset(written: Word, word: Word, inside: int) -> int | None:
    """Where an offset into a written word lies in the source's word; None if that is not exact."""
    if inside == 0:
        return word.start
    if inside == len(written.text):
        return word.end
    same = written.text[:inside].casefold() == word.text[:inside].casefold()
    return word.start + inside if same and len(written.text) == len(word.text) else None
