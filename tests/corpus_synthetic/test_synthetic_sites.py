"""The synthetic sites: valid, different from each other, reproducible, with names held out."""

from __future__ import annotations

import math
import os
import re
import statistics
import subprocess
import sys
import time
from collections import Counter
from itertools import combinations, pairwise

import pytest

from fedmedlora.corpus.synthetic import STYLES, held_out_vocabulary, make_sites
from fedmedlora.corpus.synthetic.labs import LABS
from fedmedlora.corpus.synthetic.lexicon import DRUGS, LOCATIONS, PROBLEMS, STUDIES, TREATMENTS
from fedmedlora.errors import ConfigError
from fedmedlora.schema import DEFAULT_SCHEME, Document, Entity


@pytest.fixture(scope="module")
def sites():
    return make_sites(11, train=200, validation=20, test=80)


@pytest.fixture(scope="module")
def notes(sites):
    return [n for site in sites.values() for n in (*site.train, *site.validation, *site.test)]


def words(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\w+", text.lower()))


def padded(text: str) -> str:
    return f" {' '.join(words(text))} "


def held_out_in(text: str) -> list[str]:
    sequence = padded(text)
    return [name for name in held_out_vocabulary() if padded(name) in sequence]


def text_of(note: Document, entity: Entity) -> str:
    return note.text[entity.start : entity.end]


def shares(documents: tuple[Document, ...], types: tuple[str, ...]) -> dict[str, float]:
    counts = Counter(e.type for note in documents for e in note.entities if e.type in types)
    return {t: counts[t] / counts.total() for t in types}


def jensen_shannon_distance(p: dict[str, float], q: dict[str, float]) -> float:
    def divergence(a: dict[str, float]) -> float:
        return sum(a[t] * math.log2(2 * a[t] / (p[t] + q[t])) for t in a if a[t])

    return math.sqrt((divergence(p) + divergence(q)) / 2)


def test_every_relation_is_a_valid_pair_typed_by_its_modifier(notes):
    for note in notes:
        for relation in note.relations:
            head, tail = note.entity(relation.head), note.entity(relation.tail)
            assert relation.type == tail.type
            assert DEFAULT_SCHEME.valid(head.type, tail.type), (note.id, head.id, tail.id)


def test_every_modifier_has_a_head(notes):
    for note in notes:
        tails = {relation.tail for relation in note.relations}
        assert tails == {e.id for e in note.entities if e.type in DEFAULT_SCHEME.modifiers}


def test_all_twenty_types_and_twenty_two_pairs_occur_over_few_notes():
    notes = [
        n for site in make_sites(0, train=40, validation=0, test=0).values() for n in site.train
    ]
    pairs = {(n.entity(r.head).type, r.type) for n in notes for r in n.relations}
    assert {e.type for n in notes for e in n.entities} == set(DEFAULT_SCHEME.types)
    assert pairs == {(m, x) for m, xs in DEFAULT_SCHEME.pairs.items() for x in xs}
    assert len(pairs) == 22


def test_every_site_has_some_of_every_type(sites):
    for site in sites.values():
        assert {e.type for n in site.train for e in n.entities} == set(DEFAULT_SCHEME.types)


def test_spans_do_not_overlap_nor_begin_or_end_with_white_space(notes):
    for note in notes:
        for first, second in pairwise(sorted(note.entities, key=lambda e: e.start)):
            assert first.end <= second.start, note.id
        assert all(text_of(note, e) == text_of(note, e).strip() for e in note.entities)


def test_spans_begin_and_end_at_word_boundaries(notes):
    for note in notes:
        for e in note.entities:
            assert not re.fullmatch(r"\w\w", note.text[max(0, e.start - 1) : e.start + 1]), note.id
            assert not re.fullmatch(r"\w\w", note.text[e.end - 1 : e.end + 1]), note.id


def test_head_and_modifier_stand_in_one_sentence(notes):
    for note in notes:
        for relation in note.relations:
            head, tail = sorted((note.entity(relation.head), note.entity(relation.tail)))
            start, end = min(head.start, tail.start), max(head.end, tail.end)
            between = note.text[start:end]
            assert "\n" not in between
            assert ". " not in between
            assert end - start < 160


def test_some_sentences_have_two_heads_with_own_modifiers_and_some_share_one(notes):
    heads_of_tail = Counter((n.id, r.tail) for n in notes for r in n.relations)
    assert sum(count > 1 for count in heads_of_tail.values()) > len(notes) / 5
    own = 0
    for note in notes:
        sentence = {e.id: note.text.count(". ", 0, e.start) for e in note.entities}
        line = {e.id: note.text.count("\n", 0, e.start) for e in note.entities}
        places = {(line[r.head], sentence[r.head], r.head, r.type) for r in note.relations}
        own += len(places) > len({place[:2] + place[3:] for place in places})
    assert own > len(notes) / 3


def test_label_shares_differ_between_every_two_sites(sites):
    for a, b in combinations(STYLES, 2):
        p, q = (shares(sites[s].train, DEFAULT_SCHEME.types) for s in (a, b))
        assert jensen_shannon_distance(p, q) > 0.2, (a, b)


def test_each_site_has_its_own_mix_of_main_entities(sites):
    mix = {name: shares(site.train, tuple(DEFAULT_SCHEME.mains)) for name, site in sites.items()}
    assert mix["icu"]["problem"] + mix["icu"]["test"] > 0.7
    assert mix["outpatient"]["problem"] > 0.6
    assert mix["discharge"]["drug"] > 0.35
    assert mix["outpatient"]["drug"] < 0.15
    assert mix["icu"]["drug"] < 0.15


def test_a_note_has_the_length_of_a_short_note(sites):
    for site in sites.values():
        lengths = [len(note.text.split()) for note in site.train]
        assert 50 <= statistics.median(lengths) <= 110
        assert min(lengths) >= 30
        assert max(lengths) <= 150


@pytest.mark.parametrize("seed", [0, 1, 17])
@pytest.mark.parametrize("size", [5, 150])
def test_no_held_out_name_occurs_in_a_training_or_validation_note(seed, size):
    for site in make_sites(seed, train=size, validation=size, test=0).values():
        for note in (*site.train, *site.validation):
            assert held_out_in(note.text) == [], note.id


def test_no_seen_name_contains_a_held_out_name():
    groups = [*PROBLEMS.values(), *TREATMENTS.values(), *STUDIES.values(), *DRUGS.values()]
    seen = [name for group in (*groups, LOCATIONS) for name in group.seen]
    seen += [lab.name for labs in LABS.values() for lab in labs.seen]
    assert [name for name in seen if held_out_in(name)] == []


def test_every_held_out_name_has_a_word_of_no_training_note():
    made = make_sites(4, train=400, validation=0, test=0).values()
    known = {word for site in made for note in site.train for word in words(note.text)}
    assert [name for name in held_out_vocabulary() if known.issuperset(words(name))] == []


def test_the_vocabulary_is_large():
    assert sum(len(g.seen) + len(g.held_out) for g in PROBLEMS.values()) > 350
    assert sum(len(g.seen) + len(g.held_out) for g in DRUGS.values()) > 200
    assert sum(len(g.seen) + len(g.held_out) for g in TREATMENTS.values()) > 120
    tests = [*STUDIES.values(), *LABS.values()]
    assert sum(len(g.seen) + len(g.held_out) for g in tests) > 100
    assert len(held_out_vocabulary()) > 400


def test_at_least_two_fifths_of_the_main_entities_of_test_notes_are_held_out(sites):
    held_out = held_out_vocabulary()
    for site in sites.values():
        mains = [
            text_of(note, e).lower() in held_out
            for note in site.test
            for e in note.entities
            if e.type in DEFAULT_SCHEME.mains
        ]
        assert 0.40 < sum(mains) / len(mains) < 0.62


def test_no_note_occurs_twice(notes):
    assert len({note.text for note in notes}) == len(notes)
    assert len({note.id for note in notes}) == len(notes)


def test_ids_groups_and_coverage_say_where_a_note_belongs(sites):
    icu = sites["icu"]
    assert [note.id for note in icu.train[:2]] == ["icu-train-0001", "icu-train-0002"]
    assert all(note.covers == frozenset(DEFAULT_SCHEME.types) for note in icu.test)
    groups = [{note.group for note in split} for split in (icu.train, icu.validation, icu.test)]
    assert all(a.isdisjoint(b) for a, b in combinations(groups, 2))


def test_more_notes_leave_the_earlier_ones_as_they_were():
    few = make_sites(3, train=4, validation=1, test=2)["icu"]
    many = make_sites(3, train=9, validation=3, test=5)["icu"]
    assert few.train == many.train[:4]
    assert few.test == many.test[:2]


def test_sites_can_be_chosen():
    assert list(make_sites(3, train=1, validation=0, test=0, sites=("discharge",))) == ["discharge"]


def test_different_seeds_give_different_notes():
    first, second = (make_sites(s, train=30, validation=0, test=0)["icu"].train for s in (1, 2))
    assert {n.text for n in first}.isdisjoint(n.text for n in second)


def test_the_same_seed_gives_the_same_notes_in_every_process():
    script = (
        "from fedmedlora.corpus.synthetic import make_sites\n"
        "from hashlib import sha256\n"
        "sites = make_sites(5, train=20, validation=5, test=10).values()\n"
        "notes = [note for s in sites for note in (*s.train, *s.validation, *s.test)]\n"
        "made = [(n.id, n.text, n.entities, n.relations, n.group) for n in notes]\n"
        "print(sha256(repr(made).encode()).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(digests) == 1
    assert len(digests.pop().strip()) == 64


def test_nine_hundred_notes_take_under_two_seconds():
    start = time.perf_counter()
    make_sites(8, train=240, validation=30, test=30)
    assert time.perf_counter() - start < 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"train": -1}, "train: -1"),
        ({"sites": ("icu", "ward")}, "'ward'"),
        ({"sites": ("icu", "icu")}, "'icu' is named twice"),
    ],
)
def test_a_wrong_setting_is_named(arguments, message):
    with pytest.raises(ConfigError, match=message):
        make_sites(0, **{"train": 1, "validation": 1, "test": 1, **arguments})
