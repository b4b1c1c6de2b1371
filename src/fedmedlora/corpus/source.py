"""What a reader hands to the mapping: a document in its source's own types, nothing resolved yet.

Spans may still have several fragments and relations any named arguments; the mapping turns both
into the data model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fedmedlora.schema import Document


@dataclass(frozen=True, slots=True)
class SourceSpan:
    """A span as its source has it.

    Attributes:
        id: unique within its document.
        type: the source's own type.
        fragments: half-open character ranges, ascending; more than one where it is discontinuous,
            none where its place and the text that the source gives for it contradict each other.
    """

    id: str
    type: str
    fragments: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class SourceRelation:
    """A relation as its source has it.

    Attributes:
        type: the source's own type.
        arguments: role -> span id.
    """

    type: str
    arguments: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class SourceDocument:
    """A document before mapping.

    Attributes:
        id, text, group, covers: as in ``Document``.
        spans, relations: in the order of the source; relations point to spans of this document.
        extras: field of ``ReadReport`` -> type -> count, for what the data model has no place for.
    """

    id: str
    text: str
    spans: tuple[SourceSpan, ...] = ()
    relations: tuple[SourceRelation, ...] = ()
    group: str | None = None
    covers: frozenset[str] | None = None
    extras: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


def from_document(document: Document) -> SourceDocument:
    """The document as a source, its relations with the roles "head" and "tail"."""
    return SourceDocument(
        id=document.id,
        text=document.text,
        spans=tuple(SourceSpan(e.id, e.type, ((e.start, e.end),)) for e in document.entities),
        relations=tuple(
            SourceRelation(r.type, {"head": r.head, "tail": r.tail}) for r in document.relations
        ),
        group=document.group,
        covers=document.covers,
    )
