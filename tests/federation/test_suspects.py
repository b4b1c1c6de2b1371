"""Liars among honest sites: refused or named in the record, and what robust averages make of them.

Honest updates share a part of length 3 and have one of their own of length 4: their cosines are
about .36, as at real sites, where no two are alike.
"""

import numpy as np
import pytest

from fedmedlora.aggregation.methods import METHODS
from fedmedlora.aggregation.outliers import ScreeningOptions
from fedmedlora.aggregation.robust import RobustOptions
from fedmedlora.aggregation.server_optimiser import ServerOptions
from fedmedlora.errors import ConfigError, FederationError
from fedmedlora.federation.adapter_parts import adapter_part, completed
from fedmedlora.federation.plan import Declared, FederationPlan, SiteLosses, SiteUpdate
from fedmedlora.federation.run import run_federation
from fedmedlora.federation.verify import verify_federation
from fedmedlora.model.adapter import Adapter, Manifest

A, B = "base_model.model.q.lora_A.weight", "base_model.model.q.lora_B.weight"
SHAPES = ((A, (8, 256)), (B, (256, 8)))
MANIFEST = Manifest("b" * 64, "t" * 64, "s" * 64, 8, 16.0, 0.0, ("q",), SHAPES)
SITES = ("a", "b", "c", "d", "e")
LIAR = "e"


def of_length(length, *seed):
    drawn = np.random.default_rng(seed).standard_normal(MANIFEST.size)
    return length * drawn / np.linalg.norm(drawn)


def tensors_of(flat):
    cut = 8 * 256
    return {
        A: flat[:cut].reshape(8, 256).astype(np.float32),
        B: flat[cut:].reshape(256, 8).astype(np.float32),
    }


def flat_of(adapter):
    return np.concatenate([adapter.tensors[A].ravel(), adapter.tensors[B].ravel()])


START = Adapter(MANIFEST, tensors_of(of_length(10.0, 99)))


class Site:
    """Honest; ``lie`` may change its step."""

    def __init__(self, name, lie=None):
        self.name, self.lie = name, lie
        self.got = []

    def declared(self):
        return Declared(10, 100, 10)

    def train(self, adapter, order):
        adapter = completed(adapter, START)
        self.got.append(flat_of(adapter))
        number = SITES.index(self.name)
        step = of_length(3.0, order.round) + of_length(4.0, order.round, number)
        if self.lie is not None:
            step = self.lie(self, step, order)
        whole = Adapter(MANIFEST, tensors_of(self.got[-1] + step))
        return SiteUpdate(adapter_part(whole, order.returns), 10, 100, 1.0, 0.5, 0.0)

    def losses(self, adapters):
        return SiteLosses([1.0] * len(adapters), 10)


def nothing(site, step, order):
    return 0 * step


def noise(site, step, order):
    return of_length(5.0, order.round, 77)


def last_step(site, step, order):
    return 0.7 * (site.got[-1] - site.got[-2]) if len(site.got) > 1 else noise(site, step, order)


def of_site_a(site, step, order):
    return of_length(3.0, order.round) + of_length(4.0, order.round, 0)


def of_site_a_before(site, step, order):
    """What site a sent in the round before; honest in the first."""
    before = order.round - 1
    return of_length(3.0, before) + of_length(4.0, before, 0) if before else step


LIES = {"nothing": nothing, "noise": noise, "last step": last_step, "site a's": of_site_a}


def run(folder, lie=None, **changes):
    resume = changes.pop("resume", False)
    people = changes.pop("workers", None) or {
        name: Site(name, lie if name == LIAR else None) for name in SITES
    }
    a_plan = FederationPlan(
        **{"run_id": "toy", "sites": SITES, "rounds": 2, "min_sites": 3, **changes}
    )
    return run_federation(a_plan, START, workers=people, folder=folder, resume=resume)


def flagged(result):
    """(site, round) of all suspects."""
    return {
        (name, record.round)
        for record in result.records
        for name, site in record.sites.items()
        if site.flags
    }


@pytest.mark.parametrize("wire", ["bf16", "fp32", "int8", "int4"])
@pytest.mark.parametrize("method", METHODS)
def test_honest_sites_are_clear_with_every_method_and_wire(tmp_path, method, wire):
    result = run(tmp_path, method=method, wire=wire, rounds=3, min_sites=None)
    assert flagged(result) == set()
    told = result.records[-1].sites["b"].update
    assert told["norm"] > 0
    assert 0.2 < told["agreement"] < 0.6


