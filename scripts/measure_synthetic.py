"""How hard the synthetic sites are: distances of their types, F1 of a dictionary and of a tagger.

    python scripts/measure_synthetic.py [--seed 7]

The tagger is an averaged perceptron over words, their shapes and endings and a window of three: a
yardstick that runs in seconds and has no pretraining. All F1 are strict micro of main entities.
"""

from __future__ import annotations

import argparse
import math
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import combinations

from fedmedlora.corpus.synthetic import STYLES, held_out_vocabulary, make_sites
from fedmedlora.evaluation.dictionary import learn_dictionary, predict_entities
from fedmedlora.evaluation.records import Cohort, score_cohorts
from fedmedlora.schema import DEFAULT_SCHEME, Document, Entity

_WORD = re.compile(r"\w+|[^\w\s]")
_MAINS = frozenset(DEFAULT_SCHEME.mains)
_EPOCHS = 6


class Tagger:
    """BIO tags by greedy left-to-right decoding."""

    def __init__(self, documents: Sequence[Document], *, seed: int) -> None:
        self._weights: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        totals: dict[tuple[str, str], float] = defaultdict(float)
        since: dict[tuple[str, str], int] = defaultdict(int)
        self._tags = ["O", *(f"{part}-{kind}" for kind in DEFAULT_SCHEME.mains for part in "BI")]
        rows = [_bio(document) for document in documents]
        rng, step = random.Random(seed), 0
        for _ in range(_EPOCHS):
            rng.shuffle(rows)
            for words, gold in rows:
                before = "O"
                for at, right in enumerate(gold):
                    step += 1
                    features = _features(words, at, before)
                    guess = self._best(features, before)
                    for tag, change in ((right, 1.0), (guess, -1.0)) if guess != right else ():
                        for feature in features:
                            slot = (feature, tag)
                            weight = self._weights[feature][tag]
                            totals[slot] += (step - since[slot]) * weight
                            since[slot] = step
                            self._weights[feature][tag] = weight + change
                    before = right
        for (feature, tag), total in totals.items():
            weight = self._weights[feature][tag]
            slot = (feature, tag)
            self._weights[feature][tag] = (total + (step - since[slot]) * weight) / step

    def _best(self, features: Sequence[str], before: str) -> str:
        scores: dict[str, float] = dict.fromkeys(self._tags, 0.0)
        for feature in features:
            for tag, weight in self._weights.get(feature, {}).items():
                scores[tag] += weight
        allowed = (t for t in self._tags if t[0] != "I" or before[1:] == t[1:])
        return max(allowed, key=lambda tag: scores[tag])

    def tag(self, document: Document) -> Document:
        """The document with predicted main entities alone."""
        places = [(m.start(), m.end()) for m in _WORD.finditer(document.text)]
        words, before = [document.text[a:b] for a, b in places], "O"
        spans: list[tuple[str, int, int]] = []
        for at, (start, end) in enumerate(places):
            before = self._best(_features(words, at, before), before)
            if before[0] == "B":
                spans.append((before[2:], start, end))
            elif before[0] == "I":
                kind, first, _ = spans.pop()
                spans.append((kind, first, end))
        found = tuple(Entity(f"T{i}", *span) for i, span in enumerate(spans, start=1))
        return Document(document.id, document.text, found, (), document.group, document.covers)


def _bio(document: Document) -> tuple[list[str], list[str]]:
    words, tags = [], []
    mains = [e for e in document.entities if e.type in _MAINS]
    for match in _WORD.finditer(document.text):
        inside = [e for e in mains if e.start <= match.start() and match.end() <= e.end]
        words.append(match.group())
        tags.append(
            f"{'B' if inside[0].start == match.start() else 'I'}-{inside[0].type}"
            if inside
            else "O"
        )
    return words, tags


def _features(words: Sequence[str], at: int, before: str) -> list[str]:
    word = words[at]
    around = {
        offset: words[at + offset].lower() if 0 <= at + offset < len(words) else "_"
        for offset in (-3, -2, -1, 1, 2, 3)
    }
    shape = re.sub(r"\d+", "9", re.sub(r"[a-z]+", "a", re.sub(r"[A-Z]+", "A", word)))
    return [
        "bias",
        f"tag={before}",
        f"word={word.lower()}",
        f"shape={shape}",
        *(f"end{size}={word[-size:].lower()}" for size in (2, 3, 4)),
        *(f"{offset}={form}" for offset, form in around.items()),
        f"pair={around[-1]} {around[1]}",
        f"tag, word={before} {word.lower()}",
    ]


def _shares(documents: Sequence[Document]) -> dict[str, float]:
    counts = Counter(e.type for document in documents for e in document.entities)
    return {kind: counts[kind] / counts.total() for kind in DEFAULT_SCHEME.types}


def _distance(left: dict[str, float], right: dict[str, float]) -> float:
    """Jensen-Shannon distance, base 2."""

    def part(p: float, q: float) -> float:
        return p * math.log2(2 * p / (p + q)) if p else 0.0

    total = sum(part(left[k], right[k]) + part(right[k], left[k]) for k in left)
    return math.sqrt(total / 2)


def _f1(gold: dict[str, Sequence[Document]], found: dict[str, Sequence[Document]]) -> Iterator[str]:
    records = score_cohorts(
        {name: Cohort(gold[name], found[name], _MAINS) for name in gold},
        scheme=DEFAULT_SCHEME,
        method="",
        round=None,
        tasks=("entities",),
        bootstrap=None,
    )
    kept = {
        r.cohort: r.f1
        for r in records
        if r.type == "micro" and r.matching == "strict" and r.level == "typed"
    }
    for name in ("all", *gold):
        yield f"{kept[name]:.2f}"


def _held_out_share(documents: Sequence[Document]) -> float:
    held_out = held_out_vocabulary()
    names = [
        document.text[e.start : e.end].lower()
        for document in documents
        for e in document.entities
        if e.type in _MAINS
    ]
    return sum(name in held_out for name in names) / len(names)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--train", type=int, default=160)
    parser.add_argument("--test", type=int, default=100)
    arguments = parser.parse_args()
    sites = make_sites(
        arguments.seed, train=arguments.train, validation=0, test=arguments.test, sites=STYLES
    )
    gold: dict[str, Sequence[Document]] = {name: site.test for name, site in sites.items()}
    for name, site in sites.items():
        lengths = sorted(len(document.text.split()) for document in site.train)
        share = _held_out_share(site.test)
        print(f"{name}: median {lengths[len(lengths) // 2]} words, {share:.0%} held out in test")
    for left, right in combinations(sites, 2):
        distance = _distance(_shares(sites[left].train), _shares(sites[right].train))
        print(f"distance of types, {left} and {right}: {distance:.2f}")
    print(f"\n| trained on | | all | {' | '.join(sites)} |\n|---|---|---|{'---|' * len(sites)}")
    for names in (*((name,) for name in sites), tuple(sites)):
        documents = [document for name in names for document in sites[name].train]
        dictionary = learn_dictionary(documents, scheme=DEFAULT_SCHEME)
        tagger = Tagger(documents, seed=arguments.seed)
        looked_up: dict[str, Sequence[Document]] = {
            name: [predict_entities(dictionary, d, covers=_MAINS) for d in gold[name]]
            for name in gold
        }
        tagged: dict[str, Sequence[Document]] = {
            name: [tagger.tag(d) for d in gold[name]] for name in gold
        }
        for kind, found in (("dictionary", looked_up), ("tagger", tagged)):
            print(f"| {' + '.join(names)} | {kind} | {' | '.join(_f1(gold, found))} |", flush=True)


if __name__ == "__main__":
    main()
