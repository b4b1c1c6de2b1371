"""Losses that weigh a round are those that each site signed for it, and for these candidates."""

import json
import math

import pytest
from federation_toy import SITES
from hostile import keys_in
from tampering import changed, edit, exchanged, faults_of, run
from test_methods import PartSite

from fedmedlora.canonical import sha256
from fedmedlora.federation.checkpoints import round_name
from fedmedlora.federation.plan import SiteLosses


@pytest.fixture
def scored(tmp_path):
    """Two rounds in which the sites scored each other's adapters, and signed."""
    run(tmp_path / "run", keys_in(tmp_path / "keys"), method="fed-medlora+", rounds=2)
    return tmp_path / "run"


def taken_from(other, site, *, into=None):
    """Losses of another place, with the signature that fits them, given as this round's."""

    def apply(place):
        statement = (other / "replies" / site / "score.json").read_bytes()
        (place / "replies" / (into or site) / "score.json").write_bytes(statement)
        theirs = json.loads((other / "contributions.json").read_bytes())["scorers"]
        signed = next(one for one in theirs if one["site"] == site)
        content = json.loads((place / "contributions.json").read_bytes())
        for one in content["scorers"]:
            if one["site"] == (into or site):
                one.update(statement=signed["statement"], signature=signed["signature"])
        (place / "contributions.json").write_text(json.dumps(content))

    return apply


def swapped(content):
    content["candidates"][:2] = reversed(content["candidates"][:2])


def test_what_each_site_signed_names_its_candidates_as_their_sites_sent_them(scored):
    sent = [sha256((scored / f"round-0002/replies/{s}/packed.npy").read_bytes()) for s in SITES]
    for site in SITES:
        said = json.loads((scored / f"round-0002/replies/{site}/score.json").read_bytes())
        assert said["config"]["candidates"] == sent
    assert faults_of(scored) == []


def test_losses_of_round_one_put_into_round_two_are_found(scored):
    changed(scored, 2, taken_from(scored / round_name(1), "north"))
    faults = faults_of(scored)
    assert "north: score.json is of another run, round, site or phase" in faults
    assert "north: its losses answer another request than this round's" in faults
    assert "north: its losses are not of the candidates north, south, west" in faults


def test_losses_of_one_site_given_as_anothers_are_found(scored):
    changed(scored, 2, taken_from(scored / round_name(2), "north", into="west"))
    faults = faults_of(scored)
    assert "west: its signature does not fit score.json" in faults
    assert "west: score.json is of another run, round, site or phase" in faults


def test_losses_of_another_attempt_at_the_same_round_are_found(scored, tmp_path):
    """Sites, round, run and candidates are the same: the request alone tells them apart."""
    private = {site: tmp_path / "keys" / f"{site}.key" for site in SITES}
    public = json.loads((scored / "federation.json").read_bytes())["plan"]["public_keys"]
    keys = private, tuple((site, key) for site, key in public)
    run(tmp_path / "again", keys, method="fed-medlora+", rounds=1)
    changed(scored, 1, taken_from(tmp_path / "again" / round_name(1), "south"))
    assert faults_of(scored) == ["south: its losses answer another request than this round's"]


def test_exchanged_candidates_are_found(scored):
    changed(scored, 2, edit("contributions.json", swapped))
    faults = faults_of(scored)
    for site in SITES:
        assert f"{site}: its losses are not of the candidates south, north, west" in faults


def test_exchanged_adapters_of_candidates_are_found(scored):
    changed(scored, 2, exchanged("north", "west"))
    faults = faults_of(scored)
    assert "south: its losses are not of the candidates north, south, west" in faults


def test_a_candidate_that_is_left_out_is_found(scored):
    changed(scored, 2, edit("contributions.json", lambda content: content["candidates"].pop()))
    assert "north: its losses are not of the candidates north, south" in faults_of(scored)


class Unsure(PartSite):
    """Finds no loss of south's adapter."""

    def losses(self, adapters):
        found = super().losses(adapters)
        return SiteLosses([found.losses[0], math.nan, found.losses[2]], found.tokens)


def test_a_candidate_that_was_scored_and_refused_is_kept_so_that_the_others_losses_can_be_checked(
    tmp_path,
):
    workers = {**{name: PartSite(name) for name in SITES}, "west": Unsure("west")}
    keys = keys_in(tmp_path / "keys")
    folder = tmp_path / "run"
    run(folder, keys, workers=workers, method="fed-medlora+", min_sites=2, wire="int8")
    assert faults_of(folder) == []
    content = json.loads((folder / "round-0001/contributions.json").read_bytes())
    assert [one["signed"]["site"] for one in content["contributions"]] == ["north", "west"]
    assert [one["site"] for one in content["turned"]["train"]] == ["south"]
    assert content["candidates"] == list(SITES)
