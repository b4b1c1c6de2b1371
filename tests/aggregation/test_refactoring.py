"""FedSVD: new factors of the same product, B averaged, A with orthonormal rows."""

import numpy as np
import pytest

from fedmedlora.aggregation.methods import METHODS, Layout, Replies, ServerState
from fedmedlora.aggregation.refactoring import refactor_pair

RNG = np.random.default_rng(3)


def factors(rank, d_in, d_out):
    return [
        RNG.standard_normal(shape).astype(np.float32) for shape in ((rank, d_in), (d_out, rank))
    ]


@pytest.mark.parametrize(("rank", "d_in", "d_out"), [(4, 9, 7), (4, 9, 3), (1, 5, 5), (6, 4, 5)])
def test_new_factors_have_the_same_product_and_shapes(rank, d_in, d_out):
    a, b = factors(rank, d_in, d_out)
    new_a, new_b = refactor_pair(a, b)
    assert (new_a.shape, new_b.shape) == (a.shape, b.shape)
    assert np.allclose(new_b @ new_a, b @ a, atol=1e-5)
    kept = min(rank, d_in)
    assert np.allclose(new_a[:kept] @ new_a[:kept].T, np.eye(kept), atol=1e-6)
    norms = np.linalg.norm(new_b, axis=0)
    assert (np.diff(norms) <= 1e-5).all()


def test_where_b_is_zero_or_of_low_rank_a_still_has_all_its_rows():
    a, b = factors(4, 9, 7)
    b[:, 1:] = 0
    new_a, new_b = refactor_pair(a, b)
    assert np.allclose(new_a @ new_a.T, np.eye(4), atol=1e-6)
    assert np.allclose(new_b @ new_a, b @ a, atol=1e-5)
    again, zero = refactor_pair(a, np.zeros_like(b))
    assert np.allclose(again @ again.T, np.eye(4), atol=1e-6)
    assert not zero.any()


@pytest.mark.parametrize(("round", "recut"), [(1, False), (2, True), (3, False), (4, True)])
def test_b_is_averaged_and_every_second_round_the_pair_is_cut_anew(round, recut):
    a, b = factors(2, 5, 4)
    replies = [{"b": b + 1}, {"b": b - 3}]
    layout = Layout(pairs=[("a", "b")], rank=2, scale=1.0, round=round, refactor_every=2)
    after = METHODS["fedsvd"].combine(
        ServerState({"a": a, "b": b}), Replies(replies, [0.75, 0.25], [1.0, 1.0]), layout
    )
    # .75 (b + 1) + .25 (b - 3) = b
    assert np.allclose(after.factors["b"] @ after.factors["a"], b @ a, atol=1e-5)
    assert np.array_equal(after.factors["a"], a) is not recut


def test_sites_train_and_send_b_alone_and_get_both():
    method = METHODS["fedsvd"]
    assert [method.trains(round) for round in (1, 2)] == ["B", "B"]
    assert (method.sends, method.returns(1)) == ("AB", "B")
