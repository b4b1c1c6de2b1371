"""Templates become text with exact spans and links."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from fedmedlora.corpus.synthetic.grammar import PATIENTS, Term, Vocabulary, render
from fedmedlora.corpus.synthetic.labs import Lab
from fedmedlora.corpus.synthetic.lexicon import Names
from fedmedlora.corpus.synthetic.sites import STYLE_OF, vocabulary_of

COUGH = Term("problem", "cough")
FEVER = Term("problem", "fever")
SODIUM = Term("test", "Na", lab=Lab("Na", 135, 145, 0, "mmol"))
TOY = Vocabulary(
    terms={
        "symptom": ((COUGH,), (FEVER,)),
        "either": ((COUGH, FEVER), ()),
        "lab": ((SODIUM,), ()),
        "tablet": ((Term("drug", "aspirin", "tablet"),), ()),
    },
    locations=Names(("knee",), ("jaw",)),
    cues={"severity": ("severe",), "temporal": ("on noon@",)},
    held_out_share=0.0,
)


def spans_of(template: str, vocabulary: Vocabulary = TOY) -> list[tuple[str, str]]:
    passage = render(template, Random(0), vocabulary=vocabulary)
    return [(kind, passage.text[start:end]) for kind, start, end in passage.spans]


def test_a_modifier_is_linked_to_the_main_entity_that_it_names():
    passage = render("{severity>1} {symptom:1}.", Random(0), vocabulary=TOY)
    assert passage.text == "severe cough."
    assert passage.spans == (("severity", 0, 6), ("problem", 7, 12))
    assert passage.links == ((1, 0),)


def test_a_shared_modifier_is_linked_to_each_of_its_heads():
    passage = render("{negation=no>1,2} {either:1} or {either:2}", Random(0), vocabulary=TOY)
    assert passage.links == ((1, 0), (2, 0))
    assert {passage.text[s:e] for _, s, e in passage.spans} == {"no", "cough", "fever"}


def test_one_passage_never_has_the_same_name_twice():
    for seed in range(30):
        passage = render("{either:1} {either:2}", Random(seed), vocabulary=TOY)
        assert sorted(passage.text.split()) == ["cough", "fever"]


def test_the_preposition_before_a_date_stays_outside_the_span():
    assert spans_of("{symptom:1} {temporal>1}") == [("problem", "cough"), ("temporal", "noon")]


def test_plain_names_are_text_without_annotation():
    passage = render("the <symptom> clinic", Random(0), vocabulary=TOY)
    assert (passage.text, passage.spans) == ("the cough clinic", ())


def test_a_reference_range_is_that_of_its_own_test():
    assert spans_of("{lab:1} ({reference_range>1})")[1] == ("reference_range", "135-145")


def test_an_amount_without_a_form_is_a_dosage():
    assert [kind for kind, _ in spans_of("{tablet:1} {dosage.amount>1}")] == ["drug", "dosage"]


def test_the_patient_is_spoken_of_alike():
    texts = [render("<he> and <his>", Random(0), vocabulary=TOY, patient=p).text for p in PATIENTS]
    assert texts == ["he and his", "she and her"]


def test_alternatives_may_nest_and_be_empty():
    made = {render("a[ b[ c|]|]", Random(seed), vocabulary=TOY).text for seed in range(40)}
    assert made == {"a", "a b", "a b c"}


@given(st.data())
def test_every_template_gives_ordered_spans_without_white_edges(data: st.DataObject):
    style = STYLE_OF[data.draw(st.sampled_from(sorted(STYLE_OF)))]
    topic = data.draw(st.sampled_from(sorted(style.topics)))
    template = data.draw(st.sampled_from(style.topics[topic]))
    rng = Random(data.draw(st.integers(0, 10**6)))
    passage = render(template, rng, vocabulary=vocabulary_of(style.name, 0.5))
    assert "\n" not in passage.text
    assert not set("{}[]|@") & set(passage.text)
    previous = 0
    for _, start, end in passage.spans:
        assert previous <= start < end <= len(passage.text)
        assert passage.text[start:end] == passage.text[start:end].strip()
        previous = end
