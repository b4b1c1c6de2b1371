"""A sentence of a note from its template, with exact spans.

Enters: a template, a style's vocabulary and a random generator. Leaves: a ``Passage``: text, spans
and links. The text is put together piece by piece and every span is written down with its piece;
nothing is searched for afterwards.

A template is text with

- ``[a|b|]``: one of the alternatives, which may nest;
- ``{symptom:1}``: main entity number 1, from the style's slot ``symptom``;
- ``{severity>1}``: a modifier of main entity 1, drawn from the style's cues; ``{negation=no>1,2}``:
  this very text, shared by 1 and 2; ``{course.post>1}``: a cue of a certain place;
- ``<date>``: text without annotation; ``<disease>`` is a disease's name that is no entity here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

from fedmedlora.corpus.synthetic.cues import KINDS
from fedmedlora.corpus.synthetic.labs import Lab
from fedmedlora.corpus.synthetic.lexicon import Names

_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_PIECE = re.compile(
    r"\{(?P<name>\w+)(?P<variant>\.\w+)?(?:=(?P<literal>[^}>]*))?"
    r"(?::(?P<number>\d)|>(?P<heads>[\d,]+))\}|<(?P<plain>\w+)>"
)
_PLAIN = re.compile(r"<(\w+)>")

_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = (
    *("January", "February", "March", "April", "May", "June", "July"),
    *("August", "September", "October", "November", "December"),
)
_COUNTS = ("two", "three", "four", "five", "six", "eight", "ten")
_DOCTORS = ("Dr. Patel", "Dr. Kim", "Dr. Alvarez", "Dr. Novak", "Dr. Okafor", "Dr. Meyer")

#: How a note may speak of its patient: ``<he>`` and the like -> the word.
PATIENTS: tuple[Mapping[str, str], ...] = (
    {"he": "he", "his": "his", "him": "him", "man": "man", "M": "M"},
    {"he": "she", "his": "her", "him": "her", "man": "woman", "M": "F"},
)


@dataclass(frozen=True, slots=True)
class Term:
    """A name for a main entity, with what its modifiers must agree with.

    Attributes:
        type: the main entity type.
        name: the text.
        kind: a key of ``cues.KINDS`` for a drug, else "".
        lab: the numeric test, for one.
    """

    type: str
    name: str
    kind: str = ""
    lab: Lab | None = None


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What one style may say in the notes of one split.

    Attributes:
        terms: slot -> (seen terms, held-out terms).
        locations: names of body locations.
        cues: key -> phrases.
        held_out_share: probability of drawing a name from the held-out half; 0 outside test notes.
    """

    terms: Mapping[str, tuple[tuple[Term, ...], tuple[Term, ...]]]
    locations: Names
    cues: Mapping[str, tuple[str, ...]]
    held_out_share: float

    def draw(self, rng: Random, slot: str) -> Term:
        """A term for ``slot``."""
        seen, held_out = self.terms[slot]
        return rng.choice(held_out if rng.random() < self.held_out_share else seen)

    def draw_location(self, rng: Random) -> str:
        """The name of a body location."""
        held_out = rng.random() < self.held_out_share
        return rng.choice(self.locations.held_out if held_out else self.locations.seen)


@dataclass(frozen=True, slots=True)
class Passage:
    """Text with annotations, offsets from its own start.

    Attributes:
        text: one sentence or line, without a line break.
        spans: (type, start, end), by start.
        links: (index of the head in ``spans``, index of the modifier in ``spans``).
    """

    text: str
    spans: tuple[tuple[str, int, int], ...]
    links: tuple[tuple[int, int], ...]


