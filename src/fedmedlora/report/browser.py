"""Gold and predictions in, the error browser's data out.

The text of notes is in it only if the study says ``report: {include_text: true}``; otherwise it
holds ids of documents and counts of errors, and nothing else of any note.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, zip_longest
from typing import Any

from fedmedlora.errors import RunError
from fedmedlora.evaluation.errors_by_kind import KINDS, DocumentError, find_errors
from fedmedlora.evaluation.records import SCORED_OF
from fedmedlora.evaluation.tally import TASKS, Task, covered_types, modifier_types
from fedmedlora.report.run import Run
from fedmedlora.schema import Document


@dataclass(frozen=True)
class Browser:
    """What the page's script reads.

    Attributes:
        content: plain data; see ``make_browser``.
        with_text: whether it holds the notes.
        shown: documents in it, of ``total``; fewer if not all fit.
    """

    content: Mapping[str, Any]
    with_text: bool
    shown: int
    total: int


@dataclass(frozen=True)
class _Answered:
    """One method's predictions on one cohort: task asked for -> document id -> document."""

    place: int
    documents: Mapping[str, Mapping[str, Document]]
    modifiers: frozenset[str]


def make_browser(run: Run, *, room: int) -> Browser | None:
    """The browser's data; ``None`` if the run kept no gold or no predictions.

    If not everything fits, documents are taken in order, one of each cohort in turn, until the
    next one does not.

    Args:
        room: bytes that the data may take in the page.

    Raises:
        RunError: gold or predictions are broken, or of different texts.
    """
    types = _all_types(run)
    lists = {name: list(_documents(run, name, types)) for name in run.cohorts}
    lists = {name: documents for name, documents in lists.items() if documents}
    if not lists:
        return None
    kept: dict[str, list[dict[str, Any]]] = {name: [] for name in lists}
    left = room
    for name, document in _in_turn(lists):
        left -= len(embed_json(document).encode()) + 1
        if left < 0:
            break
        kept[name].append(document)
    content = {
        "text": run.include_text,
        "kinds": KINDS,
        "tasks": TASKS,
        "types": types,
        "mains": [place for place, name in enumerate(types) if name not in _modifiers(run)],
        "methods": [method.label for method in run.methods],
        "cohorts": [
            {
                "name": name,
                "tasks": [place for place, task in enumerate(TASKS) if task in _scored(run, name)],
                "total": len(lists[name]),
                "documents": documents,
            }
            for name, documents in kept.items()
        ],
    }
    return Browser(
        content=content,
        with_text=run.include_text,
        shown=sum(map(len, kept.values())),
        total=sum(map(len, lists.values())),
    )


