"""Exact aggregation: identities of sum_k p_k s_k B_k A_k, by hand and on random factors."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmedlora.aggregation.exact import add_pairs, compress_pair, residual_pair
from fedmedlora.aggregation.methods import METHODS, Layout, Replies, ServerState
from fedmedlora.aggregation.mixed_rank import combine_ranks, truncate_factors

D_IN, D_OUT = 9, 7


def factors(rank, seed):
    rng = np.random.default_rng(seed)
    a = rng.standard_normal((rank, D_IN)).astype(np.float32)
    return a, rng.standard_normal((D_OUT, rank)).astype(np.float32)


def ideal(a, b, weights, scales):
    return sum(
        p * s * y.astype(float) @ x.astype(float)
        for p, s, x, y in zip(weights, scales, a, b, strict=True)
    )


def shares(count, seed):
    values = np.random.default_rng(seed).random(count) + 0.05
    return (values / values.sum()).tolist()


def test_the_residual_of_two_sites_by_hand():
    # B_k A_k with A = 1, 3 and B = 2, 6 (numbers): half of 2 + half of 18 is 10; means give 2 * 4.
    a = [np.array([[1.0]], np.float32), np.array([[3.0]], np.float32)]
    b = [np.array([[2.0]], np.float32), np.array([[6.0]], np.float32)]
    left, right = residual_pair(a, b, [0.5, 0.5], scale=1.0)
    assert (left @ right).tolist() == [[2.0]]
    assert (residual_pair(a, b, [0.5, 0.5], scale=3.0)[0] @ right).tolist() == [[6.0]]


@settings(max_examples=30, deadline=None)
@given(
    sites=st.integers(1, 4),
    rank=st.integers(1, 3),
    seed=st.integers(0, 99),
    scale=st.floats(0.5, 4),
)
def test_average_and_residual_are_the_ideal_update(sites, rank, seed, scale):
    a, b = zip(*(factors(rank, seed + 7 * k) for k in range(sites)), strict=True)
    weights = shares(sites, seed)
    left, right = compress_pair(*residual_pair(a, b, weights, scale=scale))
    mean_a = sum(p * x for p, x in zip(weights, a, strict=True))
    mean_b = sum(p * y for p, y in zip(weights, b, strict=True))
    found = scale * mean_b @ mean_a + left @ right
    assert np.allclose(found, ideal(a, b, weights, [scale] * sites), atol=1e-4)
    assert left.shape[1] == right.shape[0] <= (sites - 1) * rank


def test_pairs_add_and_cancel():
    a, b = (f.astype(float) for f in factors(2, 1))
    left, right = add_pairs((b, a), (b, a))
    assert np.allclose(left @ right, 2 * b @ a)
    assert left.shape[1] == 2
    assert add_pairs((b, a), (-b, a))[0].shape == (D_OUT, 0)


def test_a_compressed_pair_is_the_best_of_its_rank():
    a, b = (f.astype(float) for f in factors(5, 3))
    left, right = compress_pair(b, a, rank=2)
    values = np.linalg.svd(b @ a, compute_uv=False)
    assert np.linalg.norm(b @ a - left @ right) == pytest.approx(np.linalg.norm(values[2:]))
    assert np.allclose(right @ right.T, np.eye(2))


def test_equal_effective_updates_come_back_equal_at_every_rank():
    # The same update W of rank 3 at ranks 4, 8 and 16 with alpha 16: scales 4, 2 and 1.
    a, b = factors(3, 5)
    update = b @ a
    sites = []
    for rank in (4, 8, 16):
        scale = 16 / rank
        wide_a, wide_b = np.zeros((rank, D_IN), np.float32), np.zeros((D_OUT, rank), np.float32)
        wide_a[:3], wide_b[:, :3] = a, b / scale
        sites.append((wide_a, wide_b, scale))
    a_all, b_all, scales = (list(column) for column in zip(*sites, strict=True))
    big_a, big_b = combine_ranks(a_all, b_all, [0.2, 0.3, 0.5], scales, rank=16, scale=1.0)
    assert np.allclose(big_b @ big_a, update, atol=1e-5)
    for rank, scale in ((4, 4.0), (8, 2.0), (16, 1.0)):
        x, y = truncate_factors(big_a, big_b, rank=rank, scale=1.0, wanted_scale=scale)
        assert x.shape == (rank, D_IN)
        assert np.allclose(scale * y @ x, update, atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(ranks=st.lists(st.integers(1, 5), min_size=1, max_size=4), seed=st.integers(0, 99))
def test_mixed_ranks_give_the_best_approximation_of_the_ideal(ranks, seed):
    a, b = zip(*(factors(rank, seed + k) for k, rank in enumerate(ranks)), strict=True)
    weights, scales = shares(len(ranks), seed), [8 / rank for rank in ranks]
    wanted = ideal(a, b, weights, scales)
    rank = max(ranks)
    x, y = combine_ranks(a, b, weights, scales, rank=rank, scale=2.0)
    left_over = np.linalg.svd(wanted, compute_uv=False)[rank:]
    error = np.linalg.norm(wanted - 2.0 * y @ x)
    assert error == pytest.approx(np.linalg.norm(left_over), abs=1e-4)


def test_components_that_no_site_used_can_still_learn():
    a, b = factors(2, 8)
    x, y = combine_ranks([a], [b], [1.0], [1.0], rank=6, scale=1.0)
    assert not y[:, 2:].any()
    assert np.allclose(x @ x.T, np.eye(6) / 3, atol=1e-5)


def test_fedex_carries_its_residual_from_round_to_round():
    pairs, scale = [("q.A", "q.B")], 2.0
    state = ServerState({"q.A": factors(2, 0)[0], "q.B": np.zeros((D_OUT, 2), np.float32)})
    frozen = np.zeros((D_OUT, D_IN))
    for number in (1, 2, 3):
        sent = [factors(2, 10 * number + k) for k in range(3)]
        states = [{"q.A": a, "q.B": b} for a, b in sent]
        weights = shares(3, number)
        replies = Replies(states, weights, [scale] * 3)
        state = METHODS["fedex-lora"].combine(state, replies, Layout(pairs, 2, scale, number))
        a, b = zip(*sent, strict=True)
        # A site's model is the backbone, the residual so far and its own pair.
        expected = frozen + ideal(a, b, weights, [scale] * 3)
        frozen = state.residual["q.B"].astype(float) @ state.residual["q.A"].astype(float)
        found = scale * state.factors["q.B"] @ state.factors["q.A"] + frozen
        assert np.allclose(found, expected, atol=1e-4)


def test_plain_averaging_is_not_exact_where_fedex_is():
    a, b = zip(*(factors(2, k) for k in range(3)), strict=True)
    weights = [0.5, 0.25, 0.25]
    wanted = ideal(a, b, weights, [1.0] * 3)
    mean = sum(p * y for p, y in zip(weights, b, strict=True)) @ sum(
        p * x for p, x in zip(weights, a, strict=True)
    )
    assert np.linalg.norm(mean - wanted) > 0.5 * np.linalg.norm(wanted)
