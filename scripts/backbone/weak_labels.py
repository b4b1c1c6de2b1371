"""Segments of open text in, weakly labelled spans out: dictionaries, head words, numbers, clusters.

Nothing here is hand-annotated, and nothing knows the annotation scheme of the product. A label is
a *class*; each class has a few everyday words by which a prompt may ask for it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.cluster.vq import kmeans2

from .heads import class_of_head
from .text import Name
from .vectors import company_vectors

#: (first word, one past the last word, class)
Span = tuple[int, int, str]

STOPWORDS = frozenset(
    "a an the of in on at to for from by with without and or but nor if then than that this these "
    "those it its they them their he she his her him you your we our us i my who whom which what "
    "when where why how is are was were be been being am do does did has have had having can could "
    "may might must shall should will would not no as such so also very more most less least many "
    "much some any all each every both either neither few other another same own about into over "
    "after before during between through under above below up down out off again further once here "
    "there because while until against among within along across per via too only just even still "
    "usually often sometimes rarely called known include includes including cause causes caused "
    "occur occurs help helps make makes made need needs use used uses using get gets take takes "
    "taken give given find found show shows see seen have become becomes keep look like affect "
    "affects affected develop develops lead leads result results associated related characterized "
    "one two however although people person patient patients child children doctor doctors talk "
    "ask tell call want feel".split()
)

_JOINS = frozenset(".,-/")
_TIME = frozenset("second minute hour day week month year night morning evening decade".split())
_TIME |= frozenset(word + "s" for word in _TIME)

#: Class -> the words by which a prompt may ask for it.
CLASS_WORDS: dict[str, tuple[str, ...]] = {
    "disorder": ("disease", "disorder", "illness", "diagnosis", "complaint"),
    "T191": ("cancer", "tumor", "malignancy"),
    "T184": ("symptom", "sign", "symptoms"),
    "T037": ("injury", "poisoning", "wound"),
    "T019": ("birth", "inherited", "congenital"),
    "phenotype": ("abnormality", "feature", "features"),
    "medicine": ("medicine", "medication", "pill", "medicines"),
    "exam": ("exam", "scan", "laboratory", "measurement"),
    "operation": ("surgery", "operation", "procedure", "care"),
    "number": ("number", "numbers"),
    "quantity": ("amount", "percent", "quantity"),
    "time": ("time", "days", "years"),
    "bracket": ("bracket", "parenthesis"),
    "chunk": ("phrase", "words", "thing"),
    "literal": ("exactly", "this", "here"),
    "cluster": ("like", "similar", "group"),
}
_DISORDER_KINDS = frozenset(
    "T047 T019 T033 T191 T046 T037 T184 T048 T020 T049 T190 phenotype".split()
)


class NameIndex:
    """Longest-match look-up of names in a sequence of words."""

    def __init__(self, names: Iterable[Name]) -> None:
        self._kinds: dict[tuple[str, ...], set[str]] = defaultdict(set)
        self._longest: dict[str, int] = defaultdict(int)
        for name in names:
            if name.words[0] in STOPWORDS or name.words[-1] in STOPWORDS:
                continue
            told = class_of_head(name.words[-1])
            if told is not None and told not in classes_of(name.kind, name.words[-1]):
                continue  # a topic's page on treatment does not make treatment a disease
            self._kinds[name.words].add(name.kind)
            first = name.words[0]
            self._longest[first] = max(self._longest[first], len(name.words))

    def find(self, words: Sequence[str]) -> list[tuple[int, int, set[str]]]:
        """Leftmost longest matches: (first, one past last, kinds)."""
        found, at = [], 0
        while at < len(words):
            for size in range(min(self._longest.get(words[at], 0), len(words) - at), 0, -1):
                kinds = self._kinds.get(tuple(words[at : at + size]))
                if kinds:
                    found.append((at, at + size, kinds))
                    at += size
                    break
            else:
                at += 1
        return found


def chunks(words: Sequence[str]) -> list[tuple[int, int]]:
    """Runs of content words (hyphens and slashes inside are kept): rough noun phrases."""
    found, start = [], None
    for at in range(len(words) + 1):
        word = words[at] if at < len(words) else "."
        joins = word in ("-", "/") and start is not None
        if (word.isalpha() and word not in STOPWORDS) or joins:
            start = at if start is None else start
        elif start is not None:
            end = at
            while end > start and words[end - 1] in ("-", "/"):
                end -= 1
            found.append((start, end))
            start = None
    return [(s, e) for s, e in found if e - s <= 7]


def classes_of(kind: str, last: str) -> list[str]:
    """Classes of a name by its topic's kind and its own last word."""
    if kind in _DISORDER_KINDS:
        return ["disorder", *([kind] if kind in CLASS_WORDS else [])]
    if kind == "Drug":
        return ["medicine"]
    if kind in ("exam", "operation"):
        return [kind]
    head = class_of_head(last)
    return [head] if head else []