@pytest.mark.parametrize("wire", ["bf16", "fp32", "int8", "int4"])
@pytest.mark.parametrize("lie", LIES)
def test_a_free_rider_is_named_within_two_rounds_and_nobody_else(tmp_path, lie, wire):
    result = run(tmp_path, LIES[lie], wire=wire)
    found = {name for name, _ in flagged(result)}
    assert found == ({"a", LIAR} if lie == "site a's" else {LIAR})
    if lie != "last step":  # of which there is none in round 1
        assert (LIAR, 1) in flagged(result)
    assert (LIAR, 2) in flagged(result)


@pytest.mark.parametrize(
    ("lie", "number"),
    [
        (lambda site, step, order: 1000 * step, "times the round's median, above 10"),
        (lambda site, step, order: -step, "points away"),
        (noise, "points away"),
    ],
    ids=["times 1000", "turned round", "noise"],
)
def test_what_could_ruin_the_model_is_refused_with_its_numbers(tmp_path, lie, number):
    screening = ScreeningOptions(directions="refuse")
    result = run(tmp_path / "1", lie, wire="fp32", screening=screening)
    for record in result.records:
        site = record.sites[LIAR]
        assert (site.status, site.weight) == ("refused", 0)
        assert number in site.reason
        assert site.update["norm"] > 0
        assert [record.sites[name].weight for name in SITES[:4]] == [0.25] * 4
    fewer = {name: Site(name) for name in SITES[:4]}
    without = run(tmp_path / "2", wire="fp32", sites=SITES[:4], workers=fewer)
    assert result.adapter.sha256 == without.adapter.sha256


def test_a_liar_below_quorum_ends_the_run_with_its_numbers(tmp_path):
    with pytest.raises(
        FederationError, match=r"4 of 5 sites trained, 5.*e refused.*round's median"
    ):
        run(tmp_path, lambda site, step, order: 1000 * step, min_sites=None)


def test_flagged_is_named_and_counted_and_off_is_neither(tmp_path):
    def lie(site, step, order):
        return -50 * step

    told = run(tmp_path / "1", lie, rounds=1, screening=ScreeningOptions(norms="flag"))
    site = told.records[0].sites[LIAR]
    assert (site.status, site.weight) == ("ok", 0.2)
    assert "times the round's median, above 10" in site.flags["norm"]
    assert set(site.flags) == {"norm"}
    off = run(tmp_path / "2", lie, rounds=1, screening=ScreeningOptions("off", "off", "off"))
    assert flagged(off) == set()
    assert off.adapter.sha256 == told.adapter.sha256


def test_riders_may_be_refused_too(tmp_path):
    result = run(tmp_path, nothing, rounds=1, screening=ScreeningOptions(riders="refuse"))
    assert result.records[0].sites[LIAR].status == "refused"
    assert "sent back what it got" in result.records[0].sites[LIAR].reason


@pytest.mark.parametrize("wire", ["bf16", "fp32", "int8", "int4"])
def test_who_sends_what_another_site_sent_before_is_named_alone(tmp_path, wire):
    result = run(tmp_path, of_site_a_before, wire=wire, rounds=3)
    assert flagged(result) == {(LIAR, 2), (LIAR, 3)}
    site = result.records[2].sites[LIAR]
    assert site.flags["rider"].startswith("its update is one that a (round 2) had before: cosine")
    assert site.update["earlier"] > 0.9
    assert result.records[2].sites["b"].update["earlier"] < 0.4


def test_who_sends_what_another_site_sent_before_is_refused_alone_after_a_resumption_too(tmp_path):
    refuse = {"screening": ScreeningOptions(riders="refuse"), "wire": "fp32"}
    people = {name: Site(name, of_site_a_before if name == LIAR else None) for name in SITES}
    run(tmp_path, workers=people, rounds=1, **refuse)
    second = run(tmp_path, workers=people, rounds=2, resume=True, **refuse).records[1]
    assert second.sites[LIAR].status == "refused"
    assert [second.sites[name].weight for name in SITES[:4]] == [0.25] * 4


def test_two_updates_that_are_one_in_the_same_round_are_both_refused_where_riders_are(tmp_path):
    """Who had it first cannot be known."""
    refuse = ScreeningOptions(riders="refuse")
    [record] = run(tmp_path, of_site_a, rounds=1, screening=refuse).records
    fates = {name: site.status for name, site in record.sites.items()}
    assert fates == {"a": "refused", "b": "ok", "c": "ok", "d": "ok", LIAR: "refused"}


