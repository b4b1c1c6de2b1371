"""Labelled segments and shorthand in, pretraining exercises out: "mark up X" over real sentences.

An exercise is a request (some words for what to mark), a text, and the text again with tags. The
words of the requests are everyday ones, words of the text, and the scheme's names of types: those
of modifiers mean what they say, those of main types nothing in particular (``TYPE_NAMES``). The
scheme's definitions and long prompts never occur.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from .remarks import REMARK_WORDS
from .shorthand import KnownNames, Shorthand, make_shorthand
from .weak_labels import CLASS_WORDS, Clusters, Span, chunks

#: The main types of the product's default scheme: a request may use them as names of nothing in
#: particular (``_arbitrary_names``), never as those of a class.
TYPE_NAMES = ("problem", "treatment", "test", "drug")
_HEADS = ("disorder", "medicine", "exam", "operation")
_ARBITRARY = 0.4  # of the requests for kinds of names
_OWNED = ("number", "quantity", "time", "bracket")
_RARE_FIRST = (
    *("medicine", "medicine", "medicine", "exam", "exam", "operation", "operation"),
    *("T191", "T184", "T037", "T019", "time", "phenotype"),
)
_ITEMS = ("name", "item", "main")
#: (first word, one past last, name in its tag)
_Head = tuple[int, int, str]
#: (first word, one past last, name in its tag, places of its heads)
_Owned = tuple[int, int, str, tuple[int, ...]]


@dataclass(frozen=True)
class Tag:
    """A tagged span of words: [start, end), the word in the tag, and the head's number if any."""

    start: int
    end: int
    word: str
    head: int | None = None


@dataclass(frozen=True)
class Exercise:
    """One pretraining exercise, all in words.

    Attributes:
        request: what is to be marked.
        asked: the words that a tag may hold, whether one does or not.
        words: the text.
        shown: tags in the given text.
        marked: tags in the answer.
    """

    request: tuple[str, ...]
    asked: tuple[str, ...]
    words: tuple[str, ...]
    shown: tuple[Tag, ...]
    marked: tuple[Tag, ...]


def _flat(spans: Sequence[Span], rng: random.Random) -> list[Span]:
    """Drop overlaps, longer spans first."""
    chosen: list[Span] = []
    taken: set[int] = set()
    for span in sorted(spans, key=lambda s: (s[0] - s[1], rng.random())):
        if taken.isdisjoint(range(span[0], span[1])):
            chosen.append(span)
            taken.update(range(span[0], span[1]))
    return sorted(chosen)


