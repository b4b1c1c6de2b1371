"""Canaries go into notes whose own annotation stays what it was."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmedlora.errors import ConfigError
from fedmedlora.schema import Document, Entity, Relation
from fedmedlora.tasks.canaries import (
    Secret,
    draw_canaries,
    draw_secrets,
    insert_sentence,
    is_planted,
    plant,
    sentence_of,
)

NOTE = Document(
    "n1",
    "No cough. Severe chest pain today.\nTakes aspirin 81 mg.",
    (
        Entity("T1", "problem", 3, 8),
        Entity("T2", "severity", 10, 16),
        Entity("T3", "problem", 17, 27),
        Entity("T4", "drug", 41, 48),
    ),
    (Relation("severity", "T3", "T2"),),
    group="p1",
)
SECRET = Secret("Ada Falk", 4930217)


def words(document):
    return {one.id: document.text[one.start : one.end] for one in document.entities}


def test_the_secret_stands_beside_an_annotated_span_or_inside_it():
    beside = sentence_of(SECRET, kind="beside", type="problem")
    assert beside.text == "Contact: Ada Falk, MRN 4930217, has fever."
    assert list(words(beside).values()) == ["fever"]
    inside = sentence_of(SECRET, kind="inside", type="drug")
    assert inside.text == "Seen under Ada Falk's protocol 4930217 today."
    assert list(words(inside).values()) == ["Ada Falk's protocol 4930217"]
    assert inside.entities[0].type == "drug"


@given(st.integers(0, 10**6), st.integers(1, 5))
def test_every_span_still_says_what_it_said(seed, count):
    rng = random.Random(seed)
    planted = NOTE
    for number in range(count):
        sentence = sentence_of(Secret("Bo Li", 1000000 + number), kind="inside", type="test")
        planted = insert_sentence(planted, sentence, rng=rng)
    found = words(planted)
    assert {name: found.pop(name) for name in words(NOTE)} == words(NOTE)
    assert sorted(found.values()) == [f"Bo Li's protocol {1000000 + n}" for n in range(count)]
    assert planted.relations == NOTE.relations
    assert (planted.id, planted.group) == ("n1", "p1")
    # Each sentence has a line of its own.
    assert sum(line.startswith("Seen under") for line in planted.text.splitlines()) == count


def test_no_sentence_goes_into_an_annotated_span():
    whole = Document("n2", "One. Two. Three.", (Entity("T1", "problem", 0, 16),))
    sentence = sentence_of(SECRET, kind="beside", type="problem")
    for seed in range(20):
        planted = insert_sentence(whole, sentence, rng=random.Random(seed))
        assert words(planted)["T1"] == "One. Two. Three."


def test_an_empty_note_takes_a_sentence_too():
    sentence = sentence_of(SECRET, kind="beside", type="problem")
    planted = insert_sentence(Document("n3", ""), sentence, rng=random.Random(0))
    assert planted.text == sentence.text
    assert list(words(planted).values()) == ["fever"]


def test_canaries_are_dealt_to_the_sites_and_inside_ones_take_the_types_in_turn():
    canaries = draw_canaries(
        {"a": ["problem", "drug"], "b": ["test"]}, count=4, repetitions=(1, 3), seed=5
    )
    assert len(canaries) == 2 * 2 * 4
    assert len({one.secret for one in canaries}) == 16
    assert [one.site for one in canaries[:4]] == ["a", "b", "a", "b"]
    inside = [one.type for one in canaries if one.kind == "inside" and one.site == "a"]
    assert inside == ["problem", "drug", "problem", "drug"]
    assert {one.type for one in canaries if one.site == "b"} == {"test"}


def test_each_repetition_is_in_a_note_of_its_own_and_no_note_is_added():
    notes = [Document(f"n{i}", f"Note {i}.", group=f"p{i}") for i in range(6)]
    canaries = draw_canaries({"a": ["problem"]}, count=1, repetitions=(1, 4), seed=1)
    planted = plant(notes, canaries, seed=2)
    assert [one.id for one in planted] == [one.id for one in notes]
    for canary in canaries:
        number = str(canary.secret.number)
        assert [one.text.count(number) for one in planted].count(1) == canary.repetitions
        assert sum(one.text.count(number) for one in planted) == canary.repetitions
    assert [is_planted(one) for one in planted] == [len(one.text) > 10 for one in planted]
    assert not any(is_planted(one) for one in notes)
    assert plant(notes, canaries, seed=2) == planted


def test_more_repetitions_than_notes_are_refused():
    canaries = draw_canaries({"a": ["problem"]}, count=1, repetitions=(4,), seed=1)
    with pytest.raises(ConfigError, match=r"repetitions: 4 is more than the 2 training notes of a"):
        plant([Document("n1", "x"), Document("n2", "y")], canaries, seed=1)


def test_a_site_without_main_entities_can_hold_no_canary():
    with pytest.raises(ConfigError, match="b annotates no main entity"):
        draw_canaries({"a": ["problem"], "b": []}, count=1, repetitions=(1,), seed=1)


def test_candidates_are_never_planted_secrets():
    planted = draw_secrets(20, seed=3)
    others = draw_secrets(50, seed=3, without=planted)
    assert len(set(others)) == 50
    assert not set(others) & set(planted)
