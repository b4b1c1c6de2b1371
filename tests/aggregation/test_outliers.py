"""Which updates of a round are suspect, worked out by hand on few values."""

import numpy as np
import pytest

from fedmedlora.aggregation.columns import SKETCH, blocks_of, gram_and_sketches, gram_of
from fedmedlora.aggregation.outliers import Remembered, ScreeningOptions, find_outliers
from fedmedlora.errors import ConfigError

SITES = ("a", "b", "c", "d", "e")
KINDS = ("norm", "direction", "rider")


class Rows:
    """Updates in memory."""

    def __init__(self, *rows):
        self.values = np.array(rows, np.float32)
        self.rows, self.size = self.values.shape

    def read(self, start, stop):
        return self.values[:, start:stop]


def judged(*rows, last=None, **options):
    columns = Rows(*rows) if last is None else Rows(*rows, last)
    return find_outliers(
        gram_of(columns), ScreeningOptions(**options), sites=SITES[: len(rows)],
        last_step=last is not None,
    )  # fmt: skip


def suspects(findings):
    return {
        site: " ".join(kind for kind in KINDS if getattr(one, f"{kind}_fault"))
        for site, one in zip(SITES, findings, strict=False)
        if any(getattr(one, f"{kind}_fault") for kind in KINDS)
    }


#: Five updates with a common part 3 and one of their own 4: norm 5, cosine 9/25 to each other.
HONEST = [[3.0, *(4.0 if j == k else 0.0 for j in range(5))] for k in range(5)]


def with_fifth(row):
    return [*HONEST[:4], row]


def test_blocks_cover_all_columns_once_and_are_no_larger_than_said():
    rows = Rows(*np.zeros((3, 1000)))
    blocks = list(blocks_of(rows, values=3 * 200))
    assert blocks == [(0, 192), (192, 384), (384, 576), (576, 768), (768, 960), (960, 1000)]
    assert list(blocks_of(rows, values=1)) == [(n, min(n + 64, 1000)) for n in range(0, 1000, 64)]


def test_products_are_those_of_the_whole_rows():
    rows = np.random.default_rng(0).standard_normal((4, 300)).astype(np.float32)
    assert np.allclose(gram_of(Rows(*rows)), rows.astype(float) @ rows.astype(float).T, atol=1e-9)


def test_sketches_have_the_products_of_the_rows_but_for_their_noise():
    rows = np.random.default_rng(1).standard_normal((3, 50_000)).astype(np.float32)
    rows[2] = 0.5 * rows[0]
    gram, sketches = gram_and_sketches(Rows(*rows))
    assert np.allclose(gram, gram_of(Rows(*rows)))
    assert sketches.shape == (3, SKETCH)
    assert np.array_equal(sketches[2], 0.5 * sketches[0])
    lengths = np.linalg.norm(sketches, axis=1)
    assert lengths[0] ** 2 == pytest.approx(50_000, rel=0.3)  # 1 +- sqrt(2 / 256)
    assert abs(sketches[0] @ sketches[1]) / (lengths[0] * lengths[1]) < 0.25  # 4 / sqrt(256)


def test_a_sketch_is_the_same_however_the_columns_are_cut():
    rows = np.random.default_rng(2).standard_normal((40, 120_000)).astype(np.float32)
    assert len(list(blocks_of(Rows(*rows)))) == 2
    _, many = gram_and_sketches(Rows(*rows))
    _, one = gram_and_sketches(Rows(rows[7]))
    assert np.allclose(many[7], one[0], atol=1e-9)


def test_honest_updates_that_share_a_part_are_all_clear():
    findings = judged(*HONEST)
    assert suspects(findings) == {}
    for one in findings:
        assert (one.norm, one.times_median) == (5.0, 1.0)
        assert [one.agreement, one.others, one.nearest] == pytest.approx([9 / 25] * 3)
        # sum of four unit vectors, each 9/25 to this: 4 * .36 over sqrt(4 + 12 * .36)
        assert one.cosine == pytest.approx(1.44 / 8.32**0.5)


def test_numbers_hold_what_is_known_alone():
    one = judged(*HONEST)[0]
    assert set(one.numbers) == {"norm", "times_median", "cosine", "agreement", "others", "nearest"}


@pytest.mark.parametrize(("times", "bad"), [(9.9, False), (10.1, True), (1000, True)])
def test_an_update_far_longer_than_the_median_is_an_outlier(times, bad):
    findings = judged(*with_fifth([times * value for value in HONEST[4]]))
    assert suspects(findings) == ({"e": "norm"} if bad else {})
    assert findings[4].times_median == pytest.approx(times)
    if bad:
        assert f"{times:.4g} times the round's median, above 10" in findings[4].norm_fault