def embed_json(content: object) -> str:
    """JSON that may stand in an HTML script element, whatever its strings say."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _in_turn(lists: Mapping[str, list[dict[str, Any]]]) -> Iterator[tuple[str, dict[str, Any]]]:
    for row in zip_longest(*lists.values()):
        yield from ((name, one) for name, one in zip(lists, row, strict=True) if one is not None)


def _modifiers(run: Run) -> frozenset[str]:
    return frozenset(run.scheme.modifiers)


def _all_types(run: Run) -> list[str]:
    found = {r.type for r in run.scores} - {"micro", "macro"} - set(run.scheme.types)
    return [*run.scheme.types, *sorted(found)]


def _scored(run: Run, cohort: str) -> frozenset[str]:
    return frozenset(r.task for r in run.scores if r.cohort == cohort)


def _documents(run: Run, cohort: str, types: list[str]) -> Iterator[dict[str, Any]]:
    gold = run.gold(cohort)
    if gold is None:
        return
    part = run.data.cohorts.get(cohort)
    covers = frozenset(part.covers) if part is not None and part.covers else None
    answered = _answered(run, cohort, gold)
    if not answered:
        return
    scored = _scored(run, cohort)
    for document in gold:
        # Types that no score has: set aside everywhere, so never listed; known to the page here.
        for entity in document.entities:
            if entity.type not in types:
                types.append(entity.type)
        yield _document(document, answered, covers=covers, scored=scored, types=types, run=run)


def _answered(run: Run, cohort: str, gold: Sequence[Document]) -> list[_Answered]:
    texts = {document.id: document.text for document in gold}
    found = []
    for place, method in enumerate(run.methods):
        documents = {}
        for asked in SCORED_OF:
            read = run.predictions(method.label, asked, cohort)
            if read is None:
                continue
            for document in read:
                if texts.get(document.id) != document.text:
                    raise RunError(
                        f"{run.path}/predictions/{method.label}/{asked}/{cohort}.jsonl: document "
                        f"{document.id!r} is not gold's; make the predictions again with rescore"
                    )
            documents[asked] = {document.id: document for document in read}
        if documents:
            every = [document for by_id in documents.values() for document in by_id.values()]
            modifiers = modifier_types(gold, every, scheme=run.scheme)
            found.append(_Answered(place, documents, modifiers))
    return found


def _document(
    document: Document,
    answered: Sequence[_Answered],
    *,
    covers: frozenset[str] | None,
    scored: frozenset[str],
    types: list[str],
    run: Run,
) -> dict[str, Any]:
    errors: list[tuple[int, DocumentError, Document | None]] = []
    for one in answered:
        for asked, by_id in one.documents.items():
            tasks: list[Task] = [task for task in SCORED_OF[asked] if task in scored]
            predicted = by_id.get(document.id)
            found = find_errors(
                document, predicted, modifiers=one.modifiers, covers=covers, tasks=tasks
            )
            errors += [(one.place, error, predicted) for error in found]
    if not run.include_text:
        counts = Counter(
            (place, TASKS.index(e.task), KINDS.index(e.kind)) for place, e, _ in errors
        )
        return {"id": document.id, "counts": [[*key, n] for key, n in sorted(counts.items())]}
    units = _utf16(document.text)
    known = covered_types(document, covers)
    return {
        "id": document.id,
        "text": document.text,
        "asked": None if known is None else [n for n, name in enumerate(types) if name in known],
        "gold": _spans(document, units, types),
        "links": _links(document),
        "answers": [
            {
                "method": one.place,
                "task": asked,
                "spans": _spans(by_id[document.id], units, types),
                "links": _links(by_id[document.id]),
            }
            for one in answered
            for asked, by_id in one.documents.items()
            if document.id in by_id
        ],
        "errors": [_error(place, e, document, predicted, types) for place, e, predicted in errors],
    }


def _error(
    place: int,
    error: DocumentError,
    gold: Document,
    predicted: Document | None,
    types: Sequence[str],
) -> list[Any]:
    """[method, task, kind, type, predicted type or -1, places in gold, places in predicted]."""
    ours = {entity.id: n for n, entity in enumerate(gold.entities)}
    theirs = {entity.id: n for n, entity in enumerate(predicted.entities)} if predicted else {}
    return [
        place,
        TASKS.index(error.task),
        KINDS.index(error.kind),
        types.index(error.type),
        -1 if error.predicted_type is None else types.index(error.predicted_type),
        [ours[name] for name in error.gold],
        [theirs[name] for name in error.predicted],
    ]


def _spans(
    document: Document, units: Callable[[int], int], types: list[str]
) -> list[tuple[int, int, int]]:
    for entity in document.entities:
        if entity.type not in types:
            types.append(entity.type)
    return [
        (units(entity.start), units(entity.end), types.index(entity.type))
        for entity in document.entities
    ]


def _links(document: Document) -> list[tuple[int, int]]:
    """(head, modifier) as places in the document's entities."""
    places = {entity.id: n for n, entity in enumerate(document.entities)}
    return [(places[relation.head], places[relation.tail]) for relation in document.relations]


def _utf16(text: str) -> Callable[[int], int]:
    """From characters to the units that a page's script counts in: two for those past U+FFFF."""
    if not text or max(text) <= "\uffff":
        return lambda offset: offset
    sums = [0, *accumulate(1 + (character > "\uffff") for character in text)]
    return lambda offset: sums[offset]
