import time
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmedlora.tasks.align import AMBIGUOUS, MAX_CELLS, UNALIGNED, align_words, read_words


def align(source, answer):
    return align_words(source.split(), answer.split())


def test_words_are_letters_digits_and_single_signs():
    assert [word.text for word in read_words("10mg q.d. T2 naïve_x\n3.5")] == [
        *("10", "mg", "q", ".", "d", ".", "T", "2", "naïve", "_", "x", "3", ".", "5")
    ]
    assert [(word.start, word.end, word.key) for word in read_words(" No\tPAIN")] == [
        (1, 3, "no"),
        (4, 8, "pain"),
    ]


def test_a_copy_aligns_word_by_word_even_where_words_repeat():
    assert align("no pain no fever no pain", "no pain no fever no pain") == [0, 1, 2, 3, 4, 5]


def test_a_changed_word_is_unaligned_and_its_neighbours_keep_their_places():
    assert align("given 10 mg twice", "given 100 mg twice") == [0, UNALIGNED, 2, 3]


def test_a_dropped_stretch_leaves_the_rest_in_place():
    assert align("no pain but some fever , bad cough", "no pain , bad cough") == [0, 1, 5, 6, 7]


def test_where_the_dropped_stretch_cannot_be_told_its_words_are_ambiguous():
    # Dropped may be "no fever ,", ", no fever" or "fever , no": only "cough" is certain.
    answer = align("no pain , no fever , no cough", "no pain , no cough")
    assert answer == [0, 1, AMBIGUOUS, AMBIGUOUS, 7]


def test_words_that_could_be_either_of_two_are_ambiguous():
    assert align("x no pain y no pain z", "no pain") == [AMBIGUOUS, AMBIGUOUS]


def test_an_answer_that_stops_early_is_the_beginning_of_its_source():
    assert align("no pain no pain", "no pain") == [0, 1]


def test_a_repeated_copy_is_unaligned():
    assert align("he has pain", "he has pain he has pain") == [0, 1, 2, *[UNALIGNED] * 3]


def test_of_words_out_of_order_only_the_first_has_a_place():
    assert align("pain and fever", "fever and pain") == [2, UNALIGNED, UNALIGNED]


def test_of_two_faulty_copies_the_first_counts_where_it_is_right():
    answer = align("he has chest pain now", "he had chest pain now he has breast pain now")
    assert answer == [0, UNALIGNED, 2, 3, 4, *[UNALIGNED] * 5]


def brute_force(source, answer):
    """All best alignments, found by trying all: for each word of the answer its only place."""
    best, score = [], (-1, 0)
    for chosen in product([None, *range(len(source))], repeat=len(answer)):
        pairs = [(i, j) for j, i in enumerate(chosen) if i is not None]
        rows = [i for i, _ in pairs]
        if any(source[i] != answer[j] for i, j in pairs) or rows != sorted(set(rows)):
            continue
        runs = sum((i - 1, j - 1) in [(-1, -1), *pairs] for i, j in pairs)
        mine = (len(pairs) + runs, -sum(j for _, j in pairs))
        best = [chosen] if mine > score else best + [chosen] * (mine == score)
        score = max(mine, score)
    places = []
    for options in zip(*best, strict=True):
        if len(set(options)) > 1:
            places.append(AMBIGUOUS)
        else:
            places.append(UNALIGNED if options[0] is None else options[0])
    return places


@given(
    st.lists(st.sampled_from("abc"), min_size=1, max_size=5),
    st.lists(st.sampled_from("abcx"), min_size=1, max_size=5),
)
def test_alignment_is_that_of_trying_all_alignments(source, answer):
    assert align_words(source, answer) == brute_force(source, answer)


@pytest.mark.parametrize(("source", "answer"), [("", "a b"), ("a b", ""), ("a", "b c")])
def test_nothing_in_common_aligns_nothing(source, answer):
    assert align(source, answer) == [UNALIGNED] * len(answer.split())


def test_a_rambling_answer_costs_bounded_time_and_memory():
    source = ["w", "x"] * 500
    answer = ["x", "w", "y"] * 100_000
    began = time.perf_counter()
    places = align_words(source, answer)
    assert time.perf_counter() - began < 5
    assert len(places) == len(answer)
    assert set(places[MAX_CELLS // len(source) :]) == {UNALIGNED}
