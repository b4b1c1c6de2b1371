"""Bootstrap over documents: seeded, paired, bounded, and the same as drawing documents by hand."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from scoring_documents import SCHEME, cohorts, doc

from fedmedlora.errors import ConfigError, DataError
from fedmedlora.evaluation.intervals import (
    Bootstrap,
    Interval,
    Line,
    compare_tallies,
    draw_weights,
    f1_intervals,
)
from fedmedlora.evaluation.records import score_documents
from fedmedlora.evaluation.tally import TASKS, pool_tallies, tally_documents

MICRO = Line("strict", "typed", "micro")
MACRO = Line("strict", "typed", "macro")


def tally(gold, predicted):
    return tally_documents(gold, predicted, scheme=SCHEME, tasks=("entities",)).tasks["entities"]


def half_right(size, *, wrong=2):
    """``size`` documents of one drug; every ``wrong``-th prediction misses."""
    gold = [doc(("drug", 0, 4), name=f"{n}") for n in range(size)]
    predicted = [
        doc(("drug", 10, 14) if n % wrong == 0 else ("drug", 0, 4), name=f"{n}")
        for n in range(size)
    ]
    return gold, predicted


def test_every_draw_holds_as_many_documents_of_each_cohort_as_there_are():
    weights = np.concatenate(list(draw_weights((3, 0, 5), Bootstrap(resamples=50))))
    assert weights.shape == (50, 8)
    assert (weights[:, :3].sum(axis=1) == 3).all()
    assert (weights[:, 3:].sum(axis=1) == 5).all()
    assert len(np.unique(weights, axis=0)) > 40


def test_an_interval_over_many_documents_is_near_the_normal_one():
    # F1 here is the share of right documents: standard error sqrt(.25 / 400) = .025.
    interval = f1_intervals(tally(*half_right(400)))[MICRO]
    assert interval.low == pytest.approx(0.5 - 1.96 * 0.025, abs=0.008)
    assert interval.high == pytest.approx(0.5 + 1.96 * 0.025, abs=0.008)


def test_a_perfect_prediction_has_an_interval_without_width():
    gold, _ = half_right(5)
    assert f1_intervals(tally(gold, gold))[MICRO] == Interval(1, 1)


def test_the_seed_decides_the_interval():
    counted = tally(*half_right(400))
    first, again, other = (f1_intervals(counted, Bootstrap(seed=s))[MICRO] for s in (1, 1, 2))
    assert first == again
    assert first != other


def test_higher_confidence_gives_a_wider_interval():
    counted = tally(*half_right(30))
    narrow, wide = (f1_intervals(counted, Bootstrap(confidence=c))[MICRO] for c in (0.5, 0.99))
    assert wide.low < narrow.low < narrow.high < wide.high


def test_zero_over_zero_has_no_interval():
    assert set(f1_intervals(tally([doc()], [doc()])).values()) == {None}
    assert set(f1_intervals(tally([], [])).values()) == {None}


def test_macro_is_drawn_as_the_mean_over_types_in_the_gold_of_the_draw():
    # One document of each type. A draw has only the right one (1), only the wrong one (0), or both
    # (.5): never anything else, so the middle 40 % of draws is .5.
    gold = [doc(("drug", 0, 4), name="a"), doc(("problem", 0, 4), name="b")]
    interval = f1_intervals(tally(gold, gold[:1]), Bootstrap(confidence=0.4))[MACRO]
    assert interval == Interval(0.5, 0.5)
    assert f1_intervals(tally(gold, gold[:1]))[MACRO] == Interval(0, 1)


@settings(max_examples=15, deadline=None)
@given(cohorts())
def test_intervals_are_those_of_documents_drawn_and_scored_anew(pair):
    gold, predicted = pair
    by_id = {document.id: document for document in predicted}
    bootstrap = Bootstrap(resamples=5)
    counted = tally_documents(gold, predicted, scheme=SCHEME)
    (weights,) = draw_weights((len(gold),), bootstrap)
    drawn = []
    for row in weights.astype(int):
        copies = [(d, n) for d, times in zip(gold, row, strict=True) for n in range(times)]
        drawn.append(
            score_documents(
                [doc_named(d, f"{d.id}.{n}") for d, n in copies],
                [doc_named(by_id[d.id], f"{d.id}.{n}") for d, n in copies if d.id in by_id],
                scheme=SCHEME,
                method="m",
                round=None,
                cohort="c",
                bootstrap=None,
            )
        )
    for task in ("entities", "modifiers"):
        for line, interval in f1_intervals(counted.tasks[task], bootstrap).items():
            values = [
                record.f1
                for records in drawn
                for record in records
                if (record.task, record.matching, record.level, record.type) == (task, *line)
                and record.f1 is not None
            ]
            if interval is None:
                assert values == []
            else:
                low, high = np.percentile(values, (2.5, 97.5))
                assert (interval.low, interval.high) == pytest.approx((low, high))


def doc_named(document, name):
    return type(document)(name, document.text, document.entities, document.relations)


# --- paired differences ---------------------------------------------------------------------------


def difference(first, second, line=MICRO):
    return next(d for d in compare_tallies(first, second) if d.line == line)


def test_a_method_compared_with_itself_differs_by_nothing():
    counted = tally(*half_right(30))
    found = difference(counted, counted)
    assert (found.f1, found.interval, found.p) == (0, Interval(0, 0), 1)


def test_a_method_that_is_right_more_often_is_better_beyond_chance():
    gold, worse = half_right(60)
    better = tally(gold, half_right(60, wrong=6)[1])
    found = difference(better, tally(gold, worse))
    assert found.f1 == pytest.approx(50 / 60 - 30 / 60)
    assert 0 < found.interval.low < found.f1 < found.interval.high
    assert found.p == pytest.approx(2 / 1001)


def test_comparing_the_other_way_round_turns_the_sign():
    gold, worse = half_right(20)
    a, b = tally(gold, half_right(20, wrong=3)[1]), tally(gold, worse)
    there, back = difference(a, b), difference(b, a)
    assert there.f1 == -back.f1
    assert there.interval.low == pytest.approx(-back.interval.high)
    assert there.p == back.p


def test_pairing_makes_the_interval_of_a_difference_narrower_than_two_of_their_own():
    gold, predicted = half_right(60)
    a = tally(gold, predicted)
    b = tally(gold, [*predicted[:-1], doc(("drug", 10, 14), name="59")])
    single = f1_intervals(a)[MICRO]
    paired = difference(a, b).interval
    assert paired.high - paired.low < (single.high - single.low) / 2


def test_what_was_drawn_for_one_comparison_is_right_for_the_next():
    gold, half = half_right(30)
    _, most = half_right(30, wrong=3)
    first, second, perfect = tally(gold, half), tally(gold, most), tally(gold, gold)
    for seed in (3, 4):
        compare_tallies(first, perfect, Bootstrap(seed=seed))
        afresh = compare_tallies(tally(gold, half), tally(gold, most), Bootstrap(seed=seed))
        assert compare_tallies(first, second, Bootstrap(seed=seed)) == afresh
        assert compare_tallies(second, perfect, Bootstrap(seed=seed)) != afresh


def test_methods_on_other_documents_or_other_gold_are_not_compared():
    gold, predicted = half_right(4)
    with pytest.raises(DataError, match="same documents"):
        compare_tallies(tally(gold, predicted), tally(gold[:3], predicted[:3]))
    with pytest.raises(DataError, match="same gold"):
        compare_tallies(tally(gold, predicted), tally([*gold[:3], doc(name="3")], [*predicted[:3]]))


def test_pooled_cohorts_can_be_compared():
    gold, predicted = half_right(4)
    found = tally_documents(gold, predicted, scheme=SCHEME)
    pooled = pool_tallies([found, found], scheme=SCHEME)
    assert pooled.tasks["entities"].strata == (4, 4)
    assert difference(pooled.tasks["entities"], pooled.tasks["entities"]).f1 == 0


# --- settings and speed ---------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [{"resamples": 0}, {"confidence": 1.0}, {"seed": -1}])
def test_a_setting_out_of_range_is_refused(wrong):
    with pytest.raises(ConfigError, match=str(next(iter(wrong.values())))):
        Bootstrap(**wrong)


def test_a_thousand_documents_of_twenty_entities_are_scored_with_intervals_in_three_seconds():
    rng = np.random.default_rng(0)
    names = list(SCHEME.types)

    def made():
        found = []
        for n in range(1000):
            starts = rng.integers(0, 960, size=20)
            spans = [(names[k % len(names)], int(s), int(s) + 1 + k) for k, s in enumerate(starts)]
            links = [(k, k + 2) for k in range(0, 20, 4)]
            found.append(doc(*spans, name=f"{n}", relations=links, text="x" * 1000))
        return found

    gold, predicted = made(), made()
    began = time.process_time()
    records = score_documents(gold, predicted, scheme=SCHEME, method="m", round=1, cohort="c")
    assert time.process_time() - began < 3
    assert {record.task for record in records} == set(TASKS)
