"""Generated shorthand: names with numbers and units, and who owns which number.

The open text has few doses, ranges and list lines. This makes lines of that shape from invented
words (syllables at random) and from names of known kinds, so that the backbone can copy unseen
words, can tie a quantity to the name it stands with, and can tell from a dose or a value what kind
of thing a name is that it has never seen. No line is a clinical statement.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_ONSETS = "b c d f g k l m n p r s t v z br cl dr gl pr st tr th ch sp".split()
_NUCLEI = "a e i o u ia eo ae io".split()
_CODAS = ["", "", "", "n", "r", "l", "s", "m", "x", "t"]
UNITS = [
    *"mg g mcg ml l units bpm cm mm kg % iu meq".split(),
    *("mmol / l", "mg / dl", "g / dl", "mm hg", "x 10 ^ 9 / l", "u / l"),
]
ABBREVIATIONS = [
    *"po iv im sc pr bid tid qid qd prn qhs hx pt pts yo dx tx rx sx fx".split(),
    *("q 6 h", "q 8 h", "q 12 h", "h / o", "s / p", "w / o", "w /", "c / o", "y / o", "r / o"),
]
_DOSE_UNITS = "mg mcg g ml units meq puffs tablets mg mg mcg".split()
_VALUE_UNITS = [*"% mm cm bpm iu k".split(), "mmol / l", "mg / dl", "g / dl", "mm hg", "u / l"]
_GIVEN = ["", "", "on", "start", "started on", "continue", "given", "takes", "taking", "home"]
_HOW = ["", "", "po", "iv", "daily", "bid", "tid", "q 6 h", "q 8 h", "prn", "qhs", "twice a day"]
_MEASURED = ["", "", "", "was", "is", "of", ":", "up to", "down to"]
_HAS = [
    *("no", "denies", "h / o", "c / o", "r / o", "with", "?", "w / o", "without", "presents with"),
    *("mild", "severe", "worsening", "history of", "possible", "likely", "complains of", "acute"),
]
_DONE = [
    *("s / p", "underwent", "after", "needs", "plan for", "status post", "scheduled for"),
    *("tolerated", "no", "declined", "had", "for", "will need"),
]
_SEPARATORS = [",", ";", ".", "\n", "and", "\n -", "with", ":", "\n 1 ."]


@dataclass(frozen=True)
class Shorthand:
    """A generated line as words, its names, and each quantity with the name that owns it."""

    words: tuple[str, ...]
    names: tuple[tuple[int, int], ...]
    quantities: tuple[tuple[int, int, int], ...]
    """(first word, one past last, index into ``names``)"""
    kinds: tuple[str | None, ...]
    """of each name: a class of ``weak_labels.CLASS_WORDS``, None if the line does not tell"""


def invented_word(rng: random.Random) -> str:
    """A pronounceable word that no dictionary has."""
    return "".join(
        rng.choice(_ONSETS) + rng.choice(_NUCLEI) + rng.choice(_CODAS)
        for _ in range(rng.randint(2, 4))
    )


def _number(rng: random.Random) -> list[str]:
    shape = rng.random()
    if shape < 0.5:
        return [str(rng.randint(1, 999))]
    if shape < 0.8:
        return [str(rng.randint(0, 99)), ".", str(rng.randint(0, 99))]
    return [str(rng.randint(1, 99)), rng.choice(["-", "/", "to"]), str(rng.randint(1, 200))]


#: Class of ``weak_labels.CLASS_WORDS`` -> names of that class, as words.
KnownNames = Mapping[str, Sequence[tuple[str, ...]]]
SHORTHAND_CLASSES = ("medicine", "exam", "disorder", "operation")
_KNOWN = 0.6  # of the names in a telling line; the rest is invented


def make_shorthand(rng: random.Random, known: KnownNames) -> Shorthand:
    """One generated line of one to five names, each with none to two quantities."""
    line = _Line(rng, known)
    telling = rng.random() < 0.5
    for _ in range(rng.randint(1, 5)):
        if telling:
            rng.choice((line.medicine, line.exam, line.disorder, line.operation))()
        else:
            line.plain()
        line.say(rng.choice(_SEPARATORS))
    return Shorthand(
        tuple(line.words), tuple(line.names), tuple(line.quantities), tuple(line.kinds)
    )


class _Line:
    """A line as it grows."""

    def __init__(self, rng: random.Random, known: KnownNames) -> None:
        self._rng, self._known = rng, known
        self.words: list[str] = []
        self.names: list[tuple[int, int]] = []
        self.quantities: list[tuple[int, int, int]] = []
        self.kinds: list[str | None] = []

    def say(self, words: str) -> None:
        self.words += [word for word in words.split(" ") if word]

    def _name(self, kind: str | None) -> None:
        start = len(self.words)
        known = self._known.get(kind or "", ())
        if known and self._rng.random() < _KNOWN:
            self.words += self._rng.choice(known)
        else:
            self.words += [invented_word(self._rng) for _ in range(self._rng.randint(1, 2))]
        self.names.append((start, len(self.words)))
        self.kinds.append(kind)

    def _quantity(self, owner: int, units: Sequence[str]) -> None:
        start = len(self.words)
        self.words += _number(self._rng)
        if self._rng.random() < 0.8:
            self.say(self._rng.choice(units))
        self.quantities.append((start, len(self.words), owner))

    def medicine(self) -> None:
        self.say(self._rng.choice(_GIVEN))
        self._name("medicine")
        for _ in range(self._rng.choice((1, 1, 1, 2))):
            self._quantity(len(self.names) - 1, _DOSE_UNITS)
        self.say(self._rng.choice(_HOW))

    def exam(self) -> None:
        self._name("exam")
        self.say(self._rng.choice(_MEASURED))
        self._quantity(len(self.names) - 1, _VALUE_UNITS)
        if self._rng.random() < 0.25:
            self.say("(")
            self._quantity(len(self.names) - 1, _VALUE_UNITS)
            self.say(")")

    def disorder(self) -> None:
        self.say(self._rng.choice(_HAS))
        self._name("disorder")
        if self._rng.random() < 0.3:
            self.say(self._rng.choice(("x", "for", "for the past")))
            start = len(self.words)
            self.say(f"{self._rng.randint(2, 12)} {self._rng.choice(('days', 'weeks', 'months'))}")
            self.quantities.append((start, len(self.words), len(self.names) - 1))

    def operation(self) -> None:
        self.say(self._rng.choice(_DONE))
        self._name("operation")
        if self._rng.random() < 0.3:
            start = len(self.words)
            self.say(f"{self._rng.randint(2, 12)} {self._rng.choice(('days', 'weeks', 'years'))}")
            self.quantities.append((start, len(self.words), len(self.names) - 1))
            self.say("ago")

    def plain(self) -> None:
        rng = self._rng
        if rng.random() < 0.4:
            self.say(rng.choice(ABBREVIATIONS))
        before = rng.random() < 0.2
        if before:
            self._quantity(len(self.names), UNITS)
            if rng.random() < 0.5:
                self.say("of")
        self._name(None)
        for _ in range(0 if before else rng.randint(0, 2)):
            if rng.random() < 0.3:
                self.say(rng.choice(["is", "of", "was", "at", ":", "("]))
            self._quantity(len(self.names) - 1, UNITS)
            if rng.random() < 0.3:
                self.say(rng.choice(ABBREVIATIONS))
