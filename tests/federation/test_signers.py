"""Whose keys the replies were checked with: shown, and compared with what the sites say."""

import json
import shutil
from dataclasses import replace

import pytest
from federation_toy import SITES
from hostile import keys_in
from tampering import changed, edit, run

from fedmedlora.cli import run_command
from fedmedlora.errors import DataError
from fedmedlora.federation.deployment.layout import SiteFolder
from fedmedlora.federation.deployment.membership import make_membership, membership_file
from fedmedlora.federation.signers import faults_of_signers, memberships_in, signers_of


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory):
    """Three sites' folders with their keys and memberships, and a signed run of theirs."""
    root = tmp_path_factory.mktemp("hospitals")
    made = {
        site: make_membership(SiteFolder(root / site), site=site, federation="f") for site in SITES
    }
    keys = {site: SiteFolder(root / site).signing_key for site in SITES}
    public = tuple((site, made[site].signing) for site in SITES)
    run(root / "run", (keys, public), rounds=1)
    (root / "own").mkdir()
    for site in SITES:
        shutil.copy(membership_file(root / site, site), root / "own")
    return root


def test_the_keys_are_shown_and_those_of_the_sites_are_theirs(hospitals, capsys):
    run_folder = str(hospitals / "run")
    assert run_command(["verify", run_folder]) == 0
    told = capsys.readouterr().out
    members = memberships_in(hospitals / "own")
    for site in SITES:
        assert f"key of {site}: {members[site].signing}\n" in told
    assert "same, signed with the keys above: whose they are is the plan's word" in told
    assert run_command(["verify", run_folder, "--keys", str(hospitals / "own")]) == 0
    assert "same, signed with the sites' own keys" in capsys.readouterr().out


def test_a_run_stripped_of_keys_and_signatures_says_unsigned_and_fails_against_the_sites(
    hospitals, tmp_path, capsys
):
    folder = shutil.copytree(hospitals / "run", tmp_path / "run")

    def stripped(content):
        signed = [one["signed"] for one in content["contributions"]]
        for one in (*signed, *content["declared"]):
            one.update(signature="", public_key="")

    plan = json.loads((folder / "federation.json").read_bytes())
    plan["plan"]["public_keys"] = []
    (folder / "federation.json").write_text(json.dumps(plan))
    changed(folder, 1, edit("contributions.json", stripped))
    assert run_command(["verify", str(folder)]) == 0
    told = capsys.readouterr().out
    assert "key of north: none\n" in told
    assert "\nsame, UNSIGNED: " in told
    assert run_command(["verify", str(folder), "--keys", str(hospitals / "own")]) == 1
    told = capsys.readouterr().out
    assert "north: what it sent is not signed\n" in told
    assert told.endswith("\nNOT THE SAME\n")


def test_a_run_signed_by_keys_that_are_not_the_sites_is_not_the_same(hospitals, tmp_path, capsys):
    run(tmp_path / "run", keys_in(tmp_path / "keys"), rounds=1)
    command = ["verify", str(tmp_path / "run"), "--keys", str(hospitals / "own")]
    assert run_command(command) == 1
    own = memberships_in(hospitals / "own")["north"].signing
    assert f"north: its own key is {own}, not the plan's " in capsys.readouterr().out
    assert run_command([*command, "--json"]) == 1
    content = json.loads(capsys.readouterr().out)
    assert len(content["strangers"][str(tmp_path / "run")]) == 3
    assert content["keys_compared"] is True


def test_a_site_whose_membership_is_not_there_or_of_another_federation_is_named(hospitals):
    keys, members = signers_of(hospitals / "run"), memberships_in(hospitals / "own")
    assert faults_of_signers(keys, members) == ()
    there = {site: one for site, one in members.items() if site != "west"}
    [fault] = faults_of_signers(keys, there)
    assert fault.startswith("west: its membership is not there")
    other = replace(members["west"], federation="g")
    assert faults_of_signers(keys, {**members, "west": other}) == (
        "the memberships are of several federations",
    )


def test_memberships_are_found_in_a_sites_folder_and_in_a_coordinators(hospitals, tmp_path):
    site, hub = tmp_path / "north", tmp_path / "hub"
    (site / "members").mkdir(parents=True)
    for name in SITES:
        own = membership_file(hospitals / name, name)
        shutil.copy(own, site if name == "north" else site / "members")
        (hub / "sites").mkdir(parents=True, exist_ok=True)
        shutil.copy(own, hub / "sites")
    assert memberships_in(site) == memberships_in(hub) == memberships_in(hospitals / "own")
    assert memberships_in(hub / "sites") == memberships_in(hub)
    with pytest.raises(DataError, match=r"no SITE\.membership\.json"):
        memberships_in(tmp_path / "nothing")
    make_membership(SiteFolder(tmp_path / "again"), site="north", federation="f")
    shutil.copy(membership_file(tmp_path / "again", "north"), site / "members")
    with pytest.raises(DataError, match="another membership of 'north'"):
        memberships_in(site)