def test_two_sites_are_not_compared(tmp_path):
    people = {name: Site(name) for name in SITES[:2]}
    people["b"].lie = lambda site, step, order: -1000 * step
    result = run(tmp_path, sites=SITES[:2], workers=people, min_sites=None)
    assert flagged(result) == set()


def test_the_last_step_is_known_again_after_a_resumption(tmp_path):
    people = {name: Site(name, last_step if name == LIAR else None) for name in SITES}
    run(tmp_path, workers=people, rounds=2)
    resumed = run(tmp_path, workers=people, rounds=3, resume=True)
    assert "last step" in resumed.records[2].sites[LIAR].flags["rider"]


def test_what_is_suspect_is_in_the_record_on_disk(tmp_path):
    run(tmp_path, nothing)
    again = run(tmp_path, nothing, resume=True)
    site = again.records[1].sites[LIAR]
    assert "sent back what it got" in site.flags["rider"]
    assert site.update == {**site.update, "norm": 0.0, "times_median": 0.0}


# Robust averages, through the strategy


def poison(site, step, order):
    return 1000 * step


@pytest.mark.parametrize("wire", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize("rule", ["median", "trimmed-mean", "krum", "clip"])
def test_a_robust_rule_keeps_a_liar_from_moving_the_model_far(tmp_path, rule, wire):
    def end(lie, rule):
        off = ScreeningOptions("off", "off", "off")
        result = run(
            tmp_path / f"{rule}{lie is None}", lie, rounds=1, wire=wire, screening=off,
            robust=RobustOptions(rule),
        )  # fmt: skip
        return flat_of(result.adapter), result.records[0].sites

    clean, _ = end(None, "none")
    kept, sites = end(poison, rule)
    ruined, _ = end(poison, "none")
    assert np.linalg.norm(kept - clean) < 4
    assert np.linalg.norm(ruined - clean) > 900
    weights = [site.weight for site in sites.values()]
    assert (weights[4] < 0.001) == (rule in ("krum", "clip"))


@pytest.mark.parametrize("wire", ["fp32", "bf16", "int8"])
def test_the_median_of_a_round_is_that_of_the_sites_adapters(tmp_path, wire):
    seen = []

    class Seen(Site):
        def train(self, adapter, order):
            update = super().train(adapter, order)
            seen.append(flat_of(update.adapter))
            return update

    result = run(
        tmp_path, rounds=1, wire=wire, workers={name: Seen(name) for name in SITES},
        robust=RobustOptions("median"),
    )  # fmt: skip
    rounded = {"fp32": 1e-7, "bf16": 2e-3, "int8": 2e-3}[wire]
    assert np.allclose(flat_of(result.adapter), np.median(seen, axis=0), atol=rounded)


@pytest.mark.parametrize("method", [name for name, one in METHODS.items() if one.averages])
def test_every_method_that_averages_takes_every_rule_and_comes_to_the_same_twice(tmp_path, method):
    for rule in ("median", "trimmed-mean", "krum", "clip"):
        ends = [
            run(tmp_path / f"{rule}{turn}", method=method, robust=RobustOptions(rule))
            for turn in (1, 2)
        ]
        assert ends[0].adapter.sha256 == ends[1].adapter.sha256


@pytest.mark.parametrize("wire", ["fp32", "int4"])
@pytest.mark.parametrize("rule", ["none", "median", "trimmed-mean", "krum", "clip"])
def test_a_round_of_every_rule_is_made_again_from_its_kept_replies(tmp_path, rule, wire):
    result = run(
        tmp_path, poison, rounds=3, wire=wire, robust=RobustOptions(rule), keep_replies=True,
        server=ServerOptions(momentum=0.5),
    )  # fmt: skip
    verdicts = verify_federation(tmp_path)
    assert [verdict.faults for verdict in verdicts] == [(), (), ()]
    assert [verdict.made for verdict in verdicts] == [r.adapter_sha256 for r in result.records]
    assert verdicts[0].sites == SITES[:4]  # who was refused gave nothing


def test_a_rule_that_has_no_sense_is_refused_by_the_plan():
    def plan(**changes):
        return FederationPlan(**{"run_id": "x", "sites": SITES, "rounds": 1, **changes})

    with pytest.raises(ConfigError, match="does not average"):
        plan(method="fedex-lora", robust=RobustOptions("median"))
    with pytest.raises(ConfigError, match="7 sites or more"):
        plan(robust=RobustOptions("krum", malicious=2))
    with pytest.raises(ConfigError, match="3 sites or more"):
        plan(robust=RobustOptions("trimmed-mean"), min_sites=2)
