"""Generated shorthand: invented names with numbers and units, and who owns which number.

The open text has few doses, ranges and list lines. This makes lines of that shape from invented
words (syllables at random, no real term), so that the backbone can copy unseen words and can tie
a quantity to the name it stands with. No line is a clinical statement.
"""

from __future__ import annotations

import random
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
_SEPARATORS = [",", ";", ".", "\n", "and", "\n -", "with", ":", "\n 1 ."]


@dataclass(frozen=True)
class Shorthand:
    """A generated line as words, its names, and each quantity with the name that owns it."""

    words: tuple[str, ...]
    names: tuple[tuple[int, int], ...]
    quantities: tuple[tuple[int, int, int], ...]
    """(first word, one past last, index into ``names``)"""


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


def make_shorthand(rng: random.Random) -> Shorthand:
    """One generated line of one to five names, each with none to two quantities."""
    words: list[str] = []
    names: list[tuple[int, int]] = []
    quantities: list[tuple[int, int, int]] = []
    for _ in range(rng.randint(1, 5)):
        if rng.random() < 0.4:
            words += rng.choice(ABBREVIATIONS).split()
        before = rng.random() < 0.2
        if before:
            start = len(words)
            words += _number(rng) + rng.choice(UNITS).split()
            quantities.append((start, len(words), len(names)))
            if rng.random() < 0.5:
                words.append("of")
        start = len(words)
        words += [invented_word(rng) for _ in range(rng.randint(1, 2))]
        owner = len(names)
        names.append((start, len(words)))
        for _ in range(0 if before else rng.randint(0, 2)):
            if rng.random() < 0.3:
                words.append(rng.choice(["is", "of", "was", "at", ":", "("]))
            start = len(words)
            words += _number(rng) + (rng.choice(UNITS).split() if rng.random() < 0.8 else [])
            quantities.append((start, len(words), owner))
            if rng.random() < 0.3:
                words += rng.choice(ABBREVIATIONS).split()
        words += rng.choice(_SEPARATORS).split(" ")
    return Shorthand(tuple(words), tuple(names), tuple(quantities))
