"""Secure aggregation over machines: every site holds the others' keys, and the sum comes out."""

import json
import shutil

import pytest
from deployment_toys import command, found, running, said, study_of

from fedmedlora.cli import run_command
from fedmedlora.errors import ConfigError, DataError
from fedmedlora.federation.deployment.layout import SiteFolder, membership_file
from fedmedlora.federation.deployment.members import all_members, known_members
from fedmedlora.federation.deployment.membership import read_membership
from fedmedlora.model.adapter_files import read_adapter
from fedmedlora.study.arms import study_arms
from fedmedlora.study.checking import check_site
from fedmedlora.study.data import load_data
from fedmedlora.study.hosting import site_desk
from fedmedlora.study.methods import MethodRunner


def secured(**settings):
    return study_of(**{"federation_secure_aggregation": {}, "federation_rounds": 1, **settings})


def acquaint(hospitals):
    """Every site gets the others' memberships."""
    for one in hospitals:
        for other in hospitals:
            if other is not one:
                place = membership_file(SiteFolder(one.settings.parent).members, other.name)
                place.parent.mkdir(exist_ok=True)
                shutil.copy(other.membership, place)


def names(hospitals):
    return [one.name for one in hospitals]


def test_a_site_holds_the_same_terms_as_every_other_once_it_has_their_keys(tmp_path):
    _, hospitals = found(tmp_path, secured())
    acquaint(hospitals)
    terms = [site_desk(one.settings).secure for one in hospitals]
    assert len({one.sha256 for one in terms}) == 1
    assert terms[0].sites == tuple(names(hospitals))
    assert dict(terms[0].public_keys)["icu"] == read_membership(hospitals[0].membership).signing
    assert terms[0].threshold == 3


def test_without_the_others_keys_a_site_does_not_start_and_check_says_what_is_missing(tmp_path):
    _, hospitals = found(tmp_path, secured())
    with pytest.raises(ConfigError, match=r"missing: outpatient\.membership\.json, discharge"):
        site_desk(hospitals[0].settings)
    assert run_command(["site", "start", str(hospitals[0].settings)]) == 2
    told = {one.what: one for one in check_site(hospitals[0].settings)}
    assert (told["key of discharge"].state, told["key of discharge"].found) == ("wrong", "missing")
    acquaint(hospitals)
    told = {one.what: one for one in check_site(hospitals[0].settings)}
    assert told["key of discharge"].state == "ok"
    assert told["key of discharge"].found == read_membership(hospitals[2].membership).fingerprint
    assert "key of icu" not in told


def test_a_study_without_it_needs_nobodys_keys(tmp_path):
    _, hospitals = found(tmp_path, study_of())
    assert site_desk(hospitals[0].settings).secure is None
    assert not [one for one in check_site(hospitals[0].settings) if "key of" in one.what]


def test_a_membership_of_another_site_or_federation_or_changed_is_refused(tmp_path):
    _, hospitals = found(tmp_path / "1", secured())
    _, others = found(tmp_path / "2", secured())
    folder = SiteFolder(hospitals[0].settings.parent)
    for wrong, error, told in (
        (others[1].membership.read_bytes(), ConfigError, "another site or another federation"),
        (hospitals[2].membership.read_bytes(), ConfigError, "another site or another federation"),
        (b"{}", DataError, "is no SITE.membership.json"),
    ):
        acquaint(hospitals)
        membership_file(folder.members, "outpatient").write_bytes(wrong)
        with pytest.raises(error, match=told):
            all_members(folder, "icu", names(hospitals))
    content = json.loads(hospitals[1].membership.read_text())
    content["signing"] = read_membership(hospitals[2].membership).signing
    membership_file(folder.members, "outpatient").write_text(json.dumps(content))
    with pytest.raises(DataError, match="proof does not fit"):
        known_members(folder, "icu", names(hospitals))


@pytest.mark.slow
def test_masked_rounds_over_machines_end_with_the_adapter_of_one_machine(tmp_path):
    study = secured()
    made, hospitals = found(tmp_path, study)
    acquaint(hospitals)
    coordinator = command("federation", "start", made.folder, log=tmp_path / "coordinator.log")
    try:
        with running(hospitals, logs=tmp_path):
            code = coordinator.wait(timeout=400)
    finally:
        coordinator.terminate()
        coordinator.wait()
    assert code == 0, said(tmp_path)
    runner = MethodRunner(study, load_data(study), tmp_path / "alone", lambda kind, facts: None)
    [arm] = study_arms(study)
    expected = runner.train(arm).adapter
    adapter = read_adapter(made.folder / "run" / "adapters" / "fed-medlora")
    assert adapter.sha256 == expected.sha256  # masks cancel exactly: not a bit differs
    record = made.folder / "run/federation/fed-medlora/round-0001/round.json"
    secure = json.loads(record.read_text())["secure"]
    assert secure["answered"]["unmask"] == names(hospitals)
    for one in hospitals:
        own = one.settings.parent / "work/federation/fed-medlora/own" / one.name / "secure"
        assert {path.name for path in own.iterdir()} == {"ledger.json", "lock"}  # no secret is left
        [part] = json.loads((own / "ledger.json").read_text())["parts"].values()
        assert part["weight"] > 0
        assert part["norm"] > 0
