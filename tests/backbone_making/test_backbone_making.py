"""What the embedded backbone is made from: labels, exercises and vectors, on a text made here."""

import itertools
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
sys.path.insert(0, str(SCRIPTS))

from backbone.exercises import TYPE_NAMES, ExerciseMaker  # noqa: E402
from backbone.heads import class_of_head  # noqa: E402
from backbone.held_out import HeldOutTerms  # noqa: E402
from backbone.priming import content_of, prime_copying, prime_meaning  # noqa: E402
from backbone.remarks import ASIDES, LAST_WORDS, REMARK_WORDS, REMARKS, fill  # noqa: E402
from backbone.shorthand import SHORTHAND_CLASSES, make_shorthand  # noqa: E402
from backbone.text import Name, words_of  # noqa: E402
from backbone.tokenizer import train_tokenizer  # noqa: E402
from backbone.training import Encoder, Optimiser, Plan, new_model  # noqa: E402
from backbone.vectors import company_vectors  # noqa: E402
from backbone.weak_labels import NameIndex, cluster_words, label  # noqa: E402

TEXT = [
    "lisinopril is a medicine that is used to treat high blood pressure in adults .",
    "asthma may cause wheezing ( a whistling sound ) and coughing at night .",
    "an appendectomy is done within 24 hours , with 2 small cuts .",
    "a chest x - ray shows pneumonia in 90 % of cases .",
    "metformin 500 mg is taken with food for many years .",
    "quinapril is another medicine of this kind , often given with food .",
]
NAMES = [
    Name(("lisinopril",), "Drug"),
    Name(("metformin",), "Drug"),
    Name(("asthma",), "T047"),
    Name(("pneumonia",), "T047"),
    Name(("treatment",), "T047"),
]
HELD_OUT = "quinapril"


@pytest.fixture(scope="module")
def segments():
    return [words_of(line) for line in TEXT]


@pytest.fixture(scope="module")
def maker(segments):
    held_out = HeldOutTerms()
    names = NameIndex(NAMES)
    labels = [None if held_out.found_in(w) else label(w, names) for w in segments]
    clusters = cluster_words(segments * 20, barred={HELD_OUT}, vocabulary=60, count=5, seed=1)
    known = {"medicine": [("lisinopril",)], "exam": [], "disorder": [("asthma",)], "operation": []}
    return ExerciseMaker(
        segments, labels, clusters, known, random.Random(3), mix=(0.4, 0.2, 0.1, 0.2, 0.1)
    )


@pytest.fixture(scope="module")
def exercises(maker):
    return [maker.draw(longest=40, easy=0.0) for _ in range(1500)]


def literal(exercise):
    return exercise.request[1:2] == (":",) and len(exercise.asked) == 1


def test_terms_are_found_as_runs_of_words_whatever_stands_between_them():
    terms = HeldOutTerms()
    assert terms.found_in(words_of("Quinapril, 20 mg")) == {("quinapril",)}
    assert terms.found_in(words_of("with multiple - sclerosis today")) == {
        ("multiple", "sclerosis")
    }
    assert not terms.found_in(words_of("multiple cases of sclerosis; quinapriline"))


def test_a_held_out_name_is_never_labelled_and_never_asked_for(exercises):
    asked = [e for e in exercises if not literal(e)]
    assert len(asked) > 1000
    assert not [e for e in asked if HELD_OUT in (*e.request, *e.words)]
    assert [e for e in exercises if literal(e) and HELD_OUT in e.words], "it is copied"


def test_the_main_types_names_mean_no_class_in_particular(exercises):
    """Asked for by the names of the scheme, a known medicine is now this type and now that."""
    told = {
        tag.word
        for exercise in exercises
        for tag in exercise.marked
        if exercise.words[tag.start] == "lisinopril" and tag.word in TYPE_NAMES
    }
    assert told == set(TYPE_NAMES)
    for exercise in exercises:
        if not literal(exercise) and set(TYPE_NAMES) & set(exercise.request):
            assert set(exercise.asked) <= set(TYPE_NAMES)


def test_every_tag_of_an_exercise_was_asked_for_and_stands_on_words(exercises):
    assert any(e.marked for e in exercises)
    for exercise in exercises:
        for tag in exercise.marked:
            assert tag.word in exercise.asked
            assert 0 <= tag.start < tag.end <= len(exercise.words)
            heads = {shown.head for shown in exercise.shown}
            assert tag.head is None or tag.head in heads


def test_the_choices_of_an_exercise_hold_the_tokens_of_its_tags(exercises):
    tokenizer = train_tokenizer((" ".join(e.words) for e in exercises), size=600)
    encoder = Encoder(tokenizer, random.Random(1))
    for exercise in exercises[:300]:
        ids, answer, tags = encoder.encode_tags(exercise)
        assert {ids[place] for place in tags} <= set(encoder.choices(exercise))
        assert all(place >= answer for place in tags)
        untagged = [token for i, token in enumerate(ids) if i >= answer and i not in set(tags)]
        assert untagged == [*encoder.text_ids(exercise.words), tokenizer.eos_token_id]


