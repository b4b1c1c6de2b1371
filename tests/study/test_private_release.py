"""The gate and the ledgers: what is released says what they say now, and no count without noise."""

import json
import shutil

import pytest
import yaml

from fedmedlora.privacy.ledger import Budget, Plan, open_ledger
from fedmedlora.release.gate import failed, release
from fedmedlora.release.privacy import without_counts

POLICY = {
    "name": "private",
    "intended_use": "Trying the gate.",
    "backbone": {"licence": "Apache-2.0"},
    "privacy": {"epsilon": 4, "delta": 0.01, "unit": "note"},
}


@pytest.fixture
def folder(finished, tmp_path):
    """A copy of the finished run and its ledgers, which its study finds."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    file = tmp_path / "run/study.yaml"
    study = yaml.safe_load(file.read_text(encoding="utf-8"))
    file.write_text(yaml.safe_dump({**study, "root": str(tmp_path)}), encoding="utf-8")
    (tmp_path / "policy.yaml").write_text(yaml.safe_dump(POLICY), encoding="utf-8")
    return tmp_path


def verdict_of(folder):
    return release(folder / "run", folder / "policy.yaml", method="ffa-lora")


def refused(folder):
    verdict = verdict_of(folder)
    assert not verdict.released
    assert not (folder / "run/releases").exists()
    return {one.name: one.value for one in failed(verdict)}


def test_a_private_row_is_released_with_what_its_ledgers_say_and_no_exact_count(folder):
    verdict = verdict_of(folder)
    assert verdict.released, failed(verdict)
    told = json.loads((verdict.folder / "evidence/data.json").read_text())["sites"]
    assert {name: site["train"] for name, site in told.items()} == {"icu": 8, "outpatient": 10}
    assert not any("training_examples" in site for site in told.values())
    card = (verdict.folder / "README.md").read_text(encoding="utf-8")
    assert "Not covered by it" in card
    done = json.loads((verdict.folder / "evidence/done.json").read_text())
    before = json.loads((folder / "run/answers/ffa-lora/done.json").read_text())
    assert done["privacy"]["sites"] == before["privacy"]["sites"]


def test_what_was_spent_since_the_run_was_done_counts(folder):
    plan = Plan("later", noise=0.8, rate=0.4, steps=20, rounds=1, units=10)
    with open_ledger(folder / "ledgers/outpatient.jsonl", site="outpatient", unit="note") as one:
        one.reserve(plan, 1, Budget(1000.0, 0.01, "rdp"))
    found = refused(folder)
    assert set(found) == {"epsilon"}
    assert float(found["epsilon"]) > 8


def test_a_promise_that_was_written_by_hand_is_not_taken(folder):
    file = folder / "run/answers/ffa-lora/done.json"
    done = json.loads(file.read_text())
    done["privacy"]["epsilon"] = 0.1
    for site in done["privacy"]["sites"].values():
        site["epsilon"] = 0.1
    file.write_text(json.dumps(done))
    policy = {**POLICY, "privacy": {**POLICY["privacy"], "epsilon": 1}}
    (folder / "policy.yaml").write_text(yaml.safe_dump(policy), encoding="utf-8")
    assert set(refused(folder)) == {"epsilon"}


def test_an_edited_ledger_or_one_that_is_gone_bears_no_promise(folder):
    file = folder / "ledgers/icu.jsonl"
    text = file.read_text()
    file.write_text(text.replace('"steps":2', '"steps":1'))
    assert "the ledger was edited" in refused(folder)["ledgers"]
    file.unlink()
    assert refused(folder)["ledgers"] == "no ledger of icu knows of this run"


def test_a_row_without_noise_cannot_claim_a_promise(folder):
    file = folder / "run/study.yaml"
    study = yaml.safe_load(file.read_text(encoding="utf-8"))
    study["privacy"] = {}
    file.write_text(yaml.safe_dump(study), encoding="utf-8")
    assert refused(folder)["ledgers"] == "the study trains this row without noise"


def test_notes_are_not_counted_where_the_unit_is_the_patient():
    data = {
        "sites": {"icu": {"train": 9, "validation": 2, "training_examples": {"sentences": 7}}},
        "cohorts": {"icu": {"documents": 3}},
    }
    assert without_counts(data, unit="patient") == {
        "sites": {"icu": {"validation": 2}}, "cohorts": {"icu": {"documents": 3}},
    }  # fmt: skip
    assert without_counts(data, unit="note")["sites"]["icu"] == {"train": 9, "validation": 2}
