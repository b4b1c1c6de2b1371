"""Weights p_k, worked out by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmedlora.aggregation.methods import METHODS
from fedmedlora.aggregation.weights import data_size_weights, pool_losses, utility_weights
from fedmedlora.errors import FederationError


def test_data_sizes_of_one_two_and_five_weigh_an_eighth_a_quarter_and_five_eighths():
    assert data_size_weights([100, 200, 500]) == pytest.approx([0.125, 0.25, 0.625], abs=1e-15)


def test_a_site_of_size_zero_weighs_zero():
    assert data_size_weights([0, 3]).tolist() == [0, 1]


@pytest.mark.parametrize("sizes", [[], [0, 0], [-1, 2], [math.nan], [math.inf, 1], [[1, 2]]])
def test_impossible_sizes_are_refused(sizes):
    with pytest.raises(FederationError):
        data_size_weights(sizes)


def test_beta_zero_is_the_authors_softmax_of_minus_the_loss():
    # softmax(-[.30, .35, .40]): e^0, e^-.05, e^-.10 = 1, .951229, .904837, sum 2.856067
    weights = utility_weights([9, 9e6, 0], [0.30, 0.35, 0.40], beta=0, tau=1)
    assert weights == pytest.approx([0.350132, 0.333056, 0.316812], abs=1e-6)
    theirs = np.exp(1 - np.array([0.30, 0.35, 0.40]))
    assert weights == pytest.approx(theirs / theirs.sum(), abs=1e-15)


def test_beta_and_tau_one_multiply_size_and_utility():
    # 1 * 1 and 3 * e^-ln 2 = 1.5: .4 and .6
    assert utility_weights([1, 3], [0.5, 0.5 + math.log(2)], beta=1, tau=1) == pytest.approx(
        [0.4, 0.6], abs=1e-15
    )


def test_half_beta_takes_the_root_and_half_tau_squares_the_utility():
    # sqrt 4 * 1 = 2 and sqrt 1 * e^(-ln 2 / .5) = .25
    assert utility_weights([4, 1], [0, math.log(2)], beta=0.5, tau=0.5) == pytest.approx(
        [2 / 2.25, 0.25 / 2.25], abs=1e-15
    )


def test_equal_losses_leave_the_data_sizes():
    assert utility_weights([1, 3], [7e300, 7e300], beta=1, tau=1) == pytest.approx([0.25, 0.75])


def test_one_site_weighs_one():
    assert data_size_weights([7]).tolist() == [1]
    assert utility_weights([7], [1e308], beta=1, tau=1e-300).tolist() == [1]


def test_a_hopeless_loss_weighs_zero_and_breaks_nothing():
    assert utility_weights([1, 1], [0, 1e308], beta=1, tau=1e-9).tolist() == [1, 0]
    assert utility_weights([1, 1], [-1e308, 1e308], beta=1, tau=1).tolist() == [1, 0]


def test_the_best_site_may_have_size_zero():
    assert utility_weights([0, 5], [0, 1e6], beta=1, tau=1).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("sizes", "losses", "beta", "tau"),
    [
        ([1, 1], [0, math.nan], 1, 1),
        ([1, 1], [0, math.inf], 1, 1),
        ([1, 1], [0], 1, 1),
        ([0, 0], [0, 0], 1, 1),
        ([1, 1], [0, 0], -1, 1),
        ([1, 1], [0, 0], math.nan, 1),
        ([1, 1], [0, 0], 1, 0),
        ([1, 1], [0, 0], 1, math.inf),
        ([1e300, 1], [0, 0], 1e308, 1),
        ([], [], 1, 1),
    ],
)
def test_impossible_utilities_are_refused(sizes, losses, beta, tau):
    with pytest.raises(FederationError):
        utility_weights(sizes, losses, beta=beta, tau=tau)


@given(
    st.lists(
        st.tuples(st.floats(0, 1e12), st.floats(-1e9, 1e9)), min_size=1, max_size=10
    ).filter(lambda sites: any(n > 0 for n, _ in sites)),
    st.floats(0, 3),
    st.floats(1e-3, 1e3),
)  # fmt: skip
def test_weights_sum_to_one_and_shifting_all_losses_changes_nothing(sites, beta, tau):
    sizes, losses = zip(*sites, strict=True)
    weights = utility_weights(sizes, losses, beta=beta, tau=tau)
    assert weights.dtype == np.float64
    assert (weights >= 0).all()
    assert weights.sum() == pytest.approx(1, abs=1e-12)
    shifted = utility_weights(sizes, np.array(losses) + 1.0, beta=beta, tau=tau)
    assert shifted == pytest.approx(weights, rel=1e-3, abs=1e-3)


def test_losses_of_the_sites_are_pooled_by_their_tokens():
    # candidate 0: (1 * 100 + 3 * 300) / 400 = 2.5; candidate 1: (2 * 100 + 4 * 300) / 400 = 3.5
    assert pool_losses([[1, 2], [3, 4]], [100, 300]).tolist() == [2.5, 3.5]


@pytest.mark.parametrize(
    ("losses", "counts"),
    [([[1, 2], [3]], [1, 1]), ([[1, 2]], [1, 1]), ([[1, math.nan]], [1]), ([[1]], [0]), ([], [])],
)
def test_losses_that_cannot_be_pooled_are_refused(losses, counts):
    with pytest.raises(FederationError):
        pool_losses(losses, counts)


def test_methods_go_by_the_papers_names():
    assert [name for name, method in METHODS.items() if method.scored] == ["fed-medlora+"]
    assert METHODS["fed-medlora"].weigh([1, 3], [], beta=1, tau=1).tolist() == [0.25, 0.75]
    assert METHODS["fed-medlora+"].weigh([1, 3], [2, 2], beta=0, tau=1).tolist() == [0.5, 0.5]
