"""The baseline of training mentions: what it keeps, finds, and gives to which head."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scoring_documents import SCHEME

from fedmedlora.errors import ConfigError
from fedmedlora.evaluation.dictionary import learn_dictionary, predict_entities, predict_modifiers
from fedmedlora.schema import Document, Entity, Relation


def note(text, *marked, name="n", covers=None, relations=()):
    """A document in which ``marked`` (type, mention) are annotated where they first occur."""
    entities = [
        Entity(f"e{n}", kind, text.index(mention), text.index(mention) + len(mention))
        for n, (kind, mention) in enumerate(marked)
    ]
    return Document(name, text, tuple(entities), tuple(relations), covers=covers)


def learn(*documents, **settings):
    return learn_dictionary(documents, scheme=SCHEME, **settings)


def found(document):
    return [(e.type, document.text[e.start : e.end]) for e in document.entities]


def test_a_known_mention_is_found_whatever_its_case_and_white_space():
    known = learn(note("has chest pain", ("problem", "chest pain")))
    text = "No Chest\n pain. Chest pains; xchest pain"
    predicted = predict_entities(known, Document("d", text))
    assert [(e.type, e.start, e.end) for e in predicted.entities] == [("problem", 3, 14)]
    assert (predicted.id, predicted.text) == ("d", text)


def test_the_longest_known_mention_wins():
    known = learn(note("chest pain", ("problem", "chest pain")), note("pain", ("problem", "pain")))
    predicted = predict_entities(known, Document("d", "chest pain and pain"))
    assert found(predicted) == [("problem", "chest pain"), ("problem", "pain")]


def test_a_mention_at_the_end_of_a_text_may_be_cut():
    known = learn(note("chest pain now", ("problem", "chest pain now")))
    assert found(predict_entities(known, Document("d", "chest pain"))) == []


def test_a_mention_that_is_mostly_not_annotated_is_left_out():
    documents = [note("cold", ("problem", "cold")), note("a cold room, cold water, cold hands")]
    assert found(predict_entities(learn(*documents), Document("d", "cold"))) == []
    known = learn(*documents, precision=0.25)
    assert known.mains.shares == {("cold",): {"problem": 0.25}}
    assert found(predict_entities(known, Document("d", "cold"))) == [("problem", "cold")]


def test_occurrences_where_nobody_looked_for_the_type_do_not_count_against_it():
    covers = frozenset({"drug"})
    known = learn(note("cold", ("problem", "cold")), *[note("cold cold cold", covers=covers)] * 3)
    assert known.mains.shares == {("cold",): {"problem": 1.0}}


def test_the_type_with_the_larger_share_is_predicted():
    known = learn(
        *[note("iron", ("drug", "iron"))] * 2, note("iron", ("problem", "iron")), precision=0.3
    )
    assert found(predict_entities(known, Document("d", "iron"))) == [("drug", "iron")]
    asked = frozenset({"problem"})
    only = predict_entities(known, Document("d", "iron"), covers=asked)
    assert found(only) == [("problem", "iron")]


def test_types_that_are_not_asked_for_are_neither_learned_nor_predicted():
    marked = note("iron for fever", ("drug", "iron"), ("problem", "fever"))
    asked = frozenset({"problem"})
    assert found(predict_entities(learn(marked, covers=asked), marked)) == [("problem", "fever")]
    assert found(predict_entities(learn(marked), marked, covers=asked)) == [("problem", "fever")]


def test_a_mention_within_a_word_is_not_learned():
    assert learn(note("5mg", ("drug", "5"))).mains.shares == {}


def test_a_modifier_goes_to_the_nearest_head_that_may_take_it():
    known = learn(note("severe", ("severity", "severe")))
    text = "cough, severe aspirin then fever"
    document = note(text, ("problem", "cough"), ("drug", "aspirin"), ("problem", "fever"))
    predicted = predict_modifiers(known, document, scheme=SCHEME)
    assert found(predicted)[3:] == [("severity", "severe")]
    assert predicted.relations == (Relation("severity", "e0", "M1"),)


@pytest.mark.parametrize("between", ["\n", ". It was "])
def test_a_modifier_never_takes_a_head_of_another_sentence(between):
    known = learn(note("severe", ("severity", "severe")))
    document = note(f"cough{between}severe", ("problem", "cough"))
    predicted = predict_modifiers(known, document, scheme=SCHEME)
    assert (found(predicted), predicted.relations) == ([("problem", "cough")], ())


def test_gold_modifiers_are_not_looked_at_and_given_ids_are_kept():
    known = learn(note("severe", ("severity", "severe")))
    heads = (Entity("M1", "problem", 7, 12), Entity("x", "severity", 0, 3))
    document = Document("d", "severe cough", heads, (Relation("severity", "M1", "x"),))
    predicted = predict_modifiers(known, document, scheme=SCHEME)
    assert [e.id for e in predicted.entities] == ["M1", "M2"]
    assert predicted.relations == (Relation("severity", "M1", "M2"),)


@pytest.mark.parametrize("precision", [0, 1.5])
def test_a_precision_out_of_range_is_refused(precision):
    with pytest.raises(ConfigError, match=str(precision)):
        learn(precision=precision)


@given(st.text("ab.\n İß😀", max_size=30))
def test_every_prediction_is_a_known_mention_of_the_text_itself(text):
    known = learn(
        note("İb ß a. b", ("drug", "İb ß"), ("problem", "a. b")), note("a", ("drug", "a"))
    )
    for entity in predict_entities(known, Document("d", text)).entities:
        words = text[entity.start : entity.end].replace(".", " . ").casefold().split()
        assert tuple(words) in known.mains.shares