def test_what_is_far_too_long_does_not_speak_for_the_others():
    findings = judged(*with_fifth([-1000 * value for value in HONEST[4]]))
    assert suspects(findings) == {"e": "norm"}
    assert findings[0].others == pytest.approx(9 / 25)


def test_an_update_turned_round_is_an_outlier_where_the_others_agree():
    findings = judged(*with_fifth([-value for value in HONEST[4]]))
    assert suspects(findings) == {"e": "direction"}
    assert findings[4].agreement == pytest.approx(-9 / 25)
    assert "mean cosine -0.360 to them, 0.360 between them" in findings[4].direction_fault


def test_an_update_that_points_nowhere_is_an_outlier_where_the_others_agree():
    noise = [0.0, 0, 0, 0, 0, 5.0]
    assert suspects(judged(*with_fifth(noise))) == {"e": "direction"}


def test_an_update_that_agrees_less_than_the_others_is_clear():
    # common part 1 instead of 3: cosine 3 / (5 * sqrt 17) = .146 to the others, .36 between them
    assert suspects(judged(*with_fifth([1.0, 0, 0, 0, 0, 4.0]))) == {}


def test_nothing_is_said_of_directions_where_the_others_disagree():
    # as where an average has come to rest: the updates cancel
    rows = [[1, 0], [-1, 0], [0, 1], [0, -1]]
    assert suspects(judged(*rows)) == {}


@pytest.mark.parametrize("factor", [0.0, 1e-3])
def test_an_update_of_nothing_is_a_riders(factor):
    findings = judged(*with_fifth([factor * value for value in HONEST[4]]))
    assert suspects(findings) == {"e": "rider"}
    assert "sent back what it got" in findings[4].rider_fault


def test_the_last_step_sent_again_at_any_scale_is_a_riders():
    step = [3.0, 1, 1, 1, 1, 0]
    for scale in (0.3, 1.0, 4.0):
        findings = judged(*with_fifth([scale * value for value in step]), last=step)
        assert suspects(findings) == {"e": "rider"}
        assert "last step: cosine 1.0000" in findings[4].rider_fault
        # (9 + 4) / (5 sqrt 13) for an honest one
        assert findings[0].last_step == pytest.approx(13 / (5 * 13**0.5))


def test_two_of_one_update_are_both_named():
    findings = judged(*with_fifth(HONEST[3]))
    assert suspects(findings) == {"d": "rider", "e": "rider"}
    assert "is that of e" in findings[3].rider_fault
    assert "is that of d" in findings[4].rider_fault


def test_an_update_that_another_site_had_before_is_a_riders():
    columns = Rows(*HONEST)

    def found(cosine):
        return find_outliers(
            gram_of(columns), ScreeningOptions(), sites=SITES, last_step=False,
            earlier={"e": Remembered(cosine, "a (round 3)"), "b": Remembered(0.3, "c (round 1)")},
        )  # fmt: skip

    assert suspects(found(0.89)) == {}
    assert suspects(found(0.95)) == {"e": "rider"}
    assert found(0.95)[4].rider_fault == (
        "its update is one that a (round 3) had before: cosine 0.9500"
    )
    assert (found(0.95)[1].earlier, found(0.95)[0].earlier) == (0.3, None)


def test_two_replies_say_nothing_of_one_another_but_nothing_is_nothing():
    assert suspects(judged([1.0, 0], [-1000.0, 0])) == {}
    assert suspects(judged([1.0, 0], [0.0, 0], last=[1.0, 0])) == {"b": "rider"}


def test_updates_of_nothing_by_all_are_all_riders():
    assert set(suspects(judged([0.0, 0], [0.0, 0], [0.0, 0]))) == {"a", "b", "c"}


def test_limits_are_the_options():
    turned = with_fifth([-value for value in HONEST[4]])
    assert suspects(judged(*turned, least_agreement=0.5)) == {}
    weak = with_fifth([1.0, 0, 0, 0, 0, 4.0])
    assert suspects(judged(*weak, least_share=0.5)) == {"e": "direction"}
    long = with_fifth([3 * value for value in HONEST[4]])
    assert suspects(judged(*long, largest_norm=2.5)) == {"e": "norm"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"norms": "kill"},
        {"riders": ""},
        {"directions": "no"},
        {"largest_norm": 1.0},
        {"smallest_norm": 1.0},
        {"least_agreement": 0.0},
        {"least_share": 2.0},
        {"same": 0.0},
    ],
)
def test_an_option_out_of_range_is_named(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        ScreeningOptions(**wrong)
