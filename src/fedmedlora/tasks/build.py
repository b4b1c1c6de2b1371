"""Documents in, examples out: one a window for entities, one a head or a window for modifiers.

Whatever of the annotation no answer can say (a span that a window's edge cuts, a modifier whose
head lies in another window, spans that cross) is counted in the report, never silently lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

from fedmedlora.errors import SchemaError
from fedmedlora.schema import Document, Entity, Scheme
from fedmedlora.tasks.example import Example
from fedmedlora.tasks.markup import Mark, drop_crossing, mask, opening_tag, write_marks
from fedmedlora.tasks.prompts import entities_prompt, marked_prompt, numbered_prompt
from fedmedlora.tasks.settings import TaskSettings
from fedmedlora.tasks.windows import Window, cut_windows


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What was asked and what of the annotation no example could hold; reports add up.

    Attributes:
        documents: documents read, once for each task.
        unasked: of them, those for which nothing is covered that the task could ask for.
        windows: windows cut, once for each task.
        entity_examples: examples made for the entities task.
        modifier_examples: examples made for the modifiers task.
        entities: main entities of asked types.
        entities_cut: of them, cut by a window's edge.
        entities_crossing: of them, left out because they cross a longer one.
        entities_repeated: of them, left out because another has the same span and type.
        heads_cut: main entities that no modifiers prompt shows whole: a window's edge cuts them.
        heads_crossing: numbered heads not shown because they cross a longer one.
        relations: relations of covered modifier types.
        relations_invalid: of them, with a head or type that the scheme does not allow.
        relations_cut: of them, with a head or modifier that a window's edge cuts.
        relations_apart: of them, with head and modifier in different windows.
        relations_crossing: of them, left out because spans cross.
        relations_repeated: of them, left out because another says the same.
        modifiers_unrelated: modifiers of covered types that belong to no head: never in an answer.
    """

    documents: int = 0
    unasked: int = 0
    windows: int = 0
    entity_examples: int = 0
    modifier_examples: int = 0
    entities: int = 0
    entities_cut: int = 0
    entities_crossing: int = 0
    entities_repeated: int = 0
    heads_cut: int = 0
    heads_crossing: int = 0
    relations: int = 0
    relations_invalid: int = 0
    relations_cut: int = 0
    relations_apart: int = 0
    relations_crossing: int = 0
    relations_repeated: int = 0
    modifiers_unrelated: int = 0

    def __add__(self, other: BuildReport) -> BuildReport:
        return BuildReport(
            *(getattr(self, f.name) + getattr(other, f.name) for f in fields(BuildReport))
        )


def build_examples(
    documents: Iterable[Document],
    *,
    covers: frozenset[str],
    scheme: Scheme,
    settings: TaskSettings,
) -> tuple[list[Example], BuildReport]:
    """The examples of ``settings.tasks``, task by task, in the order of documents and windows.

    Args:
        documents: with gold annotation; without it the answers are plain copies.
        covers: the types that the site or cohort annotates; a document that covers fewer is asked
            for fewer.
        scheme: types, definitions and valid pairs.
        settings: tasks, windows and prompts.

    Raises:
        SchemaError: ``covers`` names a type that the scheme does not have.
    """
    documents = list(documents)
    build = {"entities": build_entities, "modifiers": build_modifiers}
    examples: list[Example] = []
    report = BuildReport()
    for task in settings.tasks:
        made, counts = build[task](documents, covers=covers, scheme=scheme, settings=settings)
        examples += made
        report += counts
    return examples, report


