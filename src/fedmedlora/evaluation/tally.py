"""Gold and predicted documents in; counts a document and type, as arrays that add, out.

Everything that decides what is scored is here: which types are entities and which modifiers, which
types the annotators covered, what a repeated prediction is, and which documents belong together.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fedmedlora.errors import DataError
from fedmedlora.evaluation.counts import Counts
from fedmedlora.evaluation.matching import Place, count_exact, match_relations, match_spans
from fedmedlora.schema import Document, Scheme, observed_types

Task = Literal["entities", "modifiers", "relations"]
Matching = Literal["strict", "lenient"]

TASKS: tuple[Task, ...] = get_args(Task)
MATCHINGS: tuple[Matching, ...] = get_args(Matching)
#: Places in the last axis of ``TaskTally.typed``; the two matchings come first, in their order.
PREDICTED, GOLD = 2, 3

#: Type, type of the head (``None`` for a span), place.
Item = tuple[str, str | None, Place]


@dataclass(frozen=True, eq=False)
class TaskTally:
    """The counts of one task, a document at a time. Equal to itself alone.

    Attributes:
        documents: ids, in the order of the gold documents.
        strata: number of documents of each cohort that was put together here; sums to the number
            of documents.
        types: the types that occur in gold or in predictions.
        typed: int64 of shape (documents, types, 4): strict true positives, lenient true positives,
            predicted, gold.
        agnostic: int64 of shape (documents, 2): strict and lenient true positives if types are
            ignored. Predicted and gold are those of ``typed``, summed over types.
        set_aside: predictions outside what the annotators covered: neither right nor wrong.
        gold_set_aside: gold annotations outside it.
    """

    documents: tuple[str, ...]
    strata: tuple[int, ...]
    types: tuple[str, ...]
    typed: NDArray[np.int64]
    agnostic: NDArray[np.int64]
    set_aside: int = 0
    gold_set_aside: int = 0

    def counts(self, matching: Matching, type_name: str) -> Counts:
        """The counts of one type over all documents; zero for a type that never occurs."""
        if type_name not in self.types:
            return Counts()
        row = self.typed[:, self.types.index(type_name)].sum(axis=0)
        return Counts(int(row[MATCHINGS.index(matching)]), int(row[PREDICTED]), int(row[GOLD]))

    def micro(self, matching: Matching, *, agnostic: bool = False) -> Counts:
        """The counts over all documents and types."""
        row = self.typed.sum(axis=(0, 1))
        place = MATCHINGS.index(matching)
        tp = self.agnostic[:, place].sum() if agnostic else row[place]
        return Counts(int(tp), int(row[PREDICTED]), int(row[GOLD]))


@dataclass(frozen=True)
class Tally:
    """The counts of one method on one cohort, or on cohorts put together.

    Attributes:
        tasks: task -> its counts; a task that is not scored here is absent.
        missing: gold documents without a predicted document. They count as predicting nothing.
        unscored: predicted relations of a cohort whose relations were not annotated.
    """

    tasks: Mapping[Task, TaskTally]
    missing: int = 0
    unscored: int = 0


def tally_documents(
    gold: Sequence[Document],
    predicted: Sequence[Document],
    *,
    scheme: Scheme,
    covers: frozenset[str] | None = None,
    tasks: Sequence[Task] = TASKS,
) -> Tally:
    """Count what one method got right in one cohort.

    Documents pair by id. A gold document without a prediction counts as predicting nothing. Types
    that a document's annotators did not cover are set aside on both sides: a document's own
    ``covers`` and the argument ``covers`` restrict together, and ``None`` restricts nothing.

    Relations are scored only where gold may be taken to state them: a cohort whose gold has
    modifiers but not one relation was not annotated for relations, and its predicted relations are
    counted in ``Tally.unscored``.

    Args:
        gold: the annotated documents; their ``covers`` are honoured.
        predicted: at most one for each gold document, with the same text.
        scheme: says which types are main entities and which modifiers. A type that it does not
            know is a modifier if a relation has it as its tail, and an entity otherwise.
        covers: types that the cohort's annotators covered.
        tasks: what to score. A document that holds given heads beside predicted modifiers must
            not be scored for entities.

    Raises:
        DataError: an id twice, a prediction for an unknown document or for another text, or a
            type named like a mean ("micro", "macro").
    """
    predictions = _pair(gold, predicted)
    modifiers = modifier_types(gold, predicted, scheme=scheme)
    nothing = Document(id="", text="")
    tallies: dict[Task, TaskTally] = {}
    unscored = 0
    for task in (name for name in TASKS if name in tasks):
        gold_items = [_items(document, task=task, modifiers=modifiers) for document in gold]
        predicted_items = [
            _items(predictions.get(document.id, nothing), task=task, modifiers=modifiers)
            for document in gold
        ]
        if task == "relations" and not any(gold_items) and observed_types(gold) & modifiers:
            unscored = sum(map(len, predicted_items))
            continue
        asked = [covered_types(document, covers) for document in gold]
        gold_kept = [_restrict(items, c) for items, c in zip(gold_items, asked, strict=True)]
        kept = [_restrict(items, c) for items, c in zip(predicted_items, asked, strict=True)]
        found = {item[0] for items in (*gold_kept, *kept) for item in items}
        if clash := found & {"micro", "macro"}:
            raise DataError(f"a type may not be named {clash.pop()!r}: rename it in the data")
        types = _in_order(found, scheme)
        typed, agnostic = _count(gold_kept, kept, task=task, types=types)
        tallies[task] = TaskTally(
            documents=tuple(document.id for document in gold),
            strata=(len(gold),),
            types=types,
            typed=typed,
            agnostic=agnostic,
            set_aside=sum(map(len, predicted_items)) - sum(map(len, kept)),
            gold_set_aside=sum(map(len, gold_items)) - sum(map(len, gold_kept)),
        )
    return Tally(tasks=tallies, missing=len(gold) - len(predictions), unscored=unscored)


def pool_tallies(tallies: Sequence[Tally], *, scheme: Scheme) -> Tally:
    """Put cohorts together: documents are lined up, so every count is the sum of the cohorts'.

    A task is pooled over the cohorts in which it was scored.
    """
    pooled: dict[Task, TaskTally] = {}
    for task in TASKS:
        parts = [tally.tasks[task] for tally in tallies if task in tally.tasks]
        if not parts:
            continue
        types = _in_order({name for part in parts for name in part.types}, scheme)
        typed = np.zeros((sum(len(part.documents) for part in parts), len(types), 4), np.int64)
        first = 0
        for part in parts:
            last = first + len(part.documents)
            typed[first:last, [types.index(name) for name in part.types]] = part.typed
            first = last
        pooled[task] = TaskTally(
            documents=tuple(name for part in parts for name in part.documents),
            strata=tuple(size for part in parts for size in part.strata),
            types=types,
            typed=typed,
            agnostic=np.concatenate([part.agnostic for part in parts]),
            set_aside=sum(part.set_aside for part in parts),
            gold_set_aside=sum(part.gold_set_aside for part in parts),
        )
    return Tally(
        tasks=pooled,
        missing=sum(tally.missing for tally in tallies),
        unscored=sum(tally.unscored for tally in tallies),
    )


def covered_types(document: Document, covers: frozenset[str] | None) -> frozenset[str] | None:
    """The types to be scored in ``document``: those in its ``covers`` and in ``covers``.

    ``None``, on either side, restricts nothing; ``None`` is returned if both are.
    """
    if document.covers is None or covers is None:
        return covers if document.covers is None else document.covers
    return document.covers & covers


def _in_order(types: Iterable[str], scheme: Scheme) -> tuple[str, ...]:
    """Scheme order, then the types that the scheme lacks by name."""
    rank = {name: place for place, name in enumerate(scheme.types)}
    return tuple(sorted(types, key=lambda name: (rank.get(name, len(rank)), name)))


def _pair(gold: Sequence[Document], predicted: Sequence[Document]) -> dict[str, Document]:
    """Predicted documents by id, each checked against its gold document."""
    texts: dict[str, str] = {}
    for document in gold:
        if document.id in texts:
            raise DataError(f"gold has two documents with the id {document.id!r}")
        texts[document.id] = document.text
    predictions: dict[str, Document] = {}
    for document in predicted:
        if document.id in predictions:
            raise DataError(f"the predictions have two documents with the id {document.id!r}")
        if document.id not in texts:
            raise DataError(
                f"the predictions have a document {document.id!r} that gold does not have: "
                "score each cohort against its own gold"
            )
        text = texts[document.id]
        if document.text != text:
            same = next(
                (n for n, (a, b) in enumerate(zip(document.text, text, strict=False)) if a != b),
                min(len(document.text), len(text)),
            )
            raise DataError(
                f"document {document.id!r}: the prediction's text is not gold's ("
                f"{len(document.text)} against {len(text)} characters, first difference at "
                f"character {same}); offsets into another text cannot be scored"
            )
        predictions[document.id] = document
    return predictions


def modifier_types(
    gold: Sequence[Document], predicted: Sequence[Document], *, scheme: Scheme
) -> frozenset[str]:
    """The types that count as modifiers; gold decides for the types that the scheme lacks."""
    by_gold, by_prediction = _tail_types(gold), _tail_types(predicted)
    unknown = (by_gold | (by_prediction - observed_types(gold))) - set(scheme.mains)
    return frozenset(scheme.modifiers) | unknown


def _tail_types(documents: Iterable[Document]) -> frozenset[str]:
    types: set[str] = set()
    for document in documents:
        tails = {relation.tail for relation in document.relations}
        types.update(entity.type for entity in document.entities if entity.id in tails)
    return frozenset(types)


def _items(document: Document, *, task: Task, modifiers: frozenset[str]) -> set[Item]:
    """One task's annotations. A set, so that a repeated one is one."""
    if task == "relations":
        by_id = {entity.id: entity for entity in document.entities}
        ends = ((by_id[relation.head], by_id[relation.tail]) for relation in document.relations)
        return {
            (tail.type, head.type, (head.start, head.end, tail.start, tail.end))
            for head, tail in ends
        }
    return {
        (entity.type, None, (entity.start, entity.end))
        for entity in document.entities
        if (entity.type in modifiers) == (task == "modifiers")
    }


