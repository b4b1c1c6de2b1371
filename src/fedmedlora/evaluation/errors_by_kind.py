"""One gold and one predicted document in; its errors, each of one kind, out.

The kinds follow the rules of scoring (docs/scoring.md). Items that agree strictly are right and
leave first; of what is left, every item is told once, by the first of these that it meets:

1. wrong type: the same place under another type (right if types are ignored);
2. wrong boundary: the same type, not the same place, with an overlap (right by lenient matching);
3. wrong head: a relation whose modifier is right, span and type, but whose head is elsewhere;
4. missed, if it is gold's, and spurious, if it was predicted.

A pair (1 to 3) is one error; strict scoring counts it as a false positive and a false negative.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from fedmedlora.evaluation.matching import Place, pair_relations, pair_spans
from fedmedlora.evaluation.tally import TASKS, Task, covered_types
from fedmedlora.schema import Document

Kind = Literal["missed", "spurious", "wrong type", "wrong boundary", "wrong head"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, slots=True)
class DocumentError:
    """One error in one document.

    Attributes:
        task: of which it is an error.
        kind: see the module.
        type: gold's type; of a spurious item, the predicted one.
        predicted_type: the predicted type; ``None`` of a missed item.
        gold: ids of gold's entities: the span, or head and modifier of a relation; empty if the
            item is spurious.
        predicted: ids of the prediction's entities likewise; empty if the item was missed.
    """

    task: Task
    kind: Kind
    type: str
    predicted_type: str | None
    gold: tuple[str, ...]
    predicted: tuple[str, ...]


class _Item(NamedTuple):
    place: Place
    type: str
    ids: tuple[str, ...]


_Pairs = list[tuple[int, int]]


def find_errors(
    gold: Document,
    predicted: Document | None,
    *,
    modifiers: frozenset[str],
    covers: frozenset[str] | None = None,
    tasks: Sequence[Task] = TASKS,
) -> list[DocumentError]:
    """The errors of a prediction, by task, kind and place.

    What the annotators did not cover is set aside on both sides, and repeated items are one, as
    in ``tally_documents``.

    Args:
        gold: the annotated document; its own ``covers`` restrict further.
        predicted: of the same text; ``None`` predicts nothing.
        modifiers: types that count as modifiers; all others are entities.
        covers: types that the cohort's annotators covered; ``None`` is all.
        tasks: which to compare. The caller leaves out what gold does not state: the entities of a
            prediction whose heads were given, the relations of a cohort that has none.
    """
    asked = covered_types(gold, covers)
    errors: list[DocumentError] = []
    for task in (name for name in TASKS if name in tasks):
        left = _items(gold, task, modifiers, asked)
        answered = {} if predicted is None else _items(predicted, task, modifiers, asked)
        right = left.keys() & answered.keys()
        errors += _compare(
            task,
            [item for key, item in left.items() if key not in right],
            [item for key, item in answered.items() if key not in right],
        )
    return errors


def _items(
    document: Document, task: Task, modifiers: frozenset[str], asked: frozenset[str] | None
) -> Mapping[tuple[str, Place], _Item]:
    """One task's items by type and place, each once, in order of place."""
    found: list[_Item] = []
    if task == "relations":
        by_id = {entity.id: entity for entity in document.entities}
        for relation in document.relations:
            head, tail = by_id[relation.head], by_id[relation.tail]
            if asked is None or (head.type in asked and tail.type in asked):
                place = (head.start, head.end, tail.start, tail.end)
                found.append(_Item(place, tail.type, (head.id, tail.id)))
    else:
        found += [
            _Item((entity.start, entity.end), entity.type, (entity.id,))
            for entity in document.entities
            if (entity.type in modifiers) == (task == "modifiers")
            and (asked is None or entity.type in asked)
        ]
    items: dict[tuple[str, Place], _Item] = {}
    for item in sorted(found, key=lambda item: (item.place[-2:], item.place, item.type)):
        items.setdefault((item.type, item.place), item)
    return items


def _compare(task: Task, gold: list[_Item], predicted: list[_Item]) -> list[DocumentError]:
    errors = []
    steps: list[tuple[Kind, Callable[[list[_Item], list[_Item]], _Pairs]]] = [
        ("wrong type", _same_place),
        ("wrong boundary", _overlapping),
    ]
    if task == "relations":
        steps.append(("wrong head", _same_modifier))
    for kind, pair in steps:
        pairs = pair(gold, predicted)
        for one, other in sorted(pairs):
            ours, theirs = gold[one], predicted[other]
            errors.append(DocumentError(task, kind, ours.type, theirs.type, ours.ids, theirs.ids))
        gold = _without(gold, {one for one, _ in pairs})
        predicted = _without(predicted, {other for _, other in pairs})
    errors += [DocumentError(task, "missed", i.type, None, i.ids, ()) for i in gold]
    errors += [DocumentError(task, "spurious", i.type, i.type, (), i.ids) for i in predicted]
    return errors


def _without(items: list[_Item], taken: set[int]) -> list[_Item]:
    return [item for place, item in enumerate(items) if place not in taken]


def _pair_equal(gold: Sequence[object], predicted: Sequence[object]) -> _Pairs:
    """Pairs of equal keys, first with first."""
    places: dict[object, list[int]] = {}
    for place, key in enumerate(predicted):
        places.setdefault(key, []).append(place)
    return [(place, places[key].pop(0)) for place, key in enumerate(gold) if places.get(key)]


def _same_place(gold: list[_Item], predicted: list[_Item]) -> _Pairs:
    return _pair_equal([item.place for item in gold], [item.place for item in predicted])


def _same_modifier(gold: list[_Item], predicted: list[_Item]) -> _Pairs:
    return _pair_equal(
        [(item.type, item.place[2:]) for item in gold],
        [(item.type, item.place[2:]) for item in predicted],
    )


def _overlapping(gold: list[_Item], predicted: list[_Item]) -> _Pairs:
    """A maximum matching of items of one type, for every type."""
    found: _Pairs = []
    for name in sorted({item.type for item in gold}):
        ours = [place for place, item in enumerate(gold) if item.type == name]
        theirs = [place for place, item in enumerate(predicted) if item.type == name]
        places = [gold[n].place for n in ours], [predicted[n].place for n in theirs]
        match = pair_relations if ours and len(places[0][0]) == 4 else pair_spans
        found += [(ours[one], theirs[other]) for one, other in match(*places)]
    return found
