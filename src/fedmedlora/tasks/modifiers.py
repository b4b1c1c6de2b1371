"""The modifiers task: documents whose main entities are given in, examples out.

``heads="marked"``: one example a main entity, which alone is marked in the prompt; the answer's
tags need not say whose a modifier is. ``heads="numbered"``: one example a window, in which all main
entities are marked and numbered; each tag of the answer names one of them, and a modifier of
several is tagged once for each, one tag inside the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from fedmedlora.schema import Document, Entity, Scheme
from fedmedlora.tasks.build_report import BuildReport
from fedmedlora.tasks.example import Example
from fedmedlora.tasks.markup import Mark, drop_crossing, mask, opening_tag, write_marks
from fedmedlora.tasks.placing import check_covers, covered_types, mark_entity, place_entities
from fedmedlora.tasks.prompts import marked_prompt, numbered_prompt
from fedmedlora.tasks.settings import TaskSettings
from fedmedlora.tasks.windows import Window, cut_windows


@dataclass(frozen=True, slots=True)
class _Question:
    """What does not change within a document.

    Attributes:
        asked: main entity type -> the modifier types to ask for, in scheme order.
        gold: id of a main entity -> its modifiers that lie in its own window.
        scheme: for definitions.
        settings: for heads and prompt.
    """

    asked: Mapping[str, Sequence[str]]
    gold: Mapping[str, Sequence[Entity]]
    scheme: Scheme
    settings: TaskSettings


def build_modifiers(
    documents: Iterable[Document],
    *,
    covers: frozenset[str],
    scheme: Scheme,
    settings: TaskSettings,
) -> tuple[list[Example], BuildReport]:
    """Examples that ask for the modifiers of given main entities, in the order of the text.

    The main entities are those of the documents, annotated or predicted, of every type that may
    take a covered modifier. A window without one makes no example. Arguments and errors as for
    :func:`fedmedlora.tasks.build.build_examples`.
    """
    check_covers(covers, scheme)
    examples: list[Example] = []
    report = BuildReport()
    for document in documents:
        covered = covered_types(document, covers)
        asked = {
            head: [m for m in scheme.modifiers if m in covered and scheme.valid(head, m)]
            for head in scheme.mains
        }
        if not any(asked.values()):
            report += BuildReport(documents=1, unasked=1)
            continue
        windows = cut_windows(document.text, words=settings.window_words)
        gold, counts = _gold(document, asked, windows)
        question = _Question(asked, gold, scheme, settings)
        made, more = _ask(document, windows, question)
        examples += made
        report += counts + more
    return examples, report


def _ask(
    document: Document, windows: Sequence[Window], question: _Question
) -> tuple[list[Example], BuildReport]:
    """All examples of one document."""
    order = {name: number for number, name in enumerate(question.scheme.mains)}
    heads = sorted(
        (entity for entity in document.entities if question.asked.get(entity.type)),
        key=lambda head: (head.start, -head.end, order[head.type]),
    )
    placed, cut = place_entities(heads, windows)
    examples: list[Example] = []
    hidden = unsaid = 0
    for window, inside in zip(windows, placed, strict=True):
        groups = [[head] for head in inside]
        if question.settings.heads == "numbered" and inside:
            shown = _shown(inside, window)
            lost = [head for head in inside if head not in shown]
            hidden += len(lost)
            unsaid += sum(len(question.gold.get(head.id, ())) for head in lost)
            groups = [shown]
        for group in groups:
            example, dropped = _example(document, window, group, question=question)
            examples.append(example)
            unsaid += dropped
    return examples, BuildReport(
        documents=1,
        windows=len(windows),
        modifier_examples=len(examples),
        heads_cut=cut,
        heads_crossing=hidden,
        relations_crossing=unsaid,
    )


def _shown(heads: Sequence[Entity], window: Window) -> list[Entity]:
    """Those of ``heads`` that can be marked in one text, in the order in which they open."""
    named = {str(number): head for number, head in enumerate(heads)}
    kept, _ = drop_crossing([mark_entity(head, window, name) for name, head in named.items()])
    return [named[mark.opening] for mark in kept]


def _example(
    document: Document, window: Window, heads: Sequence[Entity], *, question: _Question
) -> tuple[Example, int]:
    """One example, and how many of its relations are left out because modifiers cross."""
    settings, scheme, asked = question.settings, question.scheme, question.asked
    source = mask(document.text[window.start : window.end])
    numbered = settings.heads == "numbered"
    shown: list[Mark] = []
    marks: list[Mark] = []
    openings: list[str] = []
    for number, head in enumerate(heads, start=1):
        name = number if numbered else None
        shown.append(mark_entity(head, window, opening_tag(head.type, number=name)))
        openings += [opening_tag(modifier, head=name) for modifier in asked[head.type]]
        marks += [
            mark_entity(modifier, window, opening_tag(modifier.type, head=name))
            for modifier in question.gold.get(head.id, ())
        ]
    kept, crossing = drop_crossing(marks)
    text = write_marks(source, shown)
    if numbered:
        types = [m for m in scheme.modifiers if any(m in names for names in asked.values())]
        prompt = numbered_prompt(types, text, style=settings.prompt, scheme=scheme)
    else:
        types = list(asked[heads[0].type])
        prompt = marked_prompt(
            types, text, head=heads[0].type, style=settings.prompt, scheme=scheme
        )
    example = Example(
        id=f"{document.id}:modifiers:{window.start}-{window.end}"
        + ("" if numbered else f":{heads[0].id}"),
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
    return example, len(crossing)


def _gold(
    document: Document, asked: Mapping[str, Sequence[str]], windows: Sequence[Window]
) -> tuple[dict[str, list[Entity]], BuildReport]:
    """Each main entity's modifiers that an answer about its window can name, in text order."""
    entities = {entity.id: entity for entity in document.entities}
    types = {name for names in asked.values() for name in names}
    placed, _ = place_entities(document.entities, windows)
    place = {entity.id: number for number, inside in enumerate(placed) for entity in inside}
    found: dict[str, dict[tuple[int, int, str], Entity]] = {}
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
            key = (modifier.start, -modifier.end, modifier.type)
            repeated += key in mine
            mine.setdefault(key, modifier)
    related = {relation.tail for relation in document.relations}
    unrelated = sum(e.type in types and e.id not in related for e in document.entities)
    return {head: [mine[key] for key in sorted(mine)] for head, mine in found.items()}, BuildReport(
        relations=total,
        relations_invalid=invalid,
        relations_cut=cut,
        relations_apart=apart,
        relations_repeated=repeated,
        modifiers_unrelated=unrelated,
    )
