"""Entities and windows in, each window's entities out; and which types a document is asked for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fedmedlora.errors import SchemaError
from fedmedlora.schema import Document, Entity, Scheme
from fedmedlora.tasks.markup import Mark
from fedmedlora.tasks.windows import Window


def check_covers(covers: frozenset[str], scheme: Scheme) -> None:
    """Check that ``covers`` are types of ``scheme``.

    Raises:
        SchemaError: naming those that are not.
    """
    unknown = sorted(covers.difference(scheme.types))
    if unknown:
        raise SchemaError(
            f"covers names types that the scheme does not have: {', '.join(unknown)}; "
            f"its types are {', '.join(scheme.types)}"
        )


def covered_types(document: Document, covers: frozenset[str]) -> frozenset[str]:
    """What a document of a site that covers ``covers`` is asked for: its own coverage narrows."""
    return covers if document.covers is None else covers & document.covers


def place_entities(
    entities: Iterable[Entity], windows: Sequence[Window]
) -> tuple[list[list[Entity]], int]:
    """For each window the entities that lie whole in it, and how many lie whole in none.

    Within a window they are in order of their starts, those of one start in the order given.
    """
    placed: list[list[Entity]] = [[] for _ in windows]
    cut = number = 0
    for entity in sorted(entities, key=lambda entity: entity.start):
        while number < len(windows) and windows[number].end <= entity.start:
            number += 1
        if number < len(windows) and (
            windows[number].start <= entity.start and entity.end <= windows[number].end
        ):
            placed[number].append(entity)
        else:
            cut += 1
    return placed, cut


def mark_entity(entity: Entity, window: Window, opening: str) -> Mark:
    """The mark of an entity that lies in ``window``, in offsets of the window's text."""
    return Mark(entity.start - window.start, entity.end - window.start, opening)