def _restrict(items: set[Item], covers: frozenset[str] | None) -> set[Item]:
    """The items of covered types and, for relations, of covered head types."""
    if covers is None:
        return items
    return {item for item in items if item[0] in covers and (item[1] is None or item[1] in covers)}


def _by_type(items: set[Item]) -> dict[str, list[Place]]:
    """The places of each type. A relation's head is a span: heads of two types are one there."""
    places: dict[str, set[Place]] = defaultdict(set)
    for name, _, place in items:
        places[name].add(place)
    return {name: sorted(found) for name, found in places.items()}


def _count(
    gold: Sequence[set[Item]],
    predicted: Sequence[set[Item]],
    *,
    task: Task,
    types: Sequence[str],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """``TaskTally.typed`` and ``TaskTally.agnostic`` of documents in the same order."""
    match = match_relations if task == "relations" else match_spans
    column = {name: place for place, name in enumerate(types)}
    typed = np.zeros((len(gold), len(types), 4), np.int64)
    agnostic = np.zeros((len(gold), 2), np.int64)
    for row, (gold_items, items) in enumerate(zip(gold, predicted, strict=True)):
        right, answered = _by_type(gold_items), _by_type(items)
        for name in right.keys() | answered.keys():
            ours, theirs = answered.get(name, []), right.get(name, [])
            typed[row, column[name]] = (
                count_exact(theirs, ours),
                match(theirs, ours),
                len(ours),
                len(theirs),
            )
        every_right = [place for places in right.values() for place in places]
        every_answer = [place for places in answered.values() for place in places]
        agnostic[row] = count_exact(every_right, every_answer), match(every_right, every_answer)
    return typed, agnostic
