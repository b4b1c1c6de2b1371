import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmedlora.tasks.windows import WORD_CHARACTERS, Window, cut_windows


def texts(text, words):
    return [text[window.start : window.end] for window in cut_windows(text, words=words)]


def test_whole_sentences_are_packed_as_long_as_they_fit():
    text = "He has pain. No fever. She slept well at night."
    assert texts(text, 5) == ["He has pain. No fever.", "She slept well at night."]


def test_lines_are_packed_together_and_keep_their_breaks():
    assert texts("aspirin 81 mg\n  metformin\n\nPLAN:", 4) == [
        "aspirin 81 mg\n  metformin",
        "PLAN:",
    ]


def test_a_long_sentence_breaks_after_a_clause_else_at_white_space():
    assert texts("pain in chest, then arm and jaw", 5) == ["pain in chest,", "then arm and jaw"]
    assert texts("a b c d e f g", 3) == ["a b c", "d e f", "g"]


def test_a_run_without_white_space_is_cut_only_if_longer_than_a_window():
    run = "x" * (3 * WORD_CHARACTERS)
    assert texts(f"a {run} b", 3) == ["a", run, "b"]
    assert texts(run, 2) == ["x" * 2 * WORD_CHARACTERS, "x" * WORD_CHARACTERS]


def test_no_text_makes_no_window():
    assert cut_windows("", words=5) == []
    assert cut_windows(" \n\t ", words=5) == []


def test_a_window_of_one_word_is_possible():
    assert cut_windows("a bc.", words=1) == [Window(0, 1), Window(2, 5)]


def test_white_space_counts_too_when_it_is_wide():
    wide = " " * WORD_CHARACTERS
    assert texts(f"dose{wide}route", 3) == [f"dose{wide}route"]
    assert texts(f"dose{wide}route", 2) == ["dose", "route"]


@given(
    st.lists(st.sampled_from([*"aB1.,; \n\t“(é😀x", " " * 30, "x" * 50]), max_size=200).map(
        "".join
    ),
    st.integers(min_value=1, max_value=12),
)
def test_windows_are_disjoint_bounded_and_leave_out_only_white_space(text, words):
    position = 0
    for window in cut_windows(text, words=words):
        assert position <= window.start < window.end
        assert text[position : window.start].strip() == ""
        piece = text[window.start : window.end]
        assert piece == piece.strip()
        assert len(piece.split()) <= words
        assert len(piece) < 2 * words * WORD_CHARACTERS
        position = window.end
    assert text[position:].strip() == ""


@pytest.mark.parametrize("piece", ["Aspirin 0.5 mg p.o. daily, ", "x", "“ab. C ", f"a{' ' * 5000}"])
def test_a_single_line_of_300_kilobytes_is_cut_in_less_than_five_seconds(piece):
    text = (piece * (300_000 // len(piece) + 1))[:300_000]
    began = time.perf_counter()
    windows = cut_windows(text, words=40)
    assert time.perf_counter() - began < 5
    assert max(window.end - window.start for window in windows) < 2 * 40 * WORD_CHARACTERS
