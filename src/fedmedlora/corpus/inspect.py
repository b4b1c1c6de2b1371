"""What is in a set of documents: counts by type, coverage, span problems. Ids and counts only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from fedmedlora.corpus.account import Table, count_rows
from fedmedlora.corpus.overlaps import count_overlaps
from fedmedlora.schema import Document, Entity, Scheme


@dataclass(frozen=True, slots=True)
class Inspection:
    """Counts over a set of documents.

    Attributes:
        documents, characters, words: totals; words are parted by white space.
        without_annotation: documents without a span.
        groups: different groups; documents without one count one each.
        longest: (document id, characters) of the longest document.
        longest_line: (document id, characters) of the longest line.
        entities: type -> spans.
        entity_documents: type -> documents with such a span.
        relations: (head's type, relation's type) -> relations.
        covers: type -> documents that say their annotators looked for it.
        covers_unstated: documents that do not say what was looked for.
        outside_covers: type -> spans of a type that their document says was not looked for.
        outside_scheme: type -> spans of a type that the scheme does not have.
        overlaps: "duplicate", "same place", "nested", "crossing" -> pairs of spans.
        space_edged: spans that start or end with white space.
        mid_word: spans that start or end between two letters or digits.
        over_lines: spans with a line break inside.
        invalid_pairs: (head's type, modifier's type) -> relations that the scheme does not allow.
        mistyped_relations: relations whose type is not their modifier's.
        repeated_relations: relations that are in their document already.
        headless: modifier type -> spans that no relation ties to a head.
    """

    documents: int
    characters: int
    words: int
    without_annotation: int
    groups: int
    longest: tuple[str, int]
    longest_line: tuple[str, int]
    entities: Mapping[str, int]
    entity_documents: Mapping[str, int]
    relations: Mapping[tuple[str, str], int]
    covers: Mapping[str, int]
    covers_unstated: int
    outside_covers: Mapping[str, int]
    outside_scheme: Mapping[str, int]
    overlaps: Mapping[str, int]
    space_edged: int
    mid_word: int
    over_lines: int
    invalid_pairs: Mapping[tuple[str, str], int]
    mistyped_relations: int
    repeated_relations: int
    headless: Mapping[str, int]


def inspect_documents(documents: Sequence[Document], scheme: Scheme) -> Inspection:
    """Count what ``documents`` hold, and what in them breaks or strains ``scheme``."""
    entities: Counter[str] = Counter()
    entity_documents: Counter[str] = Counter()
    relations: Counter[tuple[str, str]] = Counter()
    covers: Counter[str] = Counter()
    outside_covers: Counter[str] = Counter()
    overlaps: Counter[str] = Counter()
    invalid: Counter[tuple[str, str]] = Counter()
    headless: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for document in documents:
        types = {e.id: e.type for e in document.entities}
        entities.update(types.values())
        entity_documents.update(set(types.values()))
        covers.update(document.covers or ())
        if document.covers is not None:
            outside_covers.update(t for t in types.values() if t not in document.covers)
        overlaps.update(count_overlaps(document.entities))
        for entity in document.entities:
            counts.update(_strains(document.text, entity))
        tails = {r.tail for r in document.relations}
        headless.update(t for i, t in types.items() if t in scheme.modifiers and i not in tails)
        counts["repeated"] += len(document.relations) - len(set(document.relations))
        for relation in document.relations:
            head, tail = types[relation.head], types[relation.tail]
            relations[head, relation.type] += 1
            counts["mistyped"] += relation.type != tail
            if not scheme.valid(head, tail):
                invalid[head, tail] += 1
    return Inspection(
        documents=len(documents),
        characters=sum(len(d.text) for d in documents),
        words=sum(len(d.text.split()) for d in documents),
        without_annotation=sum(not d.entities for d in documents),
        groups=len({d.group for d in documents} - {None}) + sum(d.group is None for d in documents),
        longest=_longest((d.id, len(d.text)) for d in documents),
        longest_line=_longest(
            (d.id, max(map(len, d.text.splitlines()), default=0)) for d in documents
        ),
        entities=dict(entities),
        entity_documents=dict(entity_documents),
        relations=dict(relations),
        covers=dict(covers),
        covers_unstated=sum(d.covers is None for d in documents),
        outside_covers=dict(outside_covers),
        outside_scheme={t: n for t, n in entities.items() if t not in scheme.types},
        overlaps=dict(overlaps),
        space_edged=counts["space"],
        mid_word=counts["mid-word"],
        over_lines=counts["lines"],
        invalid_pairs=dict(invalid),
        mistyped_relations=counts["mistyped"],
        repeated_relations=counts["repeated"],
        headless=dict(headless),
    )


def as_rows(inspection: Inspection) -> list[Table]:
    """The inspection as tables of cells, ready to print; empty ones are left out."""
    totals: list[tuple[str, ...]] = [
        ("documents", str(inspection.documents)),
        ("without annotation", str(inspection.without_annotation)),
        ("groups", str(inspection.groups)),
        ("characters", str(inspection.characters)),
        ("words", str(inspection.words)),
        ("longest document", f"{inspection.longest[1]} characters ({inspection.longest[0]})"),
        (
            "longest line",
            f"{inspection.longest_line[1]} characters ({inspection.longest_line[0]})",
        ),
    ]
    types: list[tuple[str, ...]] = [
        (name, count, str(inspection.entity_documents[name]))
        for name, count in count_rows(inspection.entities)
    ]
    coverage: list[tuple[str, ...]] = count_rows(inspection.covers)
    if inspection.covers_unstated:
        coverage.append(("not stated", str(inspection.covers_unstated)))
    problems = {
        **{f"{name} (pairs)": count for name, count in inspection.overlaps.items()},
        "white space at an edge": inspection.space_edged,
        "edge inside a word": inspection.mid_word,
        "line break inside": inspection.over_lines,
        "relation's type is not its modifier's": inspection.mistyped_relations,
        "relation said twice": inspection.repeated_relations,
    }
    tables: list[Table] = [
        ("documents", totals),
        ("spans: type, spans, documents", types),
        ("relations: head, modifier, relations", count_rows(inspection.relations)),
        ("coverage: type, documents", coverage),
        ("span and relation problems", count_rows({k: n for k, n in problems.items() if n})),
        ("invalid pairs: head, modifier, relations", count_rows(inspection.invalid_pairs)),
        ("modifiers without a head", count_rows(inspection.headless)),
        ("types outside the scheme", count_rows(inspection.outside_scheme)),
        ("types outside their document's coverage", count_rows(inspection.outside_covers)),
    ]
    return [(heading, rows) for heading, rows in tables if rows]


def _strains(text: str, entity: Entity) -> list[str]:
    found = []
    inside = text[entity.start : entity.end]
    if inside != inside.strip():
        found.append("space")
    if _within_word(text, entity.start) or _within_word(text, entity.end):
        found.append("mid-word")
    if "\n" in inside or "\r" in inside:
        found.append("lines")
    return found


def _within_word(text: str, at: int) -> bool:
    return 0 < at < len(text) and text[at - 1].isalnum() and text[at].isalnum()


def _longest(sizes: Iterable[tuple[str, int]]) -> tuple[str, int]:
    return max(sizes, key=lambda size: size[1], default=("none", 0))
