"""Robust averages, by hand and beside Flower's."""

import numpy as np
import pytest

from fedmedlora.aggregation.columns import gram_of
from fedmedlora.aggregation.methods import METHODS, Layout, Replies, ServerState
from fedmedlora.aggregation.robust import (
    RobustOptions,
    centre_of,
    clip_shares,
    krum_weights,
    robust_weights,
)
from fedmedlora.errors import ConfigError, FederationError


class Rows:
    """Adapters in memory; keeps the widest block that was asked for."""

    def __init__(self, values):
        self.values = np.asarray(values, np.float32)
        self.rows, self.size = self.values.shape
        self.widest = 0

    def read(self, start, stop):
        self.widest = max(self.widest, stop - start)
        return self.values[:, start:stop]


COLUMNS = [[1, 1], [2, 0], [3, 5], [9, -7], [1000, 2]]


def test_the_median_is_of_every_value_by_itself():
    assert centre_of(Rows(COLUMNS), RobustOptions("median")).tolist() == [3, 1]
    assert centre_of(Rows(COLUMNS[:4]), RobustOptions("median")).tolist() == [2.5, 0.5]


def test_the_trimmed_mean_leaves_out_both_ends_of_every_value():
    # 2, 3, 9 and 0, 1, 2
    assert centre_of(Rows(COLUMNS), RobustOptions("trimmed-mean")).tolist() == pytest.approx(
        [14 / 3, 1]
    )
    two = centre_of(Rows(COLUMNS), RobustOptions("trimmed-mean", malicious=2))
    assert two.tolist() == [3, 1]


def test_a_trimmed_mean_of_nobody_is_refused():
    with pytest.raises(FederationError, match="2 replies"):
        centre_of(Rows(COLUMNS[:2]), RobustOptions("trimmed-mean"))


#: On a line: the first three lie near, the fourth farther, the fifth far away.
LINE = gram_of(Rows([[1.0], [2.0], [3.0], [7.0], [-100.0]]))


def test_krum_takes_the_sites_that_are_nearest_to_their_nearest():
    # Two nearest others of each: 1 + 4, 1 + 1, 1 + 4, 16 + 25, huge.
    weights = krum_weights(LINE, [0.1, 0.2, 0.3, 0.3, 0.1], RobustOptions("krum", select=1))
    assert weights == [0, 1, 0, 0, 0]
    # By default all but one liar and two: of the two at 5, the first.
    weights = krum_weights(LINE, [0.1, 0.2, 0.3, 0.3, 0.1], RobustOptions("krum"))
    assert weights == pytest.approx([1 / 3, 2 / 3, 0, 0, 0])
    weights = krum_weights(LINE, [0.1, 0.2, 0.3, 0.3, 0.1], RobustOptions("krum", select=9))
    assert weights == pytest.approx([0.1, 0.2, 0.3, 0.3, 0.1])


def test_krum_of_equal_updates_counts_a_twin_as_a_neighbour():
    twins = gram_of(Rows([[5.0], [5.0], [6.0], [7.0], [9.0]]))
    # two nearest: 0 + 1, 0 + 1, 1 + 1, 1 + 4, 4 + 9
    weights = krum_weights(twins, [0.2] * 5, RobustOptions("krum", select=2))
    assert weights == [0.5, 0.5, 0, 0, 0]


def test_longer_updates_are_cut_to_the_median_norm():
    gram = gram_of(Rows([[1.0], [2.0], [-8.0]]))
    assert clip_shares(gram, RobustOptions("clip")) == [1, 1, 0.25]
    assert clip_shares(gram, RobustOptions("clip", clip=2.0)) == [1, 1, 0.5]
    weights = robust_weights([0.25, 0.25, 0.5], RobustOptions("clip"), gram=gram)
    assert weights == [0.25, 0.25, 0.125]


def test_rules_by_column_count_every_site_alike_and_no_rule_leaves_the_weights():
    for rule in ("median", "trimmed-mean"):
        assert robust_weights([0.5, 0.25, 0.25], RobustOptions(rule), gram=None) == [1 / 3] * 3
    assert robust_weights([0.5, 0.5], RobustOptions(), gram=None) == [0.5, 0.5]


@pytest.mark.parametrize("method", [name for name, one in METHODS.items() if one.averages])
def test_methods_that_average_take_the_median_instead(method):
    before = ServerState({"A": np.zeros((1, 2), np.float32), "B": np.zeros((2, 1), np.float32)})
    rows = [[1, 2, 3, 4], [2, 3, 4, 5], [1000, -1000, 0, 0]]
    replies = Replies(
        states=(),
        weights=[1 / 3] * 3,
        scales=[1.0] * 3,
        columns=Rows(rows),
        shapes=(("A", (1, 2)), ("B", (2, 1))),
    )
    layout = Layout(pairs=(), rank=1, scale=1.0, round=1, robust=RobustOptions("median"))
    after = METHODS[method].combine(before, replies, layout).factors
    if method == "fedadam":  # a step of its own length, towards it
        assert all((after[name] > 0).all() for name in after)
        return
    assert after["A"].tolist() == [[2, 2]]
    assert after["B"].tolist() == [[3], [4]]


def test_methods_that_recut_their_factors_do_not_average():
    assert [name for name, one in METHODS.items() if not one.averages] == [
        "fedex-lora",
        "flexlora",
        "fedsvd",
    ]


@pytest.mark.parametrize(
    "wrong", [{"rule": "mean"}, {"malicious": 0}, {"select": 0}, {"clip": 0.0}]
)
def test_an_option_out_of_range_is_named(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        RobustOptions(**wrong)


# Beside Flower's strategies, on the same adapters


@pytest.mark.parametrize("sites", [5, 6, 9])
def test_median_trimmed_mean_and_krum_are_flowers(sites):
    from flwr.app import Array, ArrayRecord, RecordDict
    from flwr.serverapp.strategy.fedtrimmedavg import trim_mean
    from flwr.serverapp.strategy.multikrum import select_multikrum

    values = np.random.default_rng(sites).standard_normal((sites, 500)).astype(np.float32)
    values[0] *= 50
    median = centre_of(Rows(values), RobustOptions("median"))
    assert np.array_equal(median, np.median(np.stack(list(values)), axis=0))  # FedMedian
    trimmed = centre_of(Rows(values), RobustOptions("trimmed-mean"))
    assert np.allclose(trimmed, trim_mean(values, 1 / sites), atol=1e-6)
    contents = [RecordDict({"arrays": ArrayRecord({"w": Array(row)})}) for row in values]
    for select in (1, 3):
        options = RobustOptions("krum", select=select)
        weights = krum_weights(gram_of(Rows(values)), [1 / sites] * sites, options)
        theirs = select_multikrum(contents, 1, select)
        chosen = {place for place, one in enumerate(contents) if any(one is t for t in theirs)}
        assert {place for place, weight in enumerate(weights) if weight > 0} == chosen


def test_memory_of_a_median_does_not_grow_with_the_sites():
    few, many = Rows(np.zeros((4, 3_000_000))), Rows(np.zeros((64, 200_000)))
    for rows in (few, many):
        centre_of(rows, RobustOptions("median"))
    assert few.widest * few.rows <= 1 << 22
    assert many.widest * many.rows <= 1 << 22
