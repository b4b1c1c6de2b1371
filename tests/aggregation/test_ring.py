"""Weighted updates in a ring: worked out by hand, exact sums, bounds kept and told."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmedlora.aggregation.ring import TOLERANCE, Ring
from fedmedlora.aggregation.weights import data_size_weights
from fedmedlora.errors import ConfigError, FederationError


def values(*numbers):
    return np.array(numbers, np.float32)


def mean_of(ring, pairs):
    rows = [ring.encode(ring.clip(update, weight)) for update, weight in pairs]
    total = rows[0].copy()
    for row in rows[1:]:
        total += row
    return ring.decode(total, summands=len(rows))


def test_a_row_is_the_weight_and_the_weighted_values_in_units_of_the_ring():
    ring = Ring(4, largest_weight=8.0, largest_norm=2.0)
    assert ring.bits == 60
    row = ring.encode(ring.clip(values(1.0, -0.5, 0.0), 4.0))
    # w / W = 1/2; w u / (W C) = 1/2 * 1/2 and -1/2 * 1/4; of 2^60.
    assert row.tolist() == [2**59, 2**58, 2**64 - 2**57, 0]


def test_the_mean_of_two_rows_is_the_weighted_mean():
    ring = Ring(3, largest_weight=100.0, largest_norm=10.0)
    mean = mean_of(ring, [(values(1.0, 4.0), 30.0), (values(5.0, -4.0), 10.0)])
    assert mean.update.tolist() == [2.0, 2.0]  # (30 + 50) / 40, (120 - 40) / 40
    assert mean.weight == pytest.approx(40.0, rel=1e-15)


@pytest.mark.parametrize(
    ("summands", "bits"), [(1, 62), (2, 61), (3, 60), (4, 60), (5, 59), (8, 59)]
)
def test_the_largest_honest_sum_never_goes_round(summands, bits):
    ring = Ring(summands, largest_weight=7.0, largest_norm=3.0)
    assert ring.bits == bits
    for sign in (1, -1):
        mean = mean_of(ring, [(values(sign * 3.0), 7.0)] * summands)
        assert mean.update.tolist() == [sign * 3.0]
        assert mean.weight == pytest.approx(7.0 * summands, rel=1e-15)


@given(
    st.integers(2, 8),
    st.integers(0, 2**32 - 1),
    st.floats(1e-3, 1.0),
    st.floats(1.0, 4.0),
)
def test_the_mean_is_the_plain_one_within_the_tolerance(sites, seed, length, spread):
    rng = np.random.default_rng(seed)
    updates = [(rng.standard_normal(97) * length / 10).astype(np.float32) for _ in range(sites)]
    sizes = np.rint(rng.uniform(1e3, 1e3 * 10**spread, sites))
    ring = Ring(sites, largest_weight=1e7, largest_norm=1e3)
    mean = mean_of(ring, list(zip(updates, sizes, strict=True)))
    plain = np.tensordot(data_size_weights(sizes), np.array(updates, np.float64), 1)
    off = np.linalg.norm(mean.update - plain) / np.linalg.norm(plain)
    assert off <= TOLERANCE
    assert off <= mean.error + 1e-7  # of float32


def test_sums_do_not_depend_on_the_order():
    rng = np.random.default_rng(0)
    ring = Ring(5, largest_weight=10.0, largest_norm=10.0)
    pairs = [(rng.standard_normal(50).astype(np.float32), float(w)) for w in range(1, 6)]
    assert np.array_equal(mean_of(ring, pairs).update, mean_of(ring, pairs[::-1]).update)


def test_what_is_too_long_or_too_heavy_is_cut_and_keeps_its_direction():
    ring = Ring(3, largest_weight=10.0, largest_norm=1.0)
    cut = ring.clip(values(3.0, 4.0), 50.0)
    assert (cut.norm, cut.raw_weight, cut.weight) == (5.0, 50.0, 10.0)
    assert cut.update == pytest.approx([0.6, 0.8], rel=1e-5)
    assert float(np.linalg.norm(cut.update.astype(np.float64))) <= 1.0
    kept = ring.clip(values(0.6, 0.0), 3.0)
    assert kept.update.tolist() == values(0.6, 0.0).tolist()
    assert kept.weight == 3.0


@given(st.floats(1e-3, 1e3), st.floats(1.0, 1e6))
def test_what_was_cut_is_within_the_bounds(bound, times):
    ring = Ring(3, largest_weight=1.0, largest_norm=bound)
    ring.encode(ring.clip(values(bound * times), 1.0))


@pytest.mark.parametrize(
    ("update", "weight"),
    [((np.nan,), 1.0), ((np.inf,), 1.0), ((1.0,), -1.0), ((1.0,), np.nan), ((1.0,), np.inf)],
)
def test_what_is_no_number_is_never_sent(update, weight):
    with pytest.raises(FederationError, match="cannot be sent"):
        Ring(3, 10.0, 10.0).clip(values(*update), weight)


@pytest.mark.parametrize(("name", "value"), [("largest_weight", 0.0), ("largest_norm", -1.0),
    ("largest_weight", float("nan")), ("largest_norm", float("inf"))])  # fmt: skip
def test_impossible_bounds_are_refused(name, value):
    with pytest.raises(ConfigError, match=name):
        Ring(3, **{"largest_weight": 1.0, "largest_norm": 1.0, name: value})


def test_a_sum_that_honest_rows_cannot_have_is_refused():
    ring = Ring(3, largest_weight=10.0, largest_norm=1.0)
    good = ring.encode(ring.clip(values(0.5, 0.5), 10.0))
    heavy = good.copy()
    heavy[0] = 3 * 2**60 + 1
    with pytest.raises(FederationError, match="sum of 3 weights"):
        ring.decode(heavy, summands=3)
    negative = good.copy()
    negative[0] = 2**64 - 1
    with pytest.raises(FederationError, match="sum of 1 weights"):
        ring.decode(negative, summands=1)
    long = good.copy()
    long[1] = 2**60 + 2**58  # a value above the norm's bound
    with pytest.raises(FederationError, match="norm of"):
        ring.decode(long, summands=1)
    nothing = np.zeros(3, np.uint64)
    with pytest.raises(FederationError, match="are 0"):
        ring.decode(nothing, summands=3)


def test_a_left_mask_is_found():
    rng = np.random.default_rng(0)
    ring = Ring(3, largest_weight=10.0, largest_norm=1.0)
    for _ in range(20):
        row = ring.encode(ring.clip(values(*[0.01] * 30), 5.0))
        row += rng.integers(0, 2**64, row.size, np.uint64, endpoint=False)
        with pytest.raises(FederationError):
            ring.decode(row, summands=1)


def test_weights_too_small_for_the_ring_fail_instead_of_losing_precision():
    ring = Ring(8, largest_weight=1e7, largest_norm=1e3)
    update = np.full(100, 1e-3, np.float32)
    with pytest.raises(FederationError, match="largest_weight and largest_norm closer"):
        mean_of(ring, [(update, 1e-4)] * 8)
    assert mean_of(ring, [(update, 1e2)] * 8).error < TOLERANCE


@pytest.mark.parametrize(("largest_weight", "largest_norm"), [(1e7, 1e30), (1e300, 1.0)])
def test_what_would_be_rounded_to_nothing_is_not_sent(largest_weight, largest_norm):
    ring = Ring(3, largest_weight, largest_norm)
    with pytest.raises(FederationError, match="closer to what sites have"):
        ring.encode(ring.clip(values(1e-2, 1e-3), 100.0))


def test_a_round_in_which_nothing_moved_has_a_mean_of_zero():
    mean = mean_of(Ring(3, 10.0, 10.0), [(values(0.0, 0.0), 1.0)] * 3)
    assert (mean.update.tolist(), mean.error) == ([0.0, 0.0], 0.0)


def test_weights_that_vanish_in_the_ring_are_told_with_what_to_do():
    with pytest.raises(FederationError, match=r"secure_aggregation\.reference_loss near"):
        mean_of(Ring(3, 1e7, 1.0), [(values(0.5), 1e-30)] * 3)