def test_weak_labels_know_names_word_endings_and_numbers(segments):
    found = [
        {(" ".join(words[a:b]), c) for a, b, c in label(words, NameIndex(NAMES))}
        for words in segments
    ]
    assert ("lisinopril", "medicine") in found[0]
    assert ("asthma", "disorder") in found[1]
    assert ("a whistling sound", "bracket") in found[1]
    assert ("appendectomy", "operation") in found[2]
    assert ("24 hours", "time") in found[2]
    assert ("chest x - ray", "exam") in {(t.replace("-", "-"), c) for t, c in found[3]}
    assert ("500 mg", "quantity") in found[4]
    assert class_of_head("treatment") == "operation"
    assert not [c for f in found for t, c in f if t == "treatment" and c == "disorder"]


def test_shorthand_says_what_kind_a_name_is_by_what_stands_with_it():
    rng = random.Random(5)
    known = {name: [(f"known{name}",)] for name in SHORTHAND_CLASSES}
    lines = [make_shorthand(rng, known) for _ in range(400)]
    held_out = HeldOutTerms()
    kinds, said = set(), set()
    for line in lines:
        assert not held_out.found_in(line.words)
        for (start, end), kind in zip(line.names, line.kinds, strict=True):
            assert start < end
            kinds.add(kind)
            if kind and line.words[start].startswith("known"):
                assert line.words[start] == f"known{kind}"
        for start, end, kind, owners in line.remarks:
            assert start < end
            said |= {(kind, line.kinds[owner]) for owner in owners}
            assert owners
    assert kinds == {None, *SHORTHAND_CLASSES}
    assert {kind for kind, _ in said} == {"quantity", *REMARK_WORDS}
    assert ("route", "medicine") in said
    assert not {("route", "exam"), ("severity", "medicine"), ("value", "disorder")} & said


def test_no_phrase_of_a_remark_has_a_held_out_term():
    rng, held_out = random.Random(1), HeldOutTerms()
    for phrase in (p for ps in (*REMARKS.values(), *LAST_WORDS.values(), ASIDES) for p in ps):
        assert not held_out.found_in(fill(phrase, rng)), phrase


def test_a_remark_on_two_names_is_marked_once_for_each(exercises):
    twice = [
        (outer, inner)
        for exercise in exercises
        for outer, inner in itertools.pairwise(exercise.marked)
        if (outer.start, outer.end) == (inner.start, inner.end)
    ]
    assert twice
    assert all(a.word == b.word and a.head < b.head for a, b in twice)


def test_embeddings_norms_and_matrices_are_trained_each_at_their_rate():
    tokenizer = train_tokenizer(TEXT * 30, size=300)
    model = new_model(Plan(hidden=40, layers=2, heads=2, inner=48), tokenizer)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimiser = Optimiser(model, matrices=0.0, others=0.0, embeddings=1e-3)
    ids = torch.tensor([tokenizer(TEXT[0])["input_ids"]])
    model(input_ids=ids, labels=ids).loss.backward()
    optimiser.step(0.5)
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert moved == {"model.embed_tokens.weight"}
    step = (model.model.embed_tokens.weight - before["model.embed_tokens.weight"]).abs().max()
    assert step.item() == pytest.approx(0.5e-3, rel=0.01)
    assert all(p.grad is None for p in model.parameters())


def test_ids_in_like_company_get_near_vectors():
    rng = random.Random(2)
    # 0 and 1 stand between 4 and 5, 2 and 3 between 6 and 7.
    lines = [
        [4, rng.choice((0, 1)), 5] if i % 2 else [6, rng.choice((2, 3)), 7] for i in range(400)
    ]
    vectors = company_vectors([*lines, [9, -1]], size=10, contexts=10, dimensions=4, seed=1)
    near = vectors @ vectors.T
    assert near[0, 1] > 0.9
    assert near[2, 3] > 0.9
    assert abs(near[0, 2]) < 0.3
    assert np.allclose(np.linalg.norm(vectors[:8], axis=1), 1)
    assert not vectors[8:].any(), "no company, no vector"


def test_a_new_model_starts_with_the_meanings_given_and_with_copying():
    tokenizer = train_tokenizer(iter(TEXT), size=300)
    model = new_model(Plan(), tokenizer)
    content = content_of(model.config)
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((len(tokenizer), content.stop - content.start))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[7] = 0
    prime_meaning(model, vectors, share=0.9)
    prime_copying(model, seed=1)
    start = model.model.embed_tokens.weight.data[:, content]
    cosine = torch.nn.functional.cosine_similarity(start, torch.from_numpy(vectors).float())
    assert cosine[:7].min() > 0.8
    assert start[7].abs().sum() > 0, "what has no meaning yet is still told apart"
    lengths = start.norm(dim=1)
    assert lengths.min() > 0.6 * lengths.max()
