"""The entities task: documents in, one example a window out that asks for main entities."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fedmedlora.schema import Document, Entity, Scheme
from fedmedlora.tasks.build_report import BuildReport
from fedmedlora.tasks.example import Example
from fedmedlora.tasks.markup import drop_crossing, mask, opening_tag, write_marks
from fedmedlora.tasks.placing import check_covers, covered_types, mark_entity, place_entities
from fedmedlora.tasks.prompts import entities_prompt
from fedmedlora.tasks.settings import TaskSettings
from fedmedlora.tasks.windows import Window, cut_windows


def build_entities(
    documents: Iterable[Document],
    *,
    covers: frozenset[str],
    scheme: Scheme,
    settings: TaskSettings,
) -> tuple[list[Example], BuildReport]:
    """Examples that ask for main entities, one a window, in the order of documents and windows.

    A window without any entity makes an example too: its answer is a plain copy. Arguments and
    errors as for :func:`fedmedlora.tasks.build.build_examples`.
    """
    check_covers(covers, scheme)
    examples: list[Example] = []
    report = BuildReport()
    for document in documents:
        covered = covered_types(document, covers)
        asked = [name for name in scheme.mains if name in covered]
        if not asked:
            report += BuildReport(documents=1, unasked=1)
            continue
        windows = cut_windows(document.text, words=settings.window_words)
        gold = [entity for entity in document.entities if entity.type in asked]
        distinct = _distinct(gold, asked)
        placed, cut = place_entities(distinct, windows)
        crossing = 0
        for window, inside in zip(windows, placed, strict=True):
            example, dropped = _example(
                document, window, inside, asked=asked, scheme=scheme, settings=settings
            )
            examples.append(example)
            crossing += dropped
        report += BuildReport(
            documents=1,
            windows=len(windows),
            entity_examples=len(windows),
            entities=len(gold),
            entities_cut=cut,
            entities_crossing=crossing,
            entities_repeated=len(gold) - len(distinct),
        )
    return examples, report


def _example(
    document: Document,
    window: Window,
    inside: Sequence[Entity],
    *,
    asked: Sequence[str],
    scheme: Scheme,
    settings: TaskSettings,
) -> tuple[Example, int]:
    """One window's example, and how many of its entities cross a longer one and are left out."""
    source = mask(document.text[window.start : window.end])
    marks, crossing = drop_crossing(
        [mark_entity(entity, window, opening_tag(entity.type)) for entity in inside]
    )
    example = Example(
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
    return example, len(crossing)


def _distinct(entities: Iterable[Entity], types: Sequence[str]) -> list[Entity]:
    """One entity for each span and type, those of one span in the order of ``types``."""
    order = {name: number for number, name in enumerate(types)}
    first: dict[tuple[int, int, int], Entity] = {}
    for entity in entities:
        first.setdefault((entity.start, entity.end, order[entity.type]), entity)
    return [first[key] for key in sorted(first)]
