import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmedlora.tasks.markup import (
    Mark,
    drop_crossing,
    mask,
    opening_tag,
    split_answer,
    write_marks,
)

A, B, C = '<span class="a">', '<span class="b">', '<span class="c">'


def test_opening_tags_are_written_one_way():
    assert opening_tag("drug") == '<span class="drug">'
    assert opening_tag("drug", number=2) == '<span class="drug" id="2">'
    assert opening_tag("dosage", head=2) == '<span class="dosage" head="2">'


def test_nested_touching_and_equal_spans_are_written_as_proper_nesting():
    marks, crossing = drop_crossing(
        [Mark(0, 2, A), Mark(0, 4, B), Mark(4, 6, C), Mark(4, 6, A), Mark(2, 4, C)]
    )
    assert crossing == []
    assert write_marks("abcdefg", marks) == (
        f"{B}{A}ab</span>{C}cd</span></span>{C}{A}ef</span></span>g"
    )


def test_of_two_spans_that_cross_the_shorter_is_left_out_and_of_equal_ones_the_later():
    assert drop_crossing([Mark(0, 3, A), Mark(2, 6, B)]) == ([Mark(2, 6, B)], [Mark(0, 3, A)])
    assert drop_crossing([Mark(2, 5, A), Mark(0, 3, B)]) == ([Mark(0, 3, B)], [Mark(2, 5, A)])


@pytest.mark.parametrize("tag", ["<span", "</span", "< / SPAN", '<span class="drug">', "<spanner"])
def test_what_looks_like_a_tag_in_a_note_is_masked_without_changing_its_length(tag):
    assert mask(f"p < 5 {tag}> x") == f"p < 5 ‹{tag[1:]}> x"


def test_other_signs_of_a_note_stay():
    assert mask("a<b </b> <sp <- <div> ‹") == "a<b </b> <sp <- <div> ‹"


def test_an_answer_is_split_into_tags_and_the_text_between_them():
    answer = f"on {A}{B}aspirin</span></span> 81 mg"
    assert split_answer(answer) == ["on ", A, B, "aspirin", "</span>", "</span>", " 81 mg"]
    assert split_answer("") == []


@given(
    st.text(alphabet=st.sampled_from('<>/span ab"='), max_size=40),
    st.lists(st.tuples(st.integers(0, 39), st.integers(1, 20)), max_size=6),
)
def test_pieces_join_to_the_answer_and_without_tags_to_the_text(text, spans):
    text = mask(text)
    marks, _ = drop_crossing([Mark(s, min(s + n, len(text)), A) for s, n in spans if s < len(text)])
    answer = write_marks(text, marks)
    pieces = split_answer(answer)
    assert "".join(pieces) == answer
    assert "".join(piece for piece in pieces if piece not in (A, "</span>")) == text
    assert pieces.count(A) == pieces.count("</span>") == len(marks)
