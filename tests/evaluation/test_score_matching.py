"""Matching by overlap: maximum, exact, independent of order, and quick."""

import random
import time

from hypothesis import given, settings
from hypothesis import strategies as st
from scoring_documents import spans

from fedmedlora.evaluation.matching import count_exact, match_relations, match_spans


def overlap(a, b):
    return all(a[n] < b[n + 1] and b[n] < a[n + 1] for n in range(0, len(a), 2))


def largest(gold, predicted):
    """The size of a maximum matching, by trying everything."""
    if not gold:
        return 0
    first, rest = gold[0], gold[1:]
    return max(
        [largest(rest, predicted)]
        + [
            1 + largest(rest, predicted[:n] + predicted[n + 1 :])
            for n, other in enumerate(predicted)
            if overlap(first, other)
        ]
    )


few_spans = st.lists(spans(20), max_size=6, unique=True)
few_relations = st.lists(
    st.tuples(spans(14), spans(14)).map(lambda pair: (*pair[0], *pair[1])), max_size=6
)


@settings(deadline=None)
@given(few_spans, few_spans)
def test_span_matching_is_as_large_as_by_trying_everything(gold, predicted):
    assert match_spans(gold, predicted) == largest(gold, predicted)


@settings(deadline=None)
@given(few_relations, few_relations)
def test_relation_matching_is_as_large_as_by_trying_everything(gold, predicted):
    assert match_relations(gold, predicted) == largest(gold, predicted)


@settings(deadline=None)
@given(st.lists(spans(200), max_size=60), st.lists(spans(200), max_size=60))
def test_span_matching_agrees_with_the_general_algorithm_on_longer_lists(gold, predicted):
    def beside_one_head(span):
        return (0, 1, *span)

    assert match_spans(gold, predicted) == match_relations(
        list(map(beside_one_head, gold)), list(map(beside_one_head, predicted))
    )


@settings(deadline=None)
@given(few_spans, few_spans, st.randoms())
def test_matching_does_not_depend_on_the_order(gold, predicted, rng):
    shuffled = rng.sample(gold, len(gold)), rng.sample(predicted, len(predicted))
    assert match_spans(*shuffled) == match_spans(gold, predicted)


def test_a_chain_that_a_hasty_first_choice_would_break_is_matched_whole():
    # [0,10) overlaps both predictions, [0,4) only the first: each gold can have one.
    assert match_spans([(0, 10), (0, 4)], [(2, 5), (6, 9)]) == 2
    assert match_spans([(0, 4), (0, 10)], [(6, 9), (2, 5)]) == 2


def test_touching_spans_do_not_overlap():
    assert match_spans([(0, 4)], [(4, 8)]) == 0
    assert match_relations([(0, 4, 10, 14)], [(0, 4, 14, 18)]) == 0
    assert match_relations([(0, 4, 10, 14)], [(4, 8, 10, 14)]) == 0


def test_a_repeated_item_matches_as_often_as_it_stands_on_both_sides():
    assert count_exact([(0, 4), (0, 4), (5, 6)], [(0, 4), (0, 4), (0, 4)]) == 2


def test_ten_thousand_spans_of_one_document_take_less_than_two_seconds():
    rng = random.Random(0)
    sides = []
    for _ in range(2):
        starts = [rng.randrange(100_000) for _ in range(10_000)]
        sides.append([(start, start + rng.randint(1, 60)) for start in starts])
    began = time.process_time()
    spread = match_spans(*sides)
    heaped = match_spans([(n, 50_000) for n in range(10_000)], [(n, 60_000) for n in range(10_000)])
    assert time.process_time() - began < 2
    assert (spread > 5_000, heaped) == (True, 10_000)


def test_ten_thousand_relations_of_one_document_take_less_than_two_seconds():
    rng = random.Random(0)
    sides = []
    for _ in range(2):
        starts = [rng.randrange(100_000) for _ in range(10_000)]
        sides.append([(s, s + 9, s + 10, s + 10 + rng.randint(1, 30)) for s in starts])
    began = time.process_time()
    assert match_relations(*sides) > 3_000
    assert time.process_time() - began < 2