def build_entities(
    documents: Iterable[Document],
    *,
    covers: frozenset[str],
    scheme: Scheme,
    settings: TaskSettings,
) -> tuple[list[Example], BuildReport]:
    """Examples that ask for main entities, one a window; see :func:`build_examples`."""
    _check_covers(covers, scheme)
    examples: list[Example] = []
    report = BuildReport()
    for document in documents:
        asked = [name for name in scheme.mains if name in _covered(document, covers)]
        if not asked:
            report += BuildReport(documents=1, unasked=1)
            continue
        windows = cut_windows(document.text, words=settings.window_words)
        gold = [entity for entity in document.entities if entity.type in asked]
        distinct = _distinct(gold, asked)
        placed = _place(distinct, windows)
        kept = 0
        crossing = 0
        for window, inside in zip(windows, placed, strict=True):
            source = mask(document.text[window.start : window.end])
            marks, dropped = drop_crossing(
                _mark(entity, window, opening_tag(entity.type)) for entity in inside
            )
            crossing += len(dropped)
            kept += len(inside)
            examples.append(
                Example(
                    id=f"{document.id}:entities:{window.start}-{window.end}",
                    task="entities",
                    document=document.id,
                    start=window.start,
                    end=window.end,
                    prompt=entities_prompt(asked, source, style=settings.prompt, scheme=scheme),
                    source=source,
                    answer=write_marks(source, marks),
                    openings=tuple(opening_tag(name) for name in asked),
                    heads=(),
                )
            )
        report += BuildReport(
            documents=1,
            windows=len(windows),
            entity_examples=len(windows),
            entities=len(gold),
            entities_cut=len(distinct) - kept,
            entities_crossing=crossing,
            entities_repeated=len(gold) - len(distinct),
        )
    return examples, report


def build_modifiers(
    documents: Iterable[Document],
    *,
    covers: frozenset[str],
    scheme: Scheme,
    settings: TaskSettings,
) -> tuple[list[Example], BuildReport]:
    """Examples that ask for the modifiers of given main entities; see :func:`build_examples`.

    The main entities are those of the documents, whether annotated or predicted, of any type that
    may take a covered modifier. A window without such an entity makes no example.
    """
    _check_covers(covers, scheme)
    examples: list[Example] = []
    report = BuildReport()
    for document in documents:
        covered = _covered(document, covers)
        asked = {
            head: [
                name for name in scheme.modifiers if name in covered and scheme.valid(head, name)
            ]
            for head in scheme.mains
        }
        if not any(asked.values()):
            report += BuildReport(documents=1, unasked=1)
            continue
        made, counts = _document_modifiers(document, asked, scheme=scheme, settings=settings)
        examples += made
        report += counts
    return examples, report


def _document_modifiers(
    document: Document, asked: dict[str, list[str]], *, scheme: Scheme, settings: TaskSettings
) -> tuple[list[Example], BuildReport]:
    windows = cut_windows(document.text, words=settings.window_words)
    heads = sorted(
        (entity for entity in document.entities if asked.get(entity.type)),
        key=lambda entity: (entity.start, entity.end, entity.id),
    )
    placed = _place(heads, windows)
    modifiers, report = _gold_modifiers(document, asked, windows, scheme=scheme)
    examples: list[Example] = []
    crossing_heads = 0
    unsaid = 0
    for window, inside in zip(windows, placed, strict=True):
        if not inside:
            continue
        if settings.heads == "marked":
            groups = [[head] for head in inside]
        else:
            shown, hidden = drop_crossing(_mark(head, window, head.id) for head in inside)
            crossing_heads += len(hidden)
            names = {mark.opening for mark in hidden}
            unsaid += sum(len(modifiers.get(name, ())) for name in names)
            groups = [[head for head in inside if head.id not in names]]
            del shown
        for group in groups:
            example, dropped = _modifiers_example(
                document, window, group, asked, modifiers, scheme=scheme, settings=settings
            )
            examples.append(example)
            unsaid += dropped
    report += BuildReport(
        documents=1,
        windows=len(windows),
        modifier_examples=len(examples),
        heads_cut=len(heads) - sum(map(len, placed)),
        heads_crossing=crossing_heads,
        relations_crossing=unsaid,
    )
    return examples, report


