"""The weighted average of factors, worked out by hand."""

import numpy as np
import pytest

from fedmedlora.aggregation.average import average_factors
from fedmedlora.errors import FederationError


def state(a, b):
    return {"A": np.array(a, np.float32), "B": np.array(b, np.float32)}


def test_a_and_b_are_averaged_apart():
    one, two = state([[2, 0]], [[1], [1]]), state([[6, 4]], [[3], [-1]])
    average = average_factors([one, two], [0.25, 0.75])
    assert average["A"].tolist() == [[5, 3]]
    assert average["B"].tolist() == [[2.5], [-0.5]]
    assert {tensor.dtype for tensor in average.values()} == {np.dtype(np.float32)}
    assert list(average) == ["A", "B"]


def test_one_site_of_weight_one_comes_back_unchanged_bit_for_bit():
    only = {"A": np.random.default_rng(0).standard_normal((3, 5)).astype(np.float32)}
    assert average_factors([only], [1.0])["A"].tobytes() == only["A"].tobytes()


def test_a_site_of_weight_zero_counts_for_nothing():
    assert average_factors([state([1], [1]), state([9], [9])], [1, 0])["A"].tolist() == [1]


def test_sums_are_kept_in_float64():
    # 2^24 + 1 is no float32: a float32 sum of these three would lose the small ones.
    values = [2.0**25, 1.0, 1.0]
    states = [{"A": np.array([value], np.float32)} for value in values]
    third = 1 / 3
    expected = np.float32(third * values[0] + third + third)
    assert average_factors(states, [third] * 3)["A"][0] == expected


def test_states_may_be_lazy():
    states = (state([k], [k]) for k in (1, 3))
    assert average_factors(states, [0.5, 0.5])["A"].tolist() == [2]


@pytest.mark.parametrize("weights", [[0.5, 0.4], [1.5, -0.5], [float("nan"), 1], [1.0], [1, 0, 0]])
def test_weights_that_do_not_fit_are_refused(weights):
    with pytest.raises(FederationError):
        average_factors([state([1], [1]), state([2], [2])], weights)


@pytest.mark.parametrize("other", [{"A": np.ones(1, np.float32)}, state([1, 2], [1])])
def test_states_of_other_names_or_shapes_are_refused(other):
    with pytest.raises(FederationError, match="adapter 1"):
        average_factors([state([1], [1]), other], [0.5, 0.5])
