"""Documents of the synthetic sites.

Enters: a seed and how many notes. Leaves: ``SiteDocuments``; a note is a ``Document`` with
entities and relations of the default scheme. Every note has a random generator of its own, from
(seed, site, split, number): asking for more notes leaves the earlier ones as they were.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from random import Random

from fedmedlora.corpus.synthetic import discharge, icu, outpatient
from fedmedlora.corpus.synthetic.cues import CUES
from fedmedlora.corpus.synthetic.grammar import PATIENTS, Passage, Term, Vocabulary, render
from fedmedlora.corpus.synthetic.labs import LABS
from fedmedlora.corpus.synthetic.lexicon import DRUGS, LOCATIONS, PROBLEMS, STUDIES, TREATMENTS
from fedmedlora.corpus.synthetic.style import Section, Style
from fedmedlora.errors import ConfigError
from fedmedlora.schema import DEFAULT_SCHEME, Document, Entity, Relation

STYLE_OF: dict[str, Style] = {
    "icu": icu.STYLE,
    "outpatient": outpatient.STYLE,
    "discharge": discharge.STYLE,
}

#: The sites, in order.
STYLES: tuple[str, ...] = tuple(STYLE_OF)

#: Probability that a name in a test note is drawn from the held-out half of its class.
HELD_OUT_SHARE = 0.5

_NOTES_PER_PATIENT = 2
_COVERS = frozenset(DEFAULT_SCHEME.types)


@dataclass(frozen=True, slots=True)
class SiteDocuments:
    """One site's notes; no patient (``Document.group``) is in two splits.

    Attributes:
        name: a name of ``STYLES``.
        train, validation: notes made of seen names alone.
        test: notes in which about half of the names are held out.
    """

    name: str
    train: tuple[Document, ...]
    validation: tuple[Document, ...]
    test: tuple[Document, ...]


def make_sites(
    seed: int, *, train: int, validation: int, test: int, sites: Sequence[str] = STYLES
) -> dict[str, SiteDocuments]:
    """Synthetic hospital sites of different styles.

    Args:
        seed: equal seeds give equal documents, in every process.
        train, validation, test: number of notes at each site, 0 or more.
        sites: names of ``STYLES``, without repetition.

    Returns:
        Site name -> its notes, in the order of ``sites``. Document ids are such as
        "icu-train-0001"; ``covers`` is every type of the default scheme.

    Raises:
        ConfigError: an unknown or repeated site, or a negative number of notes.
    """
    sizes = {"train": train, "validation": validation, "test": test}
    for split, size in sizes.items():
        if size < 0:
            raise ConfigError(f"{split}: {size} notes cannot be made; give 0 or more")
    for number, name in enumerate(sites):
        if name not in STYLE_OF:
            raise ConfigError(f"synthetic site {name!r} is unknown; known: {', '.join(STYLES)}")
        if name in sites[:number]:
            raise ConfigError(f"synthetic site {name!r} is named twice")
    return {
        name: SiteDocuments(
            name, **{split: _notes(seed, name, split, size) for split, size in sizes.items()}
        )
        for name in sites
    }


@cache
def held_out_vocabulary() -> frozenset[str]:
    """Names, lower-cased, that occur in test notes only (and in no text this repository makes)."""
    groups = [*PROBLEMS.values(), *TREATMENTS.values(), *STUDIES.values(), *DRUGS.values()]
    names = [name for group in (*groups, LOCATIONS) for name in group.held_out]
    names += [lab.name for labs in LABS.values() for lab in labs.held_out]
    return frozenset(name.lower() for name in names)


def _notes(seed: int, site: str, split: str, size: int) -> tuple[Document, ...]:
    vocabulary = vocabulary_of(site, HELD_OUT_SHARE if split == "test" else 0.0)
    return tuple(
        _note(
            Random(f"fedmedlora:{seed}:{site}:{split}:{number}"),
            STYLE_OF[site],
            vocabulary,
            document_id=f"{site}-{split}-{number:04d}",
            group=f"{site}-{split}-patient-{(number - 1) // _NOTES_PER_PATIENT + 1:04d}",
        )
        for number in range(1, size + 1)
    )


def _note(
    rng: Random, style: Style, vocabulary: Vocabulary, *, document_id: str, group: str
) -> Document:
    parts: list[str] = []
    size = 0
    entities: list[Entity] = []
    relations: list[Relation] = []
    for passage in _passages(rng, style, vocabulary):
        first = len(entities)
        for kind, start, end in passage.spans:
            entities.append(Entity(f"T{len(entities) + 1}", kind, size + start, size + end))
        for head, tail in passage.links:
            modifier = entities[first + tail]
            relations.append(Relation(modifier.type, entities[first + head].id, modifier.id))
        parts.append(passage.text)
        size += len(passage.text)
    text = "".join(parts).rstrip()
    return Document(document_id, text, tuple(entities), tuple(relations), group, _COVERS)


def _passages(rng: Random, style: Style, vocabulary: Vocabulary) -> Iterator[Passage]:
    # A note speaks of one patient: the pronouns are drawn once.
    draw = partial(render, rng=rng, vocabulary=vocabulary, patient=rng.choice(PATIENTS))
    for section in style.sections:
        if rng.random() >= section.chance:
            continue
        yield draw(section.header)
        items = rng.randint(section.least, section.most)
        for number, template in enumerate(_templates(rng, style, section, items), start=1):
            yield draw(section.item.replace("{n}", str(number)))
            passage = draw(template)
            yield _capitalised(passage) if section.capitalised else passage
            last = number == items
            yield Passage(section.end.rstrip(" ") if last else section.end, (), ())


def _templates(rng: Random, style: Style, section: Section, items: int) -> list[str]:
    """Different templates for the items of a section."""
    topics = rng.choices(list(section.mix), weights=list(section.mix.values()), k=items)
    chosen: list[str] = []
    for topic in topics:
        template = rng.choice(style.topics[topic])
        while template in chosen and len(style.topics[topic]) > items:
            template = rng.choice(style.topics[topic])
        chosen.append(template)
    return chosen


def _capitalised(passage: Passage) -> Passage:
    """The passage with its first letter in upper case; ASCII, so offsets stay."""
    return Passage(passage.text[:1].upper() + passage.text[1:], passage.spans, passage.links)


@cache
def vocabulary_of(site: str, held_out_share: float) -> Vocabulary:
    """What ``site`` may say when names are held out with probability ``held_out_share``."""
    style = STYLE_OF[site]
    terms = {slot: _slot_terms(main, groups) for slot, (main, groups) in style.slots.items()}
    labs = [LABS[group] for group in style.slots["lab"][1]]
    terms["lab"] = (
        tuple(Term("test", lab.name, lab=lab) for half in labs for lab in half.seen),
        tuple(Term("test", lab.name, lab=lab) for half in labs for lab in half.held_out),
    )
    return Vocabulary(terms, LOCATIONS, CUES[site], held_out_share)


def _slot_terms(main: str, groups: tuple[str, ...]) -> tuple[tuple[Term, ...], tuple[Term, ...]]:
    table = {"problem": PROBLEMS, "treatment": TREATMENTS, "test": STUDIES, "drug": DRUGS}[main]
    kinds = {group: group if main == "drug" else "" for group in groups}
    return (
        tuple(Term(main, name, kinds[group]) for group in groups for name in table[group].seen),
        tuple(Term(main, name, kinds[group]) for group in groups for name in table[group].held_out),
    )