def _modifiers_example(
    document: Document,
    window: Window,
    heads: Sequence[Entity],
    asked: dict[str, list[str]],
    modifiers: dict[str, list[Entity]],
    *,
    scheme: Scheme,
    settings: TaskSettings,
) -> tuple[Example, int]:
    """One example and the number of relations that it leaves out because spans cross."""
    source = mask(document.text[window.start : window.end])
    numbered = settings.heads == "numbered"
    marks: list[Mark] = []
    shown: list[Mark] = []
    openings: list[str] = []
    for number, head in enumerate(heads, start=1):
        name = number if numbered else None
        shown.append(_mark(head, window, opening_tag(head.type, number=name)))
        openings += [opening_tag(modifier, head=name) for modifier in asked[head.type]]
        marks += [
            _mark(modifier, window, opening_tag(modifier.type, head=name))
            for modifier in modifiers.get(head.id, ())
        ]
    kept, dropped = drop_crossing(marks)
    text = write_marks(source, drop_crossing(shown)[0])
    if numbered:
        types = [
            name for name in scheme.modifiers if any(name in names for names in asked.values())
        ]
        prompt = numbered_prompt(types, text, style=settings.prompt, scheme=scheme)
        suffix = ""
    else:
        types = asked[heads[0].type]
        prompt = marked_prompt(heads[0].type, types, text, style=settings.prompt, scheme=scheme)
        suffix = f":{heads[0].id}"
    example = Example(
        id=f"{document.id}:modifiers:{window.start}-{window.end}{suffix}",
        task="modifiers",
        document=document.id,
        start=window.start,
        end=window.end,
        prompt=prompt,
        source=source,
        answer=write_marks(source, kept),
        openings=tuple(openings),
        heads=tuple(heads),
    )
    return example, len(dropped)


def _gold_modifiers(
    document: Document,
    asked: dict[str, list[str]],
    windows: Sequence[Window],
    *,
    scheme: Scheme,
) -> tuple[dict[str, list[Entity]], BuildReport]:
    """For each head the modifiers that an answer in its window can name, in scheme order."""
    entities = {entity.id: entity for entity in document.entities}
    types = {name for names in asked.values() for name in names}
    related = {relation.tail for relation in document.relations}
    place = {
        entity.id: number
        for number, inside in enumerate(_place(document.entities, windows))
        for entity in inside
    }
    order = {name: number for number, name in enumerate(scheme.modifiers)}
    found: dict[str, dict[tuple[str, int, int], Entity]] = {}
    total = invalid = cut = apart = repeated = 0
    for relation in document.relations:
        head, modifier = entities[relation.head], entities[relation.tail]
        if relation.type not in types:
            continue
        total += 1
        if relation.type != modifier.type or relation.type not in asked.get(head.type, ()):
            invalid += 1
        elif head.id not in place or modifier.id not in place:
            cut += 1
        elif place[head.id] != place[modifier.id]:
            apart += 1
        else:
            mine = found.setdefault(head.id, {})
            key = (modifier.type, modifier.start, modifier.end)
            repeated += key in mine
            mine.setdefault(key, modifier)
    report = BuildReport(
        relations=total,
        relations_invalid=invalid,
        relations_cut=cut,
        relations_apart=apart,
        relations_repeated=repeated,
        modifiers_unrelated=sum(
            entity.type in types and entity.id not in related for entity in document.entities
        ),
    )
    ordered = {
        head: sorted(mine.values(), key=lambda m: (order[m.type], m.start, m.end))
        for head, mine in found.items()
    }
    return ordered, report


def _check_covers(covers: frozenset[str], scheme: Scheme) -> None:
    unknown = sorted(covers.difference(scheme.types))
    if unknown:
        raise SchemaError(
            f"covers names types that the scheme does not have: {', '.join(unknown)}; "
            f"its types are {', '.join(scheme.types)}"
        )


def _covered(document: Document, covers: frozenset[str]) -> frozenset[str]:
    return covers if document.covers is None else covers & document.covers


def _distinct(entities: Iterable[Entity], types: Sequence[str]) -> list[Entity]:
    """One entity for each span and type, those of one span in the order of ``types``."""
    order = {name: number for number, name in enumerate(types)}
    first: dict[tuple[int, int, int], Entity] = {}
    for entity in entities:
        first.setdefault((entity.start, entity.end, order[entity.type]), entity)
    return [first[key] for key in sorted(first)]


def _place(entities: Iterable[Entity], windows: Sequence[Window]) -> list[list[Entity]]:
    """For each window the entities that lie whole in it, in the order given within a start."""
    placed: list[list[Entity]] = [[] for _ in windows]
    number = 0
    for entity in sorted(entities, key=lambda entity: entity.start):
        while number < len(windows) and windows[number].end <= entity.start:
            number += 1
        if number < len(windows):
            window = windows[number]
            if window.start <= entity.start and entity.end <= window.end:
                placed[number].append(entity)
    return placed


def _mark(entity: Entity, window: Window, opening: str) -> Mark:
    return Mark(entity.start - window.start, entity.end - window.start, opening)
