"""The gate: released only if every condition holds; each refusal names what failed."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from fedmedlora.cli import run_command
from fedmedlora.errors import AdapterError, ConfigError, RunError
from fedmedlora.extract import read_task
from fedmedlora.federation.sums import check_sums
from fedmedlora.leakage import exposure
from fedmedlora.leakage.meter import measure_leakage
from fedmedlora.model.adapter_files import read_adapter
from fedmedlora.release import evidence as gathering
from fedmedlora.release.gate import failed, release
from fedmedlora.study.run_folder import RunFolder

POLICY = {
    "name": "toy release",
    "intended_use": "Trying the gate.",
    "limits": ["Knows nothing."],
    "backbone": {"licence": "Apache-2.0"},
}
LABEL = "fed-medlora"


@pytest.fixture
def run(plain, tmp_path):
    """A copy to spoil."""
    return shutil.copytree(plain, tmp_path / "run")


@pytest.fixture
def policy(tmp_path):
    def written(**conditions):
        file = tmp_path / "policy.yaml"
        content = {**POLICY, **conditions}
        file.write_text(yaml.safe_dump({k: v for k, v in content.items() if v is not None}))
        return file

    return written


def edit(file: Path, change):
    content = json.loads(file.read_text())
    file.write_text(json.dumps(change(content) or content))


def refused(run, file, **more) -> dict[str, tuple[str, str]]:
    """Names of the conditions that fail, with what was found and the bound; nothing is written."""
    verdict = release(run, file, **more)
    assert not verdict.released
    assert verdict.folder is None
    assert not (run / "releases").exists()
    return {one.name: (one.value, one.bound) for one in failed(verdict)}


PROMISE = {
    "epsilon": 2.5, "delta": 1e-5, "unit": "note", "neighbours": "one unit added or taken away",
    "sampling": "Poisson", "adversary": "sees all", "accountant": "prv", "covers": "the ledger",
    "sites": {"icu": {"epsilon": 2.5}, "outpatient": {"epsilon": 2.1}},
}  # fmt: skip


@pytest.fixture(autouse=True)
def _ledgers_as_noted(monkeypatch):
    """The toy run has no ledgers; ``tests/study/test_private_release.py`` has."""
    monkeypatch.setattr(gathering, "promise_now", lambda noted, arm, run: (noted, ""))


def promised(run, **changes):
    def change(done):
        done["privacy"] = {**PROMISE, **changes}

    edit(run / "answers" / LABEL / "done.json", change)


def test_what_holds_is_released_with_card_evidence_and_hashes(run, policy):
    promised(run)
    file = policy(
        scores=[{"task": "entities", "least": 0.0}],
        membership={"auc": 1.0},
        privacy={"epsilon": 3, "delta": 1e-5, "unit": "note"},
        sites=2,
        verified=True,
    )
    verdict = release(run, file)
    assert verdict.released
    folder = run / "releases" / LABEL
    assert verdict.folder == folder
    check_sums(folder)
    assert read_adapter(folder).sha256 == read_adapter(run / "adapters" / LABEL).sha256
    assert read_task(folder).backbone == "embedded"
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "embedded"
    card = (folder / "README.md").read_text()
    for told in ("Trying the gate.", "Knows nothing.", "Apache-2.0", "outpatient",
                 "(2.5, 1e-05)-differential privacy of each note", "Membership AUC at icu",
                 verdict.adapter_sha256):  # fmt: skip
        assert told in card
    assert {path.name for path in (folder / "evidence").iterdir()} == {
        "contributions.json", "data.json", "done.json", "leakage.json", "policy.yaml",
        "scores.json", "study.yaml", "verdict.json", "versions.json",
    }  # fmt: skip
    told = json.loads((folder / "evidence" / "verdict.json").read_text())
    assert told["released"] is True
    assert {row["method"] for row in json.loads((folder / "evidence/scores.json").read_text())} == {
        LABEL
    }


def test_no_text_of_a_note_is_released(run, policy):
    folder = release(run, policy(sites=2)).folder
    content = "".join(
        file.read_text() for file in folder.rglob("*") if file.suffix in (".json", ".md", ".yaml")
    )
    lines = {
        line.strip()
        for site in ("icu", "outpatient")
        for note in (run / "gold" / f"{site}.jsonl").read_text().splitlines()
        for line in json.loads(note)["text"].splitlines()
        if len(line.strip()) > 12
    }
    assert len(lines) > 10
    assert not any(line in content for line in lines)


def test_weights_that_only_the_sites_know_are_said_to_be_so(run, policy):
    def change(rounds):
        for told in rounds:
            for one in told["contributions"]:
                one["weight"] = None

    edit(run / "adapters" / LABEL / "contributions.json", change)
    card = (release(run, policy(sites=2)).folder / "README.md").read_text()
    assert "| icu | 10 | its own secret |" in card


def test_a_row_that_is_released_already_is_not_overwritten(run, policy):
    file = policy(sites=1)
    release(run, file)
    with pytest.raises(ConfigError, match="is there already"):
        release(run, file)


def test_a_score_below_the_least_is_named_with_both_numbers(run, policy):
    wanted = {"task": "entities", "least": 0.999, "cohort": "icu", "matching": "lenient"}
    found = refused(run, policy(scores=[wanted]))
    value, bound = found.pop("lenient F1 of entities, icu")
    assert bound == "at least 0.999"
    assert float(value) < 0.999
    assert not found


def test_the_lower_end_of_a_score_can_be_asked_for(run, policy):
    def change(scores):
        for one in scores:
            one.update({"f1": 0.8, "low": 0.6, "high": 0.9})

    edit(run / "scores.json", change)
    wanted = {"task": "entities", "least": 0.7}
    assert release(run, policy(scores=[wanted])).released
    shutil.rmtree(run / "releases")
    found = refused(run, policy(scores=[{**wanted, "end": "low"}]))
    assert found == {"strict F1 of entities, all": ("0.600", "at least 0.700 (lower end)")}


def test_a_score_that_was_not_made_is_a_failure(run, policy):
    found = refused(run, policy(scores=[{"task": "entities", "least": 0.0, "cohort": "nowhere"}]))
    assert found == {"strict F1 of entities, nowhere": ("missing", "at least 0.000")}


def test_the_upper_end_of_membership_must_keep_the_bound(run, policy):
    def change(leakage):
        for one in leakage["membership"]:
            one.update({"auc": 0.55, "low": 0.5, "high": 0.65})

    edit(run / "leakage.json", change)
    wanted = {"auc": 0.6, "site": "all", "against": "held-out", "score": "loss"}
    found = refused(run, policy(membership=wanted))
    name = "membership AUC, all, held-out, by loss"
    assert found == {name: ("0.650", "at most 0.600 (upper end)")}
    assert release(run, policy(membership={**wanted, "end": "value"})).released


def test_the_share_found_at_few_false_alarms_can_be_bounded_too(run, policy):
    def change(leakage):
        for one in leakage["membership"]:
            one.update({"auc": 0.5, "low": 0.5, "high": 0.5})
            one.update({"tpr": 0.2, "tpr_low": 0.1, "tpr_high": 0.4})

    edit(run / "leakage.json", change)
    wanted = {"auc": 0.6, "tpr": 0.3, "site": "all", "against": "held-out", "score": "loss"}
    name = "membership TPR at 5 % FPR, all, held-out, by loss"
    assert refused(run, policy(membership=wanted)) == {name: ("0.400", "at most 0.300 (upper end)")}
    released = release(run, policy(membership={**wanted, "end": "value"}))
    assert released.released
    assert "5 % false positives: 0.200 (0.100 to 0.400)" in (
        released.folder / "README.md"
    ).read_text(encoding="utf-8")


def test_leakage_that_was_not_measured_is_a_failure(run, policy):
    (run / "leakage.json").unlink()
    found = refused(run, policy(membership={"auc": 1.0}))
    assert found["membership AUC"][0].startswith("missing: run `fedmedlora leakage")


def test_a_site_whose_membership_was_not_measured_is_named(run, policy):
    def change(leakage):
        leakage["membership"] = [m for m in leakage["membership"] if m["site"] != "icu"]

    edit(run / "leakage.json", change)
    found = refused(run, policy(membership={"auc": 1.0}))
    assert found == {"membership AUC, icu": ("missing", "at most 1.000 (upper end)")}


def test_leakage_of_another_adapter_says_nothing(run, policy):
    edit(run / "leakage.json", lambda told: told["adapters"].update({LABEL: "0" * 64}))
    found = refused(run, policy(membership={"auc": 1.0}))
    assert "another adapter" in found["membership AUC"][0]


def test_without_a_promise_every_part_of_it_fails(run, policy):
    wanted = {"epsilon": 3, "delta": 1e-5, "unit": "note"}
    found = refused(run, policy(privacy=wanted))
    assert set(found) == {
        "epsilon", "delta", "unit of privacy", "what epsilon covers", "promise of every site",
    }  # fmt: skip
    assert found["epsilon"] == ("missing: trained without noise", "at most 3")


@pytest.mark.parametrize(
    ("changes", "name", "value", "bound"),
    [
        ({"epsilon": 3.2}, "epsilon", "3.2", "at most 3"),
        ({"sites": {"icu": {"epsilon": 9}, "outpatient": {"epsilon": 1}}}, "epsilon", "9",
         "at most 3"),
        ({"delta": 1e-3}, "delta", "0.001", "at most 1e-05"),
        ({"unit": "example"}, "unit of privacy", "example", "note or larger"),
        ({"covers": "per-row"}, "what epsilon covers", "per-row", "more than one row"),
        ({"sites": {"icu": {"epsilon": 1}}}, "promise of every site", "missing: outpatient",
         "every site that contributed"),
    ],
)  # fmt: skip
def test_each_part_of_a_promise_has_its_bound(run, policy, changes, name, value, bound):
    promised(run, **changes)
    wanted = {"epsilon": 3, "delta": 1e-5, "unit": "note"}
    assert refused(run, policy(privacy=wanted)) == {name: (value, bound)}


def test_too_few_sites_are_a_failure(run, policy):
    assert refused(run, policy(sites=3)) == {"sites": ("2", "at least 3 in every round")}


def test_a_backbone_without_a_licence_is_a_failure(run, policy):
    found = refused(run, policy(sites=1, backbone=None))
    assert found == {"licence of the backbone": ("missing", "named")}


def test_rounds_that_are_not_what_the_replies_make_are_a_failure(run, policy):
    packed = run / "federation" / LABEL / "round-0002" / "replies" / "icu" / "packed.npy"
    data = bytearray(packed.read_bytes())
    data[-1] ^= 1
    packed.write_bytes(bytes(data))
    found = refused(run, policy(verified=True))
    assert found["verified"][0].startswith("round 2: ")


def test_rounds_without_replies_are_a_failure(run, policy):
    shutil.rmtree(run / "federation" / LABEL / "round-0001" / "replies")
    assert set(refused(run, policy(verified=True))) == {"verified"}


def test_an_adapter_of_other_rounds_is_a_failure(run, policy):
    adapters = run / "adapters"
    shutil.copytree(adapters / "single-site" / "icu", adapters / LABEL, dirs_exist_ok=True)
    found = refused(run, policy(verified=True))
    assert "another adapter" in found["verified"][0]


def test_contributions_that_no_round_has_are_a_failure(run, policy):
    def one_more(rounds):
        for told in rounds:
            [first, *_] = told["contributions"]
            signed = {**first["signed"], "site": "nowhere"}
            told["contributions"].append({**first, "signed": signed})

    edit(run / "adapters" / LABEL / "contributions.json", one_more)
    told = "its contributions.json tells of other contributions than the rounds do"
    asked = "every round is what its replies make"
    assert refused(run, policy(sites=3, verified=True)) == {"verified": (told, asked)}


def test_an_audit_log_that_is_missing_or_names_too_little_is_a_failure(run, policy):
    from fedmedlora.federation.audit import AuditLog

    found = refused(run, policy(audit=["log.jsonl"]))
    assert set(found) == {"audit log.jsonl", "audit"}
    assert found["audit"][0].startswith("missing: ")
    place = run.parent / "log.jsonl"
    log = AuditLog(place, owner="coordinator", role="coordinator", key=None)
    log.append("received", sha256="0" * 64)
    found = refused(run, policy(audit=["log.jsonl"]))
    assert found == {
        "audit": (
            "the contribution of icu to round 1 is in none of them",
            "every contribution is in a log",
        )
    }
    rounds = json.loads((run / "adapters" / LABEL / "contributions.json").read_text())
    for told in rounds:
        for one in told["contributions"]:
            log.append("received", sha256=one["signed"]["statement"])
    assert release(run, policy(audit=["log.jsonl"])).released
    shutil.rmtree(run / "releases")
    place.write_text(place.read_text().replace("received", "sent", 1))
    assert "audit log.jsonl" in refused(run, policy(audit=["log.jsonl"]))


@pytest.fixture
def planted(canaries, tmp_path, monkeypatch):
    """The run with canaries, measured, as if it kept no note from training."""
    run = shutil.copytree(canaries, tmp_path / "planted")
    monkeypatch.setattr(exposure, "CANDIDATES", 15)
    measure_leakage(run)
    return run


def test_exposure_comes_from_a_run_of_the_same_study_with_canaries(run, planted, policy):
    wanted = {"bits": 4, "repetitions": 2, "run": "planted"}
    assert release(run, policy(exposure=wanted)).released
    shutil.rmtree(run / "releases")

    def change(leakage):
        for one in leakage["exposure"]:
            one.update({"bits": 4.5, "high": 6.0})

    edit(planted / "leakage.json", change)
    found = refused(run, policy(exposure=wanted))
    assert found == {
        f"exposure at 2 repetitions, {kind}": ("4.50 bits", "at most 4 bits")
        for kind in ("beside", "inside")
    }
    found = refused(run, policy(exposure={**wanted, "bits": 5, "end": "high"}))
    assert set(found.values()) == {("6.00 bits", "at most 5 bits (upper end)")}
    found = refused(run, policy(exposure={**wanted, "repetitions": 16}))
    assert found["exposure at 16 repetitions"][0].startswith("missing")


def test_a_run_with_canaries_of_another_study_says_nothing(run, planted, policy):
    file = planted / "study.yaml"
    file.write_text(file.read_text().replace("learning_rate: 0.001", "learning_rate: 0.002"))
    found = refused(run, policy(exposure={"bits": 9, "repetitions": 2, "run": "planted"}))
    assert found["exposure at 2 repetitions"][0] == "it is a run of another study: training differ"
    found = refused(run, policy(exposure={"bits": 9, "repetitions": 2, "run": "nowhere"}))
    assert "no run folder" in found["exposure at 2 repetitions"][0]


def test_a_run_with_canaries_is_never_released(planted, policy):
    found = refused(planted, policy(sites=1))
    assert found == {"no canaries": ("8 planted", "0 planted")}


@pytest.mark.parametrize(
    ("conditions", "says"),
    [
        ({}, "it asks for nothing"),
        ({"membershp": {"auc": 0.6}}, "membershp: there is no such setting"),
        ({"membership": {"auc": 1.5}}, "membership.auc"),
        ({"scores": [{"task": "entity", "least": 0.5}]}, "scores.0.task"),
        ({"sites": True}, "true or false"),
        ({"intended_use": None, "sites": 1}, "intended_use"),
    ],
)
def test_a_policy_with_a_slip_is_refused_and_the_key_named(run, policy, conditions, says):
    with pytest.raises(ConfigError, match=says):
        release(run, policy(**conditions))


def test_the_command_refuses_with_exit_code_1_and_releases_with_0(run, policy, capsys):
    file = str(policy(sites=3))
    assert run_command(["release", str(run), "--policy", file]) == 1
    told = capsys.readouterr().out
    assert "FAILS" in told
    assert "refused, nothing was written: sites" in told
    out = run / "elsewhere"
    arguments = ["--policy", str(policy(sites=1)), "--method", "single-site/icu"]
    assert run_command(["release", str(run), *arguments, "--out", str(out)]) == 0
    assert (out / "README.md").is_file()


def test_bad_input_is_told_in_one_line(run, policy, tmp_path, capsys):
    file = str(policy(sites=1))
    cases = {
        ("release", str(run), "--policy", file, "--method", "fed"): (2, "'fed' is none of them"),
        ("release", str(run), "--policy", str(tmp_path / "no.yaml")): (2, "no such file"),
        ("release", str(tmp_path), "--policy", file): (2, "no run folder"),
        ("release", str(run), "--policy", file, "--out", f"{file}/out"): (2, "is no folder"),
    }
    for arguments, (code, says) in cases.items():
        assert run_command(arguments) == code
        assert says in capsys.readouterr().err


def test_an_unfinished_run_or_a_changed_adapter_is_an_error(run, policy):
    file = policy(sites=1)
    tensors = run / "adapters" / LABEL / "adapter_model.safetensors"
    data = bytearray(tensors.read_bytes())
    data[-3] ^= 1
    tensors.write_bytes(bytes(data))
    with pytest.raises(AdapterError):
        release(run, file)
    (RunFolder(run).path / "answers" / LABEL / "done.json").unlink()
    with pytest.raises(RunError, match="not finished"):
        release(run, file)
