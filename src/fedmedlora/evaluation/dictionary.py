"""The baseline of training mentions: annotated documents in, predictions by look-up out.

Every learned method is shown beside it. It knows how a mention was annotated in training, marks
the longest known mentions at word boundaries, and gives a modifier to the nearest main entity that
may take it. It learns nothing else.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import NamedTuple

from fedmedlora.errors import ConfigError
from fedmedlora.evaluation.tally import covered_types
from fedmedlora.schema import Document, Entity, Relation, Scheme

#: A mention as its case-folded words and punctuation marks.
Mention = tuple[str, ...]

_WORD = re.compile(r"\w+|[^\w\s]")
#: What ends a sentence, for the distance between a modifier and its head: a line break, or a full
#: stop, question or exclamation mark before white space and a capital.
_BREAK = re.compile(r"\n|[.!?](?=\s+[A-Z])")


class Word(NamedTuple):
    """A case-folded word or punctuation mark, and where it stands in the text."""

    form: str
    start: int
    end: int


@dataclass(frozen=True)
class Lexicon:
    """Known mentions.

    Attributes:
        shares: mention -> type -> share of its occurrences that were annotated so, in (0, 1].
        lengths: first word -> the numbers of words of the mentions that begin with it.
    """

    shares: Mapping[Mention, Mapping[str, float]]
    lengths: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Dictionary:
    """What the mentions of the training documents meant, main entities and modifiers apart."""

    mains: Lexicon
    modifiers: Lexicon


def learn_dictionary(
    documents: Iterable[Document],
    *,
    scheme: Scheme,
    covers: frozenset[str] | None = None,
    precision: float = 0.3,
) -> Dictionary:
    """Collect the mentions of annotated documents: one site's, or several sites' together.

    A mention is kept with a type if at least ``precision`` of its occurrences, in documents whose
    annotators covered that type, carry exactly that annotation. Occurrences are those that the
    look-up itself would find: longest mention first, at word boundaries, whatever the case and
    white space. Mentions that begin or end within a word are left out.

    Args:
        documents: their ``covers`` are honoured.
        covers: types that the annotators of all of them covered, if the documents do not say.
        precision: in (0, 1].

    Raises:
        ConfigError: ``precision`` out of range.
    """
    if not 0 < precision <= 1:
        raise ConfigError(f"the dictionary's precision is {precision}; it must be in (0, 1]")
    documents = list(documents)
    words = [_words(document.text) for document in documents]
    mains, modifiers = (
        _learn(documents, words, types=frozenset(types), covers=covers, precision=precision)
        for types in (scheme.mains, scheme.modifiers)
    )
    return Dictionary(mains, modifiers)


def predict_entities(
    dictionary: Dictionary, document: Document, *, covers: frozenset[str] | None = None
) -> Document:
    """Mark the known main entities of a document; its own annotations are not looked at.

    Args:
        covers: predict these types only; the document's ``covers`` restrict as well.
    """
    found = _look_up(dictionary.mains, document, covers=covers)
    return Document(
        id=document.id,
        text=document.text,
        entities=tuple(
            Entity(id=f"T{place}", type=name, start=start, end=end)
            for place, (name, start, end) in enumerate(found, start=1)
        ),
        group=document.group,
        covers=document.covers,
    )


def predict_modifiers(
    dictionary: Dictionary,
    document: Document,
    *,
    scheme: Scheme,
    covers: frozenset[str] | None = None,
) -> Document:
    """Mark the known modifiers of a document whose main entities are given, and say whose they are.

    A modifier goes to the nearest main entity, in characters between them, of the same sentence or
    line that may take it; of two equally near, to the first. Without such a head it is
    not predicted, for a modifier always belongs to one main entity.

    Args:
        document: its main entities are given; its modifiers and relations are not looked at.
        covers: as for ``predict_entities``.

    Returns:
        The given main entities, the modifiers found and their relations.
    """
    heads = [entity for entity in document.entities if entity.type in scheme.mains]
    breaks = [match.start() for match in _BREAK.finditer(document.text)]
    given = {entity.id for entity in heads}
    fresh = (name for name in map("M{}".format, count(1)) if name not in given)
    modifiers: list[Entity] = []
    relations: list[Relation] = []
    for name, start, end in _look_up(dictionary.modifiers, document, covers=covers):
        near = [
            (max(head.start - end, start - head.end, 0), head.start, head.id)
            for head in heads
            if scheme.valid(head.type, name)
            and not any(min(head.end, end) <= place < max(head.start, start) for place in breaks)
        ]
        if not near:
            continue
        modifiers.append(Entity(id=next(fresh), type=name, start=start, end=end))
        relations.append(Relation(type=name, head=min(near)[2], tail=modifiers[-1].id))
    return Document(
        id=document.id,
        text=document.text,
        entities=(*heads, *modifiers),
        relations=tuple(relations),
        group=document.group,
        covers=document.covers,
    )


def _learn(
    documents: Sequence[Document],
    everything: Sequence[Sequence[Word]],
    *,
    types: frozenset[str],
    covers: frozenset[str] | None,
    precision: float,
) -> Lexicon:
    labels: list[dict[tuple[int, int], set[str]]] = []
    candidates: dict[Mention, set[str]] = {}
    asked = [_asked(document, types=types, covers=covers) for document in documents]
    for document, words, names in zip(documents, everything, asked, strict=True):
        starts = {word.start: place for place, word in enumerate(words)}
        ends = {word.end: place + 1 for place, word in enumerate(words)}
        found: dict[tuple[int, int], set[str]] = {}
        for entity in document.entities:
            if entity.type in names and entity.start in starts and entity.end in ends:
                first, last = starts[entity.start], ends[entity.end]
                found.setdefault((first, last), set()).add(entity.type)
                mention = tuple(word.form for word in words[first:last])
                candidates.setdefault(mention, set()).add(entity.type)
        labels.append(found)
    lengths = _lengths(candidates)
    occurred: Counter[tuple[Mention, str]] = Counter()
    right: Counter[tuple[Mention, str]] = Counter()
    for words, names, found in zip(everything, asked, labels, strict=True):
        for mention, first, last in _longest_matches(words, candidates, lengths=lengths):
            occurred.update((mention, name) for name in candidates[mention] & names)
            right.update((mention, name) for name in found.get((first, last), ()))
    shares: dict[Mention, dict[str, float]] = {}
    for (mention, name), times in right.items():
        share = times / occurred[mention, name]
        if share >= precision:
            shares.setdefault(mention, {})[name] = share
    return Lexicon(shares=shares, lengths=_lengths(shares))


def _look_up(
    lexicon: Lexicon, document: Document, *, covers: frozenset[str] | None
) -> Iterator[tuple[str, int, int]]:
    """The type and the offsets of each known mention, in the order of the text."""
    asked = covered_types(document, covers)
    words = _words(document.text)
    for mention, first, last in _longest_matches(
        words, lexicon.shares, lengths=lexicon.lengths, asked=asked
    ):
        shares = lexicon.shares[mention]
        names = (name for name in shares if asked is None or name in asked)
        name = min(names, key=lambda name: (-shares[name], name))
        yield name, words[first].start, words[last - 1].end


def _asked(
    document: Document, *, types: frozenset[str], covers: frozenset[str] | None
) -> frozenset[str]:
    """Those of ``types`` that the document's annotators covered."""
    covered = covered_types(document, covers)
    return types if covered is None else types & covered


def _words(text: str) -> list[Word]:
    return [Word(match[0].casefold(), *match.span()) for match in _WORD.finditer(text)]


def _lengths(mentions: Iterable[Mention]) -> dict[str, tuple[int, ...]]:
    """First word -> the lengths of the mentions that begin with it, longest first."""
    found: dict[str, set[int]] = {}
    for mention in mentions:
        found.setdefault(mention[0], set()).add(len(mention))
    return {word: tuple(sorted(sizes, reverse=True)) for word, sizes in found.items()}


def _longest_matches(
    words: Sequence[Word],
    known: Mapping[Mention, Collection[str]],
    *,
    lengths: Mapping[str, tuple[int, ...]],
    asked: frozenset[str] | None = None,
) -> Iterator[tuple[Mention, int, int]]:
    """The longest known mentions of an asked type, from left to right, not overlapping.

    Each comes with the half-open range of its words.
    """
    forms = tuple(word.form for word in words)
    place = 0
    while place < len(forms):
        for size in lengths.get(forms[place], ()):
            if place + size > len(forms):
                continue
            mention = forms[place : place + size]
            if mention in known and (asked is None or not asked.isdisjoint(known[mention])):
                yield mention, place, place + size
                place += size
                break
        else:
            place += 1
