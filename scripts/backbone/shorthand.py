"""Generated shorthand: names, what is said about them, and about which.

The open text has few doses, ranges and list lines, and hardly a remark on one patient. This makes
lines of that shape from invented words (syllables at random) and from names of known kinds, so
that the backbone can copy unseen words, can tie a remark to the name that it belongs to, and can
tell from a dose or a value what kind of thing a name is that it has never seen. No line is a
clinical statement.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from .held_out import HeldOutTerms
from .remarks import ASIDES, FORMS, LAST_WORDS, REMARKS, SAME_AS, fill
from .text import Name
from .weak_labels import classes_of

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
_SEPARATORS = [",", ";", ".", "\n", "and", "\n -", "with", ":", "\n 1 ."]


@dataclass(frozen=True)
class Shorthand:
    """A generated line as words, its names, and what is said about them.

    Attributes:
        words: the line.
        names: (first word, one past last).
        kinds: of each name: a class of ``weak_labels.CLASS_WORDS``, None if the line does not tell.
        remarks: (first word, one past last, kind, places in ``names`` of those it belongs to);
            a kind of ``remarks.REMARKS``, or "quantity" where names have no kind.
    """

    words: tuple[str, ...]
    names: tuple[tuple[int, int], ...]
    kinds: tuple[str | None, ...]
    remarks: tuple[tuple[int, int, str, tuple[int, ...]], ...]


def invented_word(rng: random.Random) -> str:
    """A pronounceable word that no dictionary has."""
    return "".join(
        rng.choice(_ONSETS) + rng.choice(_NUCLEI) + rng.choice(_CODAS)
        for _ in range(rng.randint(2, 4))
    )


@cache
def _held_out_words() -> frozenset[str]:
    return frozenset(word for term in HeldOutTerms().terms for word in term)


def invented_abbreviation(rng: random.Random) -> list[str]:
    """A few letters, now and then with a digit, as notes write exams and diagnoses.

    No word of a held-out term: there are few enough abbreviations to hit one by chance.
    """
    letters = ""
    while not letters or letters in _held_out_words():
        size = rng.choice((2, 3, 3, 4))
        letters = "".join(rng.choice("abcdefghiklmnoprstuvwx") for _ in range(size))
    return [letters, str(rng.randint(1, 12))] if rng.random() < 0.2 else [letters]


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
_TELLING = 0.8  # of the lines
_KNOWN = 0.6  # of the names in a telling line; the rest is invented


def known_names(names: Sequence[Name]) -> KnownNames:
    """Names of each class for shorthand, as far as a name has one class alone."""
    classes: dict[tuple[str, ...], set[str]] = {}
    for name in names:
        found = {c for c in classes_of(name.kind, name.words[-1]) if c in SHORTHAND_CLASSES}
        classes.setdefault(name.words, set()).update(found)
    return {
        kind: [words for words, found in classes.items() if found == {kind} and len(words) <= 3]
        for kind in SHORTHAND_CLASSES
    }


def make_shorthand(rng: random.Random, known: KnownNames) -> Shorthand:
    """One generated line of one name or more; what is said tells their kinds in most lines."""
    line = _Line(rng, known)
    telling = rng.random() < _TELLING
    for _ in range(rng.randint(1, 4)):
        if telling:
            if rng.random() < 0.45:
                line.aside()
            line.tell(rng.choice(SHORTHAND_CLASSES))
        else:
            line.plain()
        line.say(rng.choice(_SEPARATORS))
    return Shorthand(tuple(line.words), tuple(line.names), tuple(line.kinds), tuple(line.remarks))


class _Line:
    """A line as it grows."""

    def __init__(self, rng: random.Random, known: KnownNames) -> None:
        self._rng, self._known = rng, known
        self.words: list[str] = []
        self.names: list[tuple[int, int]] = []
        self.kinds: list[str | None] = []
        self.remarks: list[tuple[int, int, str, tuple[int, ...]]] = []

    def say(self, phrase: str) -> tuple[int, int]:
        start = len(self.words)
        self.words += fill(phrase, self._rng)
        return start, len(self.words)

    def _some_name(self, kind: str | None) -> None:
        rng = self._rng
        known = self._known.get(kind or "", ())
        if known and rng.random() < _KNOWN:
            self.words += rng.choice(known)
            return
        if rng.random() < 0.35:
            self.words += invented_abbreviation(rng)
        else:
            self.words += [invented_word(rng) for _ in range(rng.randint(1, 2))]
        if kind is not None and rng.random() < 0.3:
            self.say(rng.choice(LAST_WORDS[kind]))

    def _name(self, kind: str | None) -> None:
        start = len(self.words)
        self._some_name(kind)
        self.names.append((start, len(self.words)))
        self.kinds.append(kind)

    def aside(self) -> None:
        """Something that is said about no name; a name in it names a place or a group."""
        for item in self._rng.choice(ASIDES).split():
            if item == "@":
                self._some_name(self._rng.choice(SHORTHAND_CLASSES))
            else:
                self.say(item)

    def tell(self, kind: str) -> None:
        """One of the forms of a class, with all that it says."""
        rng, first = self._rng, len(self.names)
        said: list[tuple[int, int, str, str]] = []
        for item in rng.choice(FORMS[kind]).split():
            if item.startswith("?"):
                if rng.random() < 0.5:
                    continue
                item = item[1:]
            if item in ("@1", "@2"):
                self._name(kind)
            elif item.startswith("~"):
                remark, heads = item[1:].split(":")
                start, end = self.say(rng.choice(REMARKS[remark]))
                said.append((start, end, SAME_AS.get(remark, remark), heads))
            else:
                self.say(rng.choice(item.split("|")).replace("_", ""))
        for start, end, remark, heads in said:
            owners = tuple(first + int(head) - 1 for head in heads)
            self.remarks.append((start, end, remark, owners))

    def _quantity(self, owner: int, units: Sequence[str]) -> None:
        start = len(self.words)
        self.words += _number(self._rng)
        if self._rng.random() < 0.8:
            self.say(self._rng.choice(units))
        self.remarks.append((start, len(self.words), "quantity", (owner,)))

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