def render(
    template: str,
    rng: Random,
    *,
    vocabulary: Vocabulary,
    patient: Mapping[str, str] = PATIENTS[0],
) -> Passage:
    """A passage from ``template``; ``patient`` is one of ``PATIENTS``.

    Raises:
        KeyError: the template names a slot, cue or head that does not exist (its fault).
    """
    while match := _CHOICE.search(template):
        chosen = rng.choice(match[1].split("|"))
        template = template[: match.start()] + chosen + template[match.end() :]
    pieces = list(_PIECE.finditer(template))
    # Main entities first: a modifier may stand before its head and must agree with it.
    terms: dict[str, Term] = {}
    for piece in pieces:
        if piece["number"]:
            terms[piece["number"]] = _fresh_term(piece, rng, vocabulary, terms)
    parts: list[str] = []
    size = 0
    spans: list[tuple[str, int, int]] = []
    index_of: dict[str, int] = {}
    owed: list[tuple[str, int]] = []
    copied = 0

    def say(text: str) -> None:
        nonlocal size
        parts.append(text)
        size += len(text)

    for piece in pieces:
        say(template[copied : piece.start()])
        copied = piece.end()
        if piece["plain"]:
            say(patient.get(piece["plain"]) or _plain(piece["plain"], rng, vocabulary))
            continue
        if piece["number"]:
            index_of[piece["number"]] = len(spans)
            kind, marked = terms[piece["number"]].type, terms[piece["number"]].name
        else:
            heads = piece["heads"].split(",")
            owed += [(head, len(spans)) for head in heads]
            kind = piece["name"]
            lead, marked = _modifier(piece, terms[heads[0]], rng, vocabulary)
            say(lead)
        spans.append((kind, size, size + len(marked)))
        say(marked)
    say(template[copied:])
    links = tuple(sorted((index_of[head], tail) for head, tail in owed))
    return Passage("".join(parts), tuple(spans), links)


def _fresh_term(
    piece: re.Match[str], rng: Random, vocabulary: Vocabulary, taken: Mapping[str, Term]
) -> Term:
    names = {term.name for term in taken.values()}
    while (term := vocabulary.draw(rng, piece["name"])).name in names:
        pass
    return term


def _modifier(
    piece: re.Match[str], head: Term, rng: Random, vocabulary: Vocabulary
) -> tuple[str, str]:
    """A modifier as (unmarked lead, marked text)."""
    kind, literal = piece["name"], piece["literal"]
    if literal is not None:
        return "", _fill(literal, rng, vocabulary)
    if kind == "bodyloc":
        return "", vocabulary.draw_location(rng)
    if kind == "dosage" and piece["variant"] == ".amount":
        # "metformin 500 mg twice daily": no form follows, so the amount is what is taken.
        return "", _fill(rng.choice(KINDS[head.kind].strength), rng, vocabulary)
    if kind in ("strength", "form", "dosage", "route"):
        return "", _fill(rng.choice(getattr(KINDS[head.kind], kind)), rng, vocabulary)
    if kind == "reference_range" and head.lab:
        return "", f"{head.lab.low:g}-{head.lab.high:g}"
    if kind == "labvalue" and head.lab:
        return "", _lab_value(head.lab, rng, unit=piece["variant"] == ".unit")
    phrase = rng.choice(vocabulary.cues[kind + (piece["variant"] or "")])
    # "on 3/14@": the date is the modifier, its preposition is not; "since 3/14" is one whole.
    lead = ""
    if phrase.endswith("@"):
        word, phrase = phrase[:-1].split(" ", 1)
        lead = word + " "
    return lead, _fill(phrase, rng, vocabulary)


def _lab_value(lab: Lab, rng: Random, *, unit: bool) -> str:
    width = lab.high - lab.low
    value = max(lab.low / 2, rng.uniform(lab.low - 0.6 * width, lab.high + 0.9 * width))
    number = f"{abs(value):.{lab.decimals}f}"
    return f"{number} {lab.unit}" if unit else number


def _fill(phrase: str, rng: Random, vocabulary: Vocabulary) -> str:
    return _PLAIN.sub(lambda match: _plain(match[1], rng, vocabulary), phrase)


def _plain(name: str, rng: Random, vocabulary: Vocabulary) -> str:
    match name:
        case "small":
            return str(rng.randint(2, 9))
        case "number":
            return str(rng.randint(2, 60))
        case "tens":
            return str(10 * rng.randint(1, 19))
        case "long":
            return str(rng.randint(10_000, 999_999))
        case "age":
            return str(rng.randint(19, 91))
        case "count":
            return rng.choice(_COUNTS)
        case "date":
            return f"{rng.randint(1, 12)}/{rng.randint(1, 28)}"
        case "longdate":
            return f"{rng.choice(_MONTHS)} {rng.randint(1, 28)}"
        case "year":
            return str(rng.randint(1996, 2024))
        case "clock":
            return f"{rng.randint(0, 23):02d}{rng.choice(('00', '15', '30', '45'))}"
        case "weekday":
            return rng.choice(_WEEKDAYS)
        case "month":
            return rng.choice(_MONTHS)
        case "doctor":
            return rng.choice(_DOCTORS)
        case "location":
            return vocabulary.draw_location(rng)
        case _:
            return vocabulary.draw(rng, name).name
