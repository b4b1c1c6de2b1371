"""Answers in, predicted documents out, with exact offsets whatever the model wrote.

An answer's text without tags is aligned to the source that it should copy. A span is taken over
only if its words copy consecutive words of the source, differences of case and white space aside;
its offsets are then those of the note's own words. All else is counted by reason.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

from fedmedlora.errors import SchemaError
from fedmedlora.schema import Document, Entity, Relation, Scheme
from fedmedlora.tasks.align import AMBIGUOUS, UNALIGNED, Word, align_words, read_words
from fedmedlora.tasks.example import Example
from fedmedlora.tasks.markup import mask
from fedmedlora.tasks.parse import TagSpan, parse_answer, parse_opening


@dataclass(frozen=True, slots=True)
class ReadCounts:
    """What happened to the answers and to the spans in them; counts add up.

    Attributes:
        answers: answers read.
        unreadable: of them, those in which no word of the source could be found again.
        changed: of them, those whose text is not the source's, character by character.
        truncated: of them, those that end inside a tag.
        spans: tags opened.
        accepted: of them, grounded and allowed: what is predicted, before equal ones are merged.
        unclosed: of them, never closed.
        malformed: of them, not a complete tag.
        unknown_class: of them, with a class that the scheme does not have, or none.
        unasked: of them, of a type of the scheme that the prompt did not ask for.
        unknown_head: of them, with a number that the prompt did not show, or none.
        invalid_pair: of them, a modifier that its head may not take.
        changed_words: of them, with a word that the source does not have there.
        dropped_words: of them, with words that are not consecutive in the source.
        ambiguous: of them, with a word that may be one of several in the source.
        blank: of them, without any word.
        stray_closings: closing tags that close nothing; no span.
        repeated: accepted spans (and heads) that another has said already.
    """

    answers: int = 0
    unreadable: int = 0
    changed: int = 0
    truncated: int = 0
    spans: int = 0
    accepted: int = 0
    unclosed: int = 0
    malformed: int = 0
    unknown_class: int = 0
    unasked: int = 0
    unknown_head: int = 0
    invalid_pair: int = 0
    changed_words: int = 0
    dropped_words: int = 0
    ambiguous: int = 0
    blank: int = 0
    stray_closings: int = 0
    repeated: int = 0

    def __add__(self, other: ReadCounts) -> ReadCounts:
        return ReadCounts(
            *(getattr(self, f.name) + getattr(other, f.name) for f in fields(ReadCounts))
        )


@dataclass(frozen=True, slots=True)
class Reading:
    """A document as the model sees it, and what could not be read.

    Attributes:
        document: entities task: the predicted main entities; modifiers task: the main entities
            given, the predicted modifiers and their relations.
        counts: what happened to answers and spans.
    """

    document: Document
    counts: ReadCounts


@dataclass(frozen=True, slots=True)
class CohortReading:
    """Predicted documents of one task, in the order of the documents, and the summed counts."""

    documents: tuple[Document, ...]
    counts: ReadCounts


def predict_documents(
    documents: Iterable[Document],
    answers: Iterable[tuple[Example, str]],
    *,
    scheme: Scheme,
    tasks: Sequence[str] = (),
) -> dict[str, CohortReading]:
    """Read the answers of a whole cohort: task -> predicted documents, one for each document.

    Args:
        documents: the cohort, ids unique; documents without an answer have no prediction.
        answers: examples of these documents with what the model answered, in any order.
        scheme: as the examples were built with.
        tasks: tasks to have in the result even if no answer belongs to them.

    Raises:
        SchemaError: an answer to a document that is not there, or of another text.
    """
    documents = list(documents)
    known = {document.id for document in documents}
    sorted_answers: dict[str, dict[str, list[tuple[Example, str]]]] = {task: {} for task in tasks}
    for example, answer in answers:
        if example.document not in known:
            raise SchemaError(
                f"example {example.id!r} belongs to document {example.document!r}, which is not "
                f"one of the {len(known)} documents given"
            )
        mine = sorted_answers.setdefault(example.task, {})
        mine.setdefault(example.document, []).append((example, answer))
    result: dict[str, CohortReading] = {}
    for task, by_document in sorted_answers.items():
        readings = [
            read_answers(document, by_document.get(document.id, ()), scheme=scheme, task=task)
            for document in documents
        ]
        counts = sum((reading.counts for reading in readings), ReadCounts())
        result[task] = CohortReading(tuple(reading.document for reading in readings), counts)
    return result


def read_answers(
    document: Document,
    answers: Sequence[tuple[Example, str]],
    *,
    scheme: Scheme,
    task: str | None = None,
) -> Reading:
    """Read all answers of one task about one document.

    Args:
        document: the document that the examples were built from. Of its annotation only the main
            entities are used, in the modifiers task: they were given.
        answers: examples with what the model answered, byte for byte.
        scheme: as the examples were built with.
        task: needed only where ``answers`` is empty.

    Raises:
        SchemaError: answers of several tasks, or to another document or text.
    """
    _check(document, answers, task)
    task = answers[0][0].task if answers else task
    counts = ReadCounts()
    said: list[tuple[Entity | None, str, int, int]] = []
    for example, answer in answers:
        spans, more = _read_answer(example, answer, scheme)
        counts += more
        said += spans
    order = {name: number for number, name in enumerate(scheme.types)}
    distinct = sorted(
        {(start, end, order[name], name) for _, name, start, end in said},
    )
    given = (
        [entity for entity in document.entities if entity.type in scheme.mains]
        if task == "modifiers"
        else []
    )
    ids = _new_ids(len(distinct), {entity.id for entity in given})
    predicted = [
        Entity(name_id, name, start, end)
        for name_id, (start, end, _, name) in zip(ids, distinct, strict=True)
    ]
    by_span = {(entity.type, entity.start, entity.end): entity.id for entity in predicted}
    pairs = {
        (head.id, by_span[name, start, end], name)
        for head, name, start, end in said
        if head is not None
    }
    rank = {entity.id: number for number, entity in enumerate([*given, *predicted])}
    relations = tuple(
        Relation(name, head, tail)
        for head, tail, name in sorted(pairs, key=lambda pair: (rank[pair[0]], rank[pair[1]]))
    )
    facts = len(pairs) if task == "modifiers" else len(distinct)
    counts += ReadCounts(repeated=len(said) - facts)
    return Reading(
        Document(
            id=document.id,
            text=document.text,
            entities=(*given, *predicted),
            relations=relations,
            group=document.group,
            covers=document.covers,
        ),
        counts,
    )


def _check(document: Document, answers: Sequence[tuple[Example, str]], task: str | None) -> None:
    given = {entity.id: entity for entity in document.entities}
    for example, _ in answers:
        if example.document != document.id:
            raise SchemaError(
                f"example {example.id!r} belongs to document {example.document!r}, "
                f"not to {document.id!r}"
            )
        if example.task != (task or answers[0][0].task):
            raise SchemaError(
                f"example {example.id!r} is of the task {example.task!r}, others are of "
                f"{task or answers[0][0].task!r}: read each task by itself"
            )
        if mask(document.text[example.start : example.end]) != example.source:
            raise SchemaError(
                f"example {example.id!r} was not built from the text of document "
                f"{document.id!r}: characters [{example.start}, {example.end}) differ"
            )
        for head in example.heads:
            if given.get(head.id) != head:
                raise SchemaError(
                    f"example {example.id!r} shows the main entity {head.id!r}, which document "
                    f"{document.id!r} does not have, or has elsewhere"
                )


def _new_ids(count: int, taken: set[str]) -> list[str]:
    ids: list[str] = []
    number = 0
    while len(ids) < count:
        number += 1
        if f"P{number}" not in taken:
            ids.append(f"P{number}")
    return ids


def _read_answer(
    example: Example, answer: str, scheme: Scheme
) -> tuple[list[tuple[Entity | None, str, int, int]], ReadCounts]:
    """What one answer says: (head or None, type, start, end in the document), and the counts."""
    parsed = parse_answer(answer, source=example.source)
    exact = parsed.text == example.source
    source_words, answer_words = read_words(example.source), read_words(parsed.text)
    places = (
        list(range(len(source_words)))
        if exact
        else align_words([w.key for w in source_words], [w.key for w in answer_words])
    )
    tally = dict.fromkeys(
        ("accepted", "unknown_class", "unasked", "unknown_head", "invalid_pair", *_REASONS), 0
    )
    said: list[tuple[Entity | None, str, int, int]] = []
    names = _Names(example, scheme)
    opened = len(parsed.spans)
    for span in parsed.spans:
        allowed = names.resolve(span)
        opened += len(allowed) - 1
        place = (
            (span.start, span.end) if exact else _ground(span, source_words, answer_words, places)
        )
        if exact and span.start == span.end:
            place = "blank"
        for verdict in allowed:
            if isinstance(verdict, str):
                tally[verdict] += 1
            elif isinstance(place, str):
                tally[place] += 1
            else:
                tally["accepted"] += 1
                head, name = verdict
                said.append((head, name, example.start + place[0], example.start + place[1]))
    return said, ReadCounts(
        answers=1,
        unreadable=not exact and all(place == UNALIGNED for place in places),
        changed=not exact,
        truncated=parsed.truncated,
        spans=opened + parsed.unclosed + parsed.malformed,
        unclosed=parsed.unclosed,
        malformed=parsed.malformed,
        stray_closings=parsed.stray,
        **tally,
    )


_REASONS = ("changed_words", "dropped_words", "ambiguous", "blank")


class _Names:
    """What the tags of one example's answers may say."""

    def __init__(self, example: Example, scheme: Scheme) -> None:
        self._scheme = scheme
        self._types = {name.casefold(): name for name in scheme.types}
        openings = [parse_opening(tag) for tag in example.openings]
        self._asked = {(name, head) for name, head in openings}
        self._numbered = any(head is not None for _, head in openings)
        self._heads = {str(n): head for n, head in enumerate(example.heads, start=1)}
        self._only = example.heads[0] if example.heads and not self._numbered else None

    def resolve(self, span: TagSpan) -> list[tuple[Entity | None, str] | str]:
        """For each head that the tag names: (head or None, type), or the reason why not."""
        written = span.type or ""
        name = written if written in self._scheme.types else self._types.get(written.casefold())
        if name is None:
            return ["unknown_class"]
        if not self._numbered:
            return [self._verdict(name, None, self._only)]
        numbers = re.split(r"[\s,;]+", span.head or "")
        return [self._verdict(name, number, self._heads.get(number)) for number in numbers]

    def _verdict(
        self, name: str, number: str | None, head: Entity | None
    ) -> tuple[Entity | None, str] | str:
        if (name, number) in self._asked:
            return head, name
        if name in self._scheme.mains or not any(asked == name for asked, _ in self._asked):
            pair_known = head is not None and name in self._scheme.modifiers
            if pair_known and head is not None and not self._scheme.valid(head.type, name):
                return "invalid_pair"
            return "unasked"
        return "unknown_head" if head is None else "invalid_pair"


def _ground(
    span: TagSpan,
    source: Sequence[Word],
    answer: Sequence[Word],
    places: Sequence[int],
) -> tuple[int, int] | str:
    """The span's offsets in the source, or the reason why it has none."""
    first = bisect_right(answer, span.start, key=lambda word: word.end)
    last = bisect_left(answer, span.end, key=lambda word: word.start)
    if first >= last:
        return "blank"
    mine = places[first:last]
    if UNALIGNED in mine:
        return "changed_words"
    if AMBIGUOUS in mine:
        return "ambiguous"
    if any(place != mine[0] + number for number, place in enumerate(mine)):
        return "dropped_words"
    start = _inside(answer[first], source[mine[0]], span.start, edge="start")
    end = _inside(answer[last - 1], source[mine[-1]], span.end, edge="end")
    if start is None or end is None:
        return "changed_words"
    return start, end


def _inside(written: Word, word: Word, offset: int, *, edge: str) -> int | None:
    """Where in the source an offset into the answer lies: at the word's edge, or exactly inside."""
    if edge == "start" and offset <= written.start:
        return word.start
    if edge == "end" and offset >= written.end:
        return word.end
    if written.end - written.start != word.end - word.start:
        return None
    return word.start + offset - written.start
