"""How well an attacker does, by numbers worked out by hand."""

import math

import numpy as np
import pytest

from fedmedlora.errors import DataError
from fedmedlora.evaluation.intervals import Bootstrap
from fedmedlora.evaluation.leakage import (
    CHANCE_BITS,
    attack_auc,
    attack_rate,
    exposure,
    mean_with_interval,
    precision_at,
)


def test_the_auc_counts_pairs_and_halves_ties():
    # 3 above both, 1 above 0 and level with 1: of 4 pairs 3 and a half are won.
    assert attack_auc([([3, 1], [0, 1])]).value == pytest.approx(3.5 / 4)
    assert attack_auc([([2, 3], [0, 1])]).value == 1
    assert attack_auc([([0, 0], [0, 0, 0])]).value == 0.5


def test_only_notes_of_one_site_are_compared():
    # Site a: 1 of 2 pairs; site b, whose scores are all higher: 4 of 4. By pairs: 5 of 6.
    found = attack_auc([([1], [0, 2]), ([13, 14], [11, 12])])
    assert found.value == pytest.approx(5 / 6)


def test_the_interval_is_wide_where_units_are_few_and_closes_on_the_value():
    few = attack_auc([([1, 3, 5], [0, 2, 4])])
    many = attack_auc([([1, 3, 5] * 40, [0, 2, 4] * 40)])
    for one in (few, many):
        assert one.low < one.value < one.high
        assert one.value == pytest.approx(6 / 9)
    assert few.high - few.low > 3 * (many.high - many.low)


def test_the_interval_does_not_close_where_few_were_all_told_apart():
    for value, scores in ((1, ([5, 6, 7, 8], [1, 2, 3, 4])), (0, ([1, 2, 3, 4], [5, 6, 7, 8]))):
        found = attack_auc([scores])
        assert found.value == value
        # Four pairs with nobody in common, all won or all lost.
        ends = sorted((value, abs(value - (1 - 0.025 ** (1 / 4)))))
        assert (found.low, found.high) == pytest.approx(tuple(ends))
    alike = attack_auc([([1, 1], [1, 1])])
    assert alike.low < 0.1
    assert alike.high > 0.9
    assert attack_auc([(range(100, 200), range(100))]).low > 0.96


def test_equal_seeds_give_equal_intervals():
    members, others = [1.0, 3.0, 5.0, 2.5], [0.0, 2.0, 4.0]
    one, other = (attack_auc([(members, others)], Bootstrap(seed=seed)) for seed in (3, 4))
    assert one == attack_auc([(members, others)], Bootstrap(seed=3))
    assert one != other


@pytest.mark.parametrize("pair", [([], [1.0]), ([1.0], []), ([float("nan")], [1.0])])
def test_what_cannot_be_compared_is_refused(pair):
    with pytest.raises(DataError):
        attack_auc([pair])
    with pytest.raises(DataError):
        attack_auc([])


def test_members_are_found_above_all_but_a_twentieth_of_the_others():
    # Of 20 others one may be taken for a member: the bar is the second highest, 18.
    assert attack_rate([([20, 18.5, 18, 5], range(20))]).value == 2 / 4
    # Of 19 none may: the bar is the highest, and who is level with it is not found.
    assert attack_rate([([20, 18, 17, 5], range(19))]).value == 1 / 4
    assert attack_rate([([1, 1], [1, 1])]).value == 0
    assert attack_rate([([20, 18.5, 18, 5], range(20))], false_alarms=0.1).value == 3 / 4


def test_each_site_has_a_bar_of_its_own_and_counts_by_its_members():
    found = attack_rate([([1, 2, 3], [0]), ([11], [12])])
    assert found.value == 3 / 4


def test_a_few_exposed_notes_show_in_the_rate_and_not_in_the_mean():
    others = [float(place) for place in range(100)]
    members = [*others[:90], *(200.0 + place for place in range(10))]
    assert attack_auc([(members, others)]).value == pytest.approx(0.505)
    found = attack_rate([(members, others)])
    assert found.value == 0.10
    low = [place - 5.0 for place in range(10)]
    assert attack_rate([([*others[:90], *low], others)]).value == 0


def test_by_chance_a_rate_is_that_of_the_false_alarms_and_one_place_more():
    rng = np.random.default_rng(0)
    found = [
        attack_rate([(rng.random(30), rng.random(40))], Bootstrap(resamples=1)).value
        for _ in range(2000)
    ]
    assert np.mean(found) == pytest.approx(3 / 41, abs=0.005)


def test_no_member_found_of_few_is_not_none_for_certain():
    none, all_three = (attack_rate([(scores, range(5, 25))]) for scores in ([1] * 3, [99] * 3))
    assert (none.value, none.low) == (0, 0)
    assert none.high == pytest.approx(1 - 0.025 ** (1 / 3))  # exact, of 0 in 3
    assert (all_three.value, all_three.high) == (1, 1)
    assert all_three.low == pytest.approx(0.025 ** (1 / 3))
    with pytest.raises(DataError, match="false positive rate"):
        attack_rate([([1], [2])], false_alarms=1.0)
    with pytest.raises(DataError):
        attack_rate([])


def test_the_rates_interval_knows_that_the_bar_was_drawn_too():
    # Half of the members are between the two highest of the others: a draw without one of these
    # sets the bar elsewhere, which the members alone cannot show.
    members = [30.0, 21.5] * 50
    found = attack_rate([(members, [*range(19), 21, 22])])
    assert found.value == 1
    assert found.low < 0.6


def test_exposure_is_the_bits_of_the_rank():
    candidates = list(range(7))  # with the secret 8: three bits at most
    assert exposure(-1, candidates) == 3  # rank 1
    assert exposure(0.5, candidates) == 2  # rank 2
    assert exposure(2.5, candidates) == 1  # rank 4
    assert exposure(9, candidates) == 0  # rank 8


def test_a_secret_level_with_random_ones_takes_the_middle_of_them():
    # Nothing was learnt: all eight have one loss, and the rank is 4.5.
    assert exposure(1, [1] * 7) == pytest.approx(3 - math.log2(4.5))


def test_a_secret_that_nobody_saw_has_the_bits_of_chance_on_average():
    candidates = range(1023)
    by_rank = [exposure(place - 0.5, candidates) for place in range(1024)]
    assert sum(by_rank) / 1024 == pytest.approx(CHANCE_BITS, abs=0.01)


def test_exposure_needs_candidates():
    with pytest.raises(DataError):
        exposure(1.0, [])
    with pytest.raises(DataError):
        exposure(float("inf"), [1.0])


def test_precision_is_the_share_of_members_at_the_top():
    # Sorted: 9 m, 8 o, 7 m, 6 m, 5 o.
    assert precision_at([9, 7, 6], [8, 5], count=3) == pytest.approx(2 / 3)
    assert precision_at([9, 7, 6], [8, 5], count=1) == 1
    # One place left for a member and an other that are level: half a hit.
    assert precision_at([9, 7], [7], count=2) == pytest.approx(1.5 / 2)
    with pytest.raises(DataError):
        precision_at([1], [2], count=3)


def test_a_mean_of_one_value_has_no_interval():
    assert mean_with_interval([2.0]) == (2.0, None)
    mean, interval = mean_with_interval([0.0, 1.0, 2.0, 3.0])
    assert mean == 1.5
    assert 0 <= interval.low < 1.5 < interval.high <= 3