class ExerciseMaker:
    """Draws exercises from labelled segments, rarer classes more often than they occur.

    Args:
        segments: segments as words.
        labels: the weak labels of each segment; None for one that may only be copied.
        known: names of known kinds for shorthand.
        clusters: word clusters for "words like this one".
        rng: all randomness.
        mix: shares of the kinds of exercise: classes, words like these, literally these, what
            belongs to a head, shorthand.
    """

    def __init__(
        self,
        segments: Sequence[Sequence[str]],
        labels: Sequence[Sequence[Span] | None],
        clusters: Clusters,
        known: KnownNames,
        rng: random.Random,
        *,
        mix: tuple[float, float, float, float, float],
    ) -> None:
        self._mix = mix
        self._segments, self._clusters, self._known, self._rng = segments, clusters, known, rng
        self._labels: list[Sequence[Span]] = [spans or () for spans in labels]
        self._labelled = [index for index, spans in enumerate(labels) if spans is not None]
        self._with: dict[str, list[int]] = defaultdict(list)
        for index, spans in enumerate(self._labels):
            for name in {c for _, _, c in spans}:
                self._with[name].append(index)
        self._members = [
            [w for w in words if w.rstrip("s") not in TYPE_NAMES and len(w) > 2]
            for words in clusters.members
        ]

    def draw(self, *, longest: int, easy: float) -> Exercise:
        """One exercise of at most ``longest`` words; with probability ``easy`` only copying."""
        if self._rng.random() < easy:
            return self._literal(longest)
        kinds = (self._classes, self._similar, self._literal, self._owned)
        [make] = self._rng.choices((*kinds, None), weights=self._mix)
        return make(longest) if make else self._shorthand()

    def _segment(self, among: Sequence[int], longest: int) -> int:
        for _ in range(50):
            index = self._rng.choice(among or self._labelled)
            if len(self._segments[index]) <= longest:
                return index
        drawn = [self._rng.choice(self._labelled) for _ in range(50)]
        return min(drawn, key=lambda i: len(self._segments[i]))

    def _ask(self, name: str) -> str:
        return self._rng.choice(CLASS_WORDS[name])

    def _arbitrary_names(self, classes: Sequence[str]) -> dict[str, str]:
        """Names for classes that mean another class the next time.

        So the backbone learns to look for things of several kinds whatever they are called, and
        that one kind has one name; which is which is for an adapter to say.
        """
        rng = self._rng
        if rng.random() < 0.5:
            names = rng.sample(TYPE_NAMES, len(classes))
        else:
            groups = rng.sample([words for words in self._members if words], len(classes))
            names = [rng.choice(words[:40]) for words in groups]
        return dict(zip(classes, names, strict=True))

    def _classes(self, longest: int) -> Exercise:
        rng = self._rng
        among = self._with[rng.choice(_RARE_FIRST)] if rng.random() < 0.6 else self._labelled
        index = self._segment(among, longest)
        words, spans = self._segments[index], self._labels[index]
        present = sorted({c for _, _, c in spans if c != "chunk"})
        if rng.random() < 0.4:
            present = list(_HEADS)  # all kinds of names at once: they must be told apart
        wanted = rng.sample(present, min(len(present), rng.choice((1, 2, 3, 4, 4))))
        others = [c for c in CLASS_WORDS if c not in ("literal", "cluster", "chunk")]
        for name in rng.sample(others, rng.randint(0, 3)):
            if name not in present and name not in wanted:
                wanted.append(name)
        if not wanted or rng.random() < 0.06:
            wanted = ["chunk"]
        rng.shuffle(wanted)
        asked = {name: self._ask(name) for name in wanted}
        if rng.random() < _ARBITRARY and asked.keys() <= set(_HEADS):
            asked = self._arbitrary_names(wanted)
        kept = _flat([s for s in spans if s[2] in asked], rng)
        request = tuple(asked.values())
        tags = tuple(Tag(a, b, asked[c]) for a, b, c in kept)
        return Exercise(request, request, tuple(words), (), tags)

    def _similar(self, longest: int) -> Exercise:
        rng = self._rng
        index = self._segment(self._labelled, longest)
        words, spans = self._segments[index], self._labels[index]
        here = sorted({self._clusters.of_word[w] for w in words if w in self._clusters.of_word})
        here = [c for c in here if self._members[c]]
        wanted = rng.sample(here, min(len(here), rng.randint(1, 3)))
        for _ in range(rng.randint(0, 2)):
            other = rng.randrange(len(self._members))
            if self._members[other] and other not in wanted and other not in here:
                wanted.append(other)
        rng.shuffle(wanted)
        asked = {c: rng.choice(self._members[c][:40]) for c in wanted}
        phrases = rng.random() < 0.5
        found: list[Span] = []
        if phrases:
            for a, b, name in spans:
                cluster = self._clusters.of_word.get(words[b - 1])
                if name == "chunk" and cluster in asked:
                    found.append((a, b, asked[cluster]))
        else:
            for at, word in enumerate(words):
                cluster = self._clusters.of_word.get(word)
                if cluster in asked:
                    found.append((at, at + 1, asked[cluster]))
        lead = (rng.choice(CLASS_WORDS["cluster"]), *(("phrase",) if phrases else ()))
        tags = tuple(Tag(a, b, c) for a, b, c in _flat(found, rng))
        request = tuple(asked.values())
        return Exercise((*lead, ":", *request), request, tuple(words), (), tags)

    def _literal(self, longest: int) -> Exercise:
        rng = self._rng
        if rng.random() < 0.25:
            line = make_shorthand(rng, self._known)
            words: Sequence[str] = line.words
            targets = list(line.names)
        else:
            index = self._segment(range(len(self._segments)), longest)
            words = self._segments[index]
            targets = [(a, b) for a, b in chunks(words) if b - a <= 3]
        chosen = sorted(rng.sample(targets, min(len(targets), rng.randint(0, 3))))
        name = self._ask("literal")
        request: list[str] = [name, ":"]
        for a, b in chosen:
            request += [*words[a:b], ","]
        tags = tuple(Tag(a, b, name) for a, b in chosen)
        return Exercise(tuple(request), (name,), tuple(words), (), tags)

    def _relate(
        self, words: Sequence[str], heads: Sequence[_Head], owned: Sequence[_Owned], spare: str
    ) -> Exercise:
        """Heads shown; what belongs to one (or, numbered, to each) is to be marked.

        ``heads`` are (first, end, name in the tag), ``owned`` (first, end, name to mark it by,
        places of its heads); ``spare`` is asked for as well.
        """
        rng = self._rng
        request = list(dict.fromkeys([*(o[2] for o in owned), *spare.split()]))
        rng.shuffle(request)
        if rng.random() < 0.8:
            shown = [Tag(a, b, name, i + 1) for i, (a, b, name) in enumerate(heads)]
            kept = _flat([(a, b, f"{i}") for i, (a, b, _, _) in enumerate(owned)], rng)
            marked = [
                Tag(a, b, owned[int(i)][2], head + 1)
                for a, b, i in kept
                for head in owned[int(i)][3]
            ]
        else:
            owners = sorted({head for o in owned for head in o[3]})
            chosen = (
                rng.choice(owners) if owners and rng.random() < 0.75 else rng.randrange(len(heads))
            )
            shown = [Tag(*heads[chosen])]
            mine = _flat([(a, b, c) for a, b, c, h in owned if chosen in h], rng)
            marked = [Tag(a, b, c) for a, b, c in mine]
        return Exercise(("of", *request), tuple(request), tuple(words), tuple(shown), tuple(marked))

    def _owned(self, longest: int) -> Exercise:
        rng = self._rng
        among = self._with[rng.choice(("quantity", "time", "bracket", "number", "exam"))]
        index = self._segment(among, longest)
        words, spans = self._segments[index], self._labels[index]
        heads = _flat([s for s in spans if s[2] in _HEADS], rng)
        if not heads:
            heads = [s for s in spans if s[2] == "chunk"][:6]
        if not heads:
            return self._literal(longest)
        owned = []
        candidates = [s for s in spans if s[2] in _OWNED]
        similar = [c for c in {self._clusters.of_word.get(w) for w in words} if c is not None]
        if similar:
            cluster = rng.choice(sorted(similar))
            word = rng.choice(self._members[cluster][:40]) if self._members[cluster] else None
            if word:
                candidates += [
                    (i, i + 1, word)
                    for i, w in enumerate(words)
                    if self._clusters.of_word.get(w) == cluster
                ]
        for a, b, c in candidates:
            free = [h for h in heads if b <= h[0] or h[1] <= a]
            if not free:
                continue
            # What follows its name is nearer than what precedes it.
            nearest = min(free, key=lambda h: (a - h[1]) if h[1] <= a else 2 * (h[0] - b) + 1)
            owned.append((a, b, c, heads.index(nearest)))
        names = {c: self._ask(c) if c in CLASS_WORDS else c for c in {o[2] for o in owned}}
        item = rng.choice(_ITEMS)
        return self._relate(
            words,
            [(a, b, item) for a, b, _ in heads],
            [(a, b, names[c], (h,)) for a, b, c, h in owned],
            self._ask(rng.choice(_OWNED)),
        )

    def _shorthand(self) -> Exercise:
        rng = self._rng
        line = make_shorthand(rng, self._known)
        told = None not in line.kinds
        if rng.random() < 0.55:
            return self._remarks(line) if told else self._quantities(line)
        if told:
            asked = {name: self._ask(name) for name in _HEADS}
            if rng.random() < _ARBITRARY:
                asked = self._arbitrary_names(_HEADS)
            names = [(a, b, k) for (a, b), k in zip(line.names, line.kinds, strict=True) if k]
        else:
            asked = {"thing": rng.choice(CLASS_WORDS["chunk"])}
            names = [(a, b, "thing") for a, b in line.names]
        request = list(asked.values())
        rng.shuffle(request)
        tags = tuple(Tag(a, b, asked[c]) for a, b, c in names)
        return Exercise(tuple(request), tuple(request), line.words, (), tags)

    def _quantities(self, line: Shorthand) -> Exercise:
        item, name = self._rng.choice(_ITEMS), self._ask("quantity")
        owned = [(a, b, name, owners) for a, b, _, owners in line.remarks]
        return self._relate(
            line.words, [(a, b, item) for a, b in line.names], owned, self._ask("time")
        )

    def _remarks(self, line: Shorthand) -> Exercise:
        """What is said about each name, of all kinds or of some."""
        rng = self._rng
        item = {kind: rng.choice(_ITEMS) for kind in _HEADS}
        if rng.random() < 0.5:
            item = {kind: self._ask(kind) for kind in _HEADS}
        elif rng.random() < 0.5:
            item = self._arbitrary_names(_HEADS)
        heads = [(a, b, item[k or ""]) for (a, b), k in zip(line.names, line.kinds, strict=True)]
        names = {kind: rng.choice(words) for kind, words in REMARK_WORDS.items()}
        if rng.random() < 0.6:
            names = {kind: words[0] for kind, words in REMARK_WORDS.items()}
        else:
            names = {kind: names[kind] for kind in rng.sample(sorted(names), rng.randint(3, 10))}
        owned = [(a, b, names[k], owners) for a, b, k, owners in line.remarks if k in names]
        return self._relate(line.words, heads, owned, " ".join(names.values()))