def _is_unit(word: str) -> bool:
    return word == "%" or word.isalpha()


def _numbers(words: Sequence[str]) -> list[Span]:
    found: list[Span] = []
    at = 0
    while at < len(words):
        if not words[at].isdigit():
            at += 1
            continue
        end = at + 1
        while end + 1 < len(words) and words[end] in _JOINS and words[end + 1].isdigit():
            end += 2
        found.append((at, end, "number"))
        if end < len(words) and words[end] in _TIME:
            found.append((at, end + 1, "time"))
        elif end < len(words) and words[end] not in STOPWORDS and _is_unit(words[end]):
            found.append((at, end + 1, "quantity"))
        at = end
    return found


def _brackets(words: Sequence[str]) -> list[Span]:
    found: list[Span] = []
    opened = None
    for at, word in enumerate(words):
        if word == "(":
            opened = at + 1
        elif word == ")" and opened is not None and at > opened:
            found.append((opened, at, "bracket"))
            opened = None
    return found


def label(words: Sequence[str], names: NameIndex) -> list[Span]:
    """Every weak label of a segment; spans of different classes may overlap."""
    found: set[Span] = set()
    for start, end, kinds in names.find(words):
        for kind in kinds:
            found |= {(start, end, c) for c in classes_of(kind, words[end - 1])}
    for start, end in chunks(words):
        found.add((start, end, "chunk"))
        head = class_of_head(words[end - 1])
        inside = any(start <= s and e <= end and c == head for s, e, c in found)
        if head and not inside:
            found.add((start, end, head))
    found.update(_numbers(words))
    found.update(_brackets(words))
    return sorted(found)


@dataclass(frozen=True)
class Clusters:
    """Words grouped by the company they keep."""

    of_word: dict[str, int]
    members: list[list[str]]


def cluster_words(
    segments: Sequence[Sequence[str]],
    *,
    barred: Collection[str],
    vocabulary: int = 6000,
    count: int = 120,
    seed: int = 0,
) -> Clusters:
    """k-means over the vectors of ``company_vectors``.

    Args:
        segments: segments as words.
        barred: words that are not placed.
        vocabulary: how many of the most frequent words to place.
        count: number of clusters.
        seed: of the k-means start.
    """
    frequency: dict[str, int] = defaultdict(int)
    for words in segments:
        for word in words:
            frequency[word] += 1
    ranked = sorted(frequency, key=lambda w: (-frequency[w], w))
    placed = [w for w in ranked if w.isalpha() and len(w) > 1 and w not in barred]
    placed = placed[:vocabulary]
    # Placed words first, then the other frequent ones, which are company only.
    company = list(dict.fromkeys([*placed, *ranked[:3000]]))
    number = {word: i for i, word in enumerate(company)}
    vectors = company_vectors(
        [[number.get(word, -1) for word in words] for words in segments],
        size=len(company),
        contexts=len(company),
        dimensions=min(64, len(company) - 1),
        seed=seed,
    )[: len(placed)]
    _, assigned = kmeans2(vectors, count, minit="++", seed=np.random.default_rng(seed), iter=25)
    members: list[list[str]] = [[] for _ in range(count)]
    for word, cluster in zip(placed, assigned, strict=True):
        if word not in STOPWORDS:
            members[int(cluster)].append(word)
    of_word = {word: c for c, words in enumerate(members) for word in words}
    return Clusters(of_word, members)
