"""Answers in, predicted documents out, with exact offsets whatever the model wrote.

What cannot be grounded in the note's own text is counted by reason, never guessed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fedmedlora.errors import SchemaError
from fedmedlora.schema import Document, Entity, Relation, Scheme
from fedmedlora.tasks.answer import Said, read_answer
from fedmedlora.tasks.example import Example
from fedmedlora.tasks.markup import mask
from fedmedlora.tasks.read_counts import ReadCounts

__all__ = ["CohortReading", "ReadCounts", "Reading", "predict_documents", "read_answers"]


@dataclass(frozen=True, slots=True)
class Reading:
    """A document as the model sees it, and what could not be read.

    Attributes:
        document: entities task: the predicted main entities; modifiers task: the main entities
            given, the predicted modifiers and their relations.
        counts: what became of answers and spans.
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
    by_task: dict[str, dict[str, list[tuple[Example, str]]]] = {task: {} for task in tasks}
    for example, answer in answers:
        if example.document not in known:
            raise SchemaError(
                f"example {example.id!r} belongs to document {example.document!r}, which is not "
                f"one of the {len(known)} documents given"
            )
        by_document = by_task.setdefault(example.task, {})
        by_document.setdefault(example.document, []).append((example, answer))
    result: dict[str, CohortReading] = {}
    for task, by_document in by_task.items():
        readings = [
            read_answers(document, by_document.get(document.id, ()), scheme=scheme, task=task)
            for document in documents
        ]
        result[task] = CohortReading(
            documents=tuple(reading.document for reading in readings),
            counts=sum((reading.counts for reading in readings), ReadCounts()),
        )
    return result


def read_answers(
    document: Document,
    answers: Sequence[tuple[Example, str]],
    *,
    scheme: Scheme,
    task: str | None = None,
) -> Reading:
    """Read all answers of one task about one document.

    A modifier of one type and span that is found for several heads becomes one entity with a
    relation to each.

    Args:
        document: the document that the examples were built from. Of its annotation only the main
            entities are used, in the modifiers task: they were given.
        answers: examples with what the model answered, byte for byte.
        scheme: as the examples were built with.
        task: needed only where ``answers`` is empty.

    Raises:
        SchemaError: answers of several tasks, or to another document or text.
    """
    task = task or (answers[0][0].task if answers else "entities")
    _check(document, answers, task)
    said: list[Said] = []
    counts = ReadCounts()
    for example, answer in answers:
        more, read = read_answer(example, answer, scheme=scheme)
        said += more
        counts += read
    given = [
        entity
        for entity in document.entities
        if task == "modifiers" and entity.type in scheme.mains
    ]
    predicted = _entities(said, scheme, taken={entity.id for entity in given})
    relations = _relations(said, given, predicted)
    facts = len(relations) if task == "modifiers" else len(predicted)
    return Reading(
        document=Document(
            id=document.id,
            text=document.text,
            entities=(*given, *predicted),
            relations=relations,
            group=document.group,
            covers=document.covers,
        ),
        counts=counts + ReadCounts(repeated=len(said) - facts),
    )


def _check(document: Document, answers: Iterable[tuple[Example, str]], task: str) -> None:
    entities = {entity.id: entity for entity in document.entities}
    for example, _ in answers:
        if example.document != document.id:
            raise SchemaError(
                f"example {example.id!r} belongs to document {example.document!r}, "
                f"not to {document.id!r}"
            )
        if example.task != task:
            raise SchemaError(
                f"example {example.id!r} is of the task {example.task!r}, not {task!r}: read the "
                "answers of each task by themselves"
            )
        if mask(document.text[example.start : example.end]) != example.source:
            raise SchemaError(
                f"example {example.id!r} was not built from the text of document "
                f"{document.id!r}: characters [{example.start}, {example.end}) differ"
            )
        for head in example.heads:
            if entities.get(head.id) != head:
                raise SchemaError(
                    f"example {example.id!r} shows the main entity {head.id!r}, which document "
                    f"{document.id!r} does not have, or not there"
                )


def _entities(said: Iterable[Said], scheme: Scheme, *, taken: set[str]) -> tuple[Entity, ...]:
    """One entity for each type and span said, in text order, with ids that are not taken."""
    order = {name: number for number, name in enumerate(scheme.types)}
    spans = sorted({(one.start, one.end, order[one.type], one.type) for one in said})
    free = (f"P{n}" for n in range(1, len(spans) + len(taken) + 1) if f"P{n}" not in taken)
    return tuple(
        Entity(name, type_name, start, end)
        for (start, end, _, type_name), name in zip(spans, free, strict=False)
    )


def _relations(
    said: Iterable[Said], given: Sequence[Entity], predicted: Sequence[Entity]
) -> tuple[Relation, ...]:
    """One relation for each head and modifier said, in the order of heads, then of the text."""
    ids = {(entity.type, entity.start, entity.end): entity.id for entity in predicted}
    rank = {entity.id: number for number, entity in enumerate([*given, *predicted])}
    pairs = {
        (one.head.id, ids[one.type, one.start, one.end], one.type)
        for one in said
        if one.head is not None
    }
    return tuple(
        Relation(type_name, head, tail)
        for head, tail, type_name in sorted(pairs, key=lambda pair: (rank[pair[0]], rank[pair[1]]))
    )
