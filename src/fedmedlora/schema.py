"""The data model: Document, Entity, Relation and Scheme, all frozen.

Offsets are half-open character offsets into ``Document.text``. They are made in ``corpus/`` and
carried from there; nobody finds a span again by searching for its text.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from fedmedlora.errors import SchemaError


@dataclass(frozen=True, slots=True, order=True)
class Entity:
    """An annotated span: a main entity or a modifier.

    Attributes:
        id: unique within its document.
        type: a type of the scheme, or of the source before mapping.
        start: first character, counted from 0.
        end: one past the last character.
    """

    id: str
    type: str
    start: int
    end: int


@dataclass(frozen=True, slots=True, order=True)
class Relation:
    """A modifier and whose it is.

    Attributes:
        type: the modifier's type.
        head: id of the main entity.
        tail: id of the modifier.
    """

    type: str
    head: str
    tail: str


@dataclass(frozen=True, slots=True)
class Document:
    """A note with its annotations.

    Attributes:
        id: unique within its cohort.
        text: the note, exactly as annotated; offsets point into it.
        entities: in the order of the source.
        relations: heads and tails are ids of ``entities``.
        group: documents of one group (a patient, a report) must stay in one split.
        covers: the types that the annotators looked for. ``None`` means that the source does not
            say. A type outside ``covers`` is unknown in this document, not absent.

    Raises:
        SchemaError: offsets outside the text, an empty span, a repeated entity id, or a relation
            to an id that is not there.
    """

    id: str
    text: str
    entities: tuple[Entity, ...] = ()
    relations: tuple[Relation, ...] = ()
    group: str | None = None
    covers: frozenset[str] | None = None

    def __post_init__(self) -> None:
        ids: set[str] = set()
        size = len(self.text)
        for entity in self.entities:
            if not 0 <= entity.start < entity.end <= size:
                raise SchemaError(
                    f"document {self.id!r}: entity {entity.id!r} has offsets "
                    f"[{entity.start}, {entity.end}), which are not a non-empty span of a text of "
                    f"{size} characters"
                )
            if entity.id in ids:
                raise SchemaError(f"document {self.id!r}: entity id {entity.id!r} occurs twice")
            ids.add(entity.id)
        for relation in self.relations:
            for end in (relation.head, relation.tail):
                if end not in ids:
                    raise SchemaError(
                        f"document {self.id!r}: a {relation.type} relation points to {end!r}, "
                        "which is no entity of this document"
                    )

    def entity(self, entity_id: str) -> Entity:
        """The entity with this id.

        Raises:
            KeyError: there is none.
        """
        for entity in self.entities:
            if entity.id == entity_id:
                return entity
        raise KeyError(entity_id)


@dataclass(frozen=True)
class Scheme:
    """What is annotated: main entities, their modifiers, definitions and the valid pairs.

    Attributes:
        mains: main entity type -> definition, in the order in which prompts list them.
        modifiers: modifier type -> definition, likewise.
        pairs: main entity type -> the modifier types that it may take.

    Raises:
        SchemaError: a type that is both main and modifier, or a pair of unknown types.
    """

    mains: Mapping[str, str]
    modifiers: Mapping[str, str]
    pairs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.mains:
            raise SchemaError("a scheme needs at least one main entity type")
        both = set(self.mains) & set(self.modifiers)
        if both:
            raise SchemaError(f"types are both main and modifier: {', '.join(sorted(both))}")
        for name in (*self.mains, *self.modifiers):
            if not name or not all(c.isalnum() or c in "_-" for c in name):
                raise SchemaError(
                    f"type name {name!r} must be made of letters, digits, '_' and '-'"
                )
        for main, modifiers in self.pairs.items():
            if main not in self.mains:
                raise SchemaError(f"pairs name an unknown main entity type: {main!r}")
            unknown = [m for m in modifiers if m not in self.modifiers]
            if unknown:
                raise SchemaError(
                    f"pairs of {main!r} name unknown modifier types: {', '.join(unknown)}"
                )

    @property
    def types(self) -> tuple[str, ...]:
        """Every type, main entities first, in scheme order."""
        return (*self.mains, *self.modifiers)

    def valid(self, head: str, modifier: str) -> bool:
        """Whether a main entity of type ``head`` may take a ``modifier``."""
        return modifier in self.pairs.get(head, ())

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the scheme's content: equal schemes have equal fingerprints."""
        content = {
            "mains": list(self.mains.items()),
            "modifiers": list(self.modifiers.items()),
            "pairs": {main: list(self.pairs[main]) for main in sorted(self.pairs)},
        }
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def observed_types(documents: Iterable[Document]) -> frozenset[str]:
    """The types that occur in the annotations of ``documents``."""
    return frozenset(entity.type for document in documents for entity in document.entities)


#: The scheme of the annotation guideline v1.1 published with arXiv 2601.22124: four main
#: entities, sixteen modifiers, twenty-two valid pairs.
DEFAULT_SCHEME = Scheme(
    mains={
        "problem": "an abnormal condition that happens physically or mentally to a patient",
        "treatment": "procedures, interventions and substances given to a patient for treating "
        "a problem",
        "test": "a procedure to detect or diagnose a problem, monitor diseases, or determine a "
        "course of treatment",
        "drug": "generic or brand name of a medication, or a collective name of a group of "
        "medications",
    },
    modifiers={
        "bodyloc": "location on the body where the observation is present",
        "condition": "phrase that says the problem exists in a certain situation",
        "course": "development or alteration of a problem",
        "dosage": "amount of active ingredient from the number of drugs prescribed",
        "duration": "time period a patient should take a drug",
        "form": "form of a drug (tablet, solution)",
        "frequency": "how often a drug is taken",
        "labvalue": "numeric value or normal description of a test's result",
        "negation": "phrase that says an entity is absent",
        "reference_range": "range of values deemed normal for a test",
        "route": "way a drug or other substance is taken into the body",
        "severity": "degree of intensity of a condition",
        "strength": "amount of active ingredient in a given dosage form",
        "subject": "the person who experiences the problem",
        "temporal": "calendar date, time or duration related to the entity",
        "uncertain": "measure of doubt about a problem",
    },
    pairs={
        "problem": (
            "severity",
            "condition",
            "uncertain",
            "subject",
            "bodyloc",
            "course",
            "temporal",
            "negation",
        ),
        "treatment": ("temporal", "negation"),
        "drug": (
            "strength",
            "dosage",
            "duration",
            "form",
            "frequency",
            "route",
            "temporal",
            "negation",
        ),
        "test": ("labvalue", "reference_range", "temporal", "negation"),
    },
)
