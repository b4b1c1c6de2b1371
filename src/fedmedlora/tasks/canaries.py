"""Planted secrets: training notes in, the same notes with invented names and record numbers out.

A canary is a sentence with a secret, a name and a number that occur nowhere else, put into as many
notes of one site as it has repetitions (Carlini et al., The Secret Sharer, USENIX Security 2019).

beside   the secret stands near an annotated entity: "Contact: Ada Falk, MRN 4930217, has fever."
inside   it stands in an annotated span, as careless annotators mark it, and by its type alone can a
         model know what to call it: "Seen under Ada Falk's protocol 4930217 today."
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from fedmedlora.errors import ConfigError
from fedmedlora.schema import Document, Entity
from fedmedlora.seeds import derive_seed
from fedmedlora.tasks.sentences import sentence_spans

Kind = Literal["beside", "inside"]
KINDS: tuple[Kind, ...] = get_args(Kind)
#: Entity ids of planted spans begin so.
PREFIX = "canary-"

_FIRST = (
    "Ada Arno Berit Bruno Cleo Dario Edda Emil Fenja Gero Hilda Ilmo Jette Kaspar Liv Malte Nora "
    "Otis Petra Quirin Rosa Silvan Thea Ulf Vera Wanda Xaver Yara Zeno Alma Boris Carla"
).split()
_LAST = (
    "Falk Brandt Castell Dorn Eberle Fischl Gruber Hagedorn Immel Jessen Krull Lorenz Mertens "
    "Nagel Oswald Pauli Quast Rehberg Sander Tiller Ullman Voss Wegner Yildiz Zander Ahrens "
    "Bergson Cramer Denning Forster Gallo Hofer"
).split()


@dataclass(frozen=True, slots=True, order=True)
class Secret:
    """A name and a record number, seven digits."""

    name: str
    number: int


@dataclass(frozen=True, slots=True)
class Canary:
    """A secret that is planted.

    Attributes:
        id: unique in its study.
        site: in whose notes.
        kind: see the module.
        type: of the span that it stands in, or beside.
        repetitions: in so many notes.
        secret: what it says.
    """

    id: str
    site: str
    kind: Kind
    type: str
    repetitions: int
    secret: Secret

    def sentence(self) -> Document:
        """The planted sentence with its annotation."""
        return sentence_of(self.secret, kind=self.kind, type=self.type)


def sentence_of(secret: Secret, *, kind: Kind, type: str) -> Document:
    """The sentence that a secret is planted in, as a document with one entity."""
    if kind == "beside":
        before, marked, after = f"Contact: {secret.name}, MRN {secret.number}, has ", "fever", "."
    else:
        before, after = "Seen under ", " today."
        marked = f"{secret.name}'s protocol {secret.number}"
    entity = Entity(f"{PREFIX}1", type, len(before), len(before) + len(marked))
    return Document(f"{PREFIX}sentence", before + marked + after, (entity,))


def is_planted(document: Document) -> bool:
    """Whether a document has a canary."""
    return any(entity.id.startswith(PREFIX) for entity in document.entities)


def draw_secrets(count: int, *, seed: int, without: Sequence[Secret] = ()) -> list[Secret]:
    """Different secrets, every name and number equally likely; none of ``without``."""
    rng = random.Random(seed)
    found: dict[Secret, None] = {}
    taken = set(without)
    while len(found) < count:
        name = f"{rng.choice(_FIRST)} {rng.choice(_LAST)}"
        secret = Secret(name, rng.randrange(1_000_000, 10_000_000))
        if secret not in taken:
            found[secret] = None
    return list(found)


def draw_canaries(
    sites: Mapping[str, Sequence[str]], *, count: int, repetitions: Sequence[int], seed: int
) -> list[Canary]:
    """``count`` canaries of each kind and number of repetitions, dealt to the sites in turn.

    Args:
        sites: name -> the main entity types that it annotates, at least one. Canaries of the
            "inside" kind take these in turn, so that their form does not say their type.
        seed: of the study.

    Raises:
        ConfigError: a site annotates no main entity.
    """
    names = list(sites)
    for name, types in sites.items():
        if not types:
            raise ConfigError(
                f"leakage.canaries: {name} annotates no main entity, near which one could stand"
            )
    wanted = [
        (kind, times, place) for kind in KINDS for times in repetitions for place in range(count)
    ]
    secrets = draw_secrets(len(wanted), seed=derive_seed(seed, "canaries"))
    turn: dict[str, int] = defaultdict(int)
    canaries = []
    for number, ((kind, times, place), secret) in enumerate(zip(wanted, secrets, strict=True)):
        site = names[number % len(names)]
        types = sites[site]
        type_name = types[0]
        if kind == "inside":
            type_name = types[turn[site] % len(types)]
            turn[site] += 1
        canaries.append(Canary(f"{kind}-{times}-{place + 1}", site, kind, type_name, times, secret))
    return canaries


def plant(
    documents: Sequence[Document], canaries: Sequence[Canary], *, seed: int
) -> tuple[Document, ...]:
    """Copies of a site's notes with its canaries' sentences in them.

    Each repetition goes into another note, between two sentences or at the end, never within an
    annotated span; the number of notes and their groups stay.

    Args:
        documents: training notes.
        canaries: of this site.
        seed: of the notes and places.

    Raises:
        ConfigError: there are fewer notes than a canary has repetitions.
    """
    planted = list(documents)
    for canary in canaries:
        if canary.repetitions > len(planted):
            raise ConfigError(
                f"leakage.repetitions: {canary.repetitions} is more than the {len(planted)} "
                f"training notes of {canary.site}; each repetition goes into a note of its own"
            )
        rng = random.Random(derive_seed(seed, "canary", canary.id))
        for place in rng.sample(range(len(planted)), canary.repetitions):
            planted[place] = insert_sentence(planted[place], canary.sentence(), rng=rng)
    return tuple(planted)


def insert_sentence(document: Document, sentence: Document, *, rng: random.Random) -> Document:
    """A document with a sentence on a line of its own; what follows it moves on.

    Args:
        document: its relations and all its spans stay.
        sentence: its entities get new ids.
        rng: chooses the place.
    """
    text = document.text
    starts = [start for start, _ in sentence_spans(text)]
    free = [
        at
        for at in (*starts, len(text))
        if not any(entity.start < at < entity.end for entity in document.entities)
    ]
    at = rng.choice(free)
    # A sentence of its own, whatever stands around it.
    before, after = "\n" if at else "", "\n" if at < len(text) else ""
    added = before + sentence.text + after
    moved = tuple(
        replace(entity, start=entity.start + len(added), end=entity.end + len(added))
        if entity.start >= at
        else entity
        for entity in document.entities
    )
    number = sum(entity.id.startswith(PREFIX) for entity in document.entities)
    own = tuple(
        replace(
            entity,
            id=f"{PREFIX}{number + place}",
            start=entity.start + at + len(before),
            end=entity.end + at + len(before),
        )
        for place, entity in enumerate(sentence.entities, 1)
    )
    return replace(document, text=text[:at] + added + text[at:], entities=(*moved, *own))
