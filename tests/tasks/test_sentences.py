import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmedlora.tasks.sentences import sentence_spans


def sentences(text):
    return [text[start:end] for start, end in sentence_spans(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "Pt. was given aspirin 0.5 mg p.o. b.i.d. for pain. He improved.",
            ["Pt. was given aspirin 0.5 mg p.o. b.i.d. for pain.", "He improved."],
        ),
        (
            "Dr. Smith saw the pt. today. She is stable.",
            ["Dr. Smith saw the pt. today.", "She is stable."],
        ),
        (
            "Lisinopril 10 mg q.d. and metformin 500 mg t.i.d. were continued. No changes.",
            ["Lisinopril 10 mg q.d. and metformin 500 mg t.i.d. were continued.", "No changes."],
        ),
        (
            "Take 1 tab. p.o. q.4-6h. p.r.n. pain. Return if worse.",
            ["Take 1 tab. p.o. q.4-6h. p.r.n. pain.", "Return if worse."],
        ),
        (
            "WBC 5.2, Hgb 12.1, plt. 200. Glucose was 98.",
            ["WBC 5.2, Hgb 12.1, plt. 200.", "Glucose was 98."],
        ),
        ("Drug A vs. placebo, i.e. saline, e.g. 0.9 %.", None),
        ("The mass was approx. 3.5 cm, cf. Fig. 2.", None),
        ("Seen on Jan. 5 by Drs. Lee and Wu at St. Mary's Hosp. in Boston.", None),
        (
            "1. Aspirin 81 mg daily. 2. Lipitor 20 mg nightly.",
            ["1. Aspirin 81 mg daily.", "2. Lipitor 20 mg nightly."],
        ),
        ("Did she fall? No. She slipped!", ["Did she fall?", "No.", "She slipped!"]),
    ],
)
def test_doses_abbreviations_and_list_numbers_do_not_end_a_sentence(text, expected):
    assert sentences(text) == (expected or [text])


@pytest.mark.parametrize("line_break", ["\n", "\r\n", "\r", "\n\n  ", "\u2028", " " * 24])
def test_a_line_break_or_a_column_gap_always_ends_a_sentence(line_break):
    text = f"MEDICATIONS:{line_break}aspirin 81 mg daily{line_break}metformin 500 mg"
    assert sentences(text) == ["MEDICATIONS:", "aspirin 81 mg daily", "metformin 500 mg"]


def test_offsets_are_exact_after_characters_of_several_bytes_and_lone_surrogates():
    text = "Temp é 38 😀 today. \ud800 Next 𝔘nit. Done."
    assert sentences(text)[-1] == "Done."
    assert "".join(sentences(text)).replace(" ", "") == text.replace(" ", "")


@given(st.text(alphabet=st.sampled_from('aA1. \n\r\t“"(?!;é😀\x00\x85'), max_size=200))
def test_sentences_are_ordered_trimmed_and_cover_all_but_white_space(text):
    position = 0
    for start, end in sentence_spans(text):
        assert position <= start < end
        assert text[position:start].strip() == ""
        assert text[start:end] == text[start:end].strip()
        assert len(text[start:end].splitlines()) == 1
        position = end
    assert text[position:].strip() == ""


@pytest.mark.parametrize(
    "piece",
    ["Given 0.5 mg p.o. b.i.d. for pain. He improved. ", "word ", "x", "“", "A. ", "1. "],
)
def test_a_line_of_300_kilobytes_takes_less_than_five_seconds(piece):
    text = (piece * (300_000 // len(piece) + 1))[:300_000]
    began = time.perf_counter()
    spans = list(sentence_spans(text))
    assert time.perf_counter() - began < 5
    assert "".join(text[a:b] for a, b in spans).replace(" ", "") == text.replace(" ", "")


def test_a_sentence_across_the_bound_of_what_is_split_at_a_time_stays_whole():
    sentence = "The patient, aged 70, was given 0.5 mg of it for pain. "
    text = sentence * 400
    assert sentences(text) == [sentence.strip()] * 400
