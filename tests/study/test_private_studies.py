"""Privacy from the study file on: what is refused, and a small run with its number."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from private_toys import TEXT, study_of
from torch.optim.optimizer import register_optimizer_step_pre_hook

from fedmedlora.config import check_study
from fedmedlora.errors import ConfigError, FederationError, PrivacyError
from fedmedlora.evaluation.tables import render_text
from fedmedlora.federation.plan import Declared, Order
from fedmedlora.privacy.accounting import Mechanism, epsilon_of
from fedmedlora.privacy.ledger import open_ledger
from fedmedlora.release.privacy import privacy_of
from fedmedlora.study.arms import study_arms
from fedmedlora.study.data import load_data
from fedmedlora.study.methods import MethodRunner
from fedmedlora.study.privacy import NEIGHBOURS, check_privacy, privacy_note
from fedmedlora.study.run import run_study
from fedmedlora.study.tables import run_tables, study_tables


def checked(folder: Path, **changes):
    study = study_of(folder, **changes)
    check_privacy(study_arms(study), load_data(study))


# Refusals ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("privacy", "told"),
    [
        ({"epsilon": 0}, r"privacy\.epsilon"),
        ({"epsilon": -1}, r"privacy\.epsilon"),
        ({"delta": 0}, r"privacy\.delta"),
        ({"delta": 1}, r"privacy\.delta"),
        ({"delta": None}, "delta: must be given with epsilon"),
        ({"ledger": None}, "ledger: must be given with epsilon"),
        ({"max_grad_norm": 0}, r"privacy\.max_grad_norm"),
        ({"noise_multiplier": 0}, r"privacy\.noise_multiplier"),
        ({"batch": 0}, r"privacy\.batch"),
        ({"unit": "token"}, r"privacy\.unit"),
        ({"clip": "batch"}, r"privacy\.clip: there is no such setting"),
    ],
)
def test_a_setting_that_promises_nothing_is_refused_when_the_study_is_read(tmp_path, privacy, told):
    content = yaml.safe_load(TEXT)
    content["privacy"] = {**content["privacy"], **privacy}
    with pytest.raises(ConfigError, match=told):
        check_study(content, source="study.yaml")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"privacy__delta": 0.13}, r"privacy\.delta: 0\.13 is more than 1 / 8, and site icu"),
        ({"privacy__batch": 9}, r"privacy\.batch: 9 units .* site icu has 8"),
        (
            {"privacy__unit": "example", "privacy__batch": 400},
            r"privacy\.batch: 400 units .* site icu has \d\d \(unit: example\)",
        ),
        ({"methods": ["few-shot"]}, "few-shot cannot be private: its prompts are training notes"),
        ({"methods": ["dictionary"]}, "dictionary/icu cannot be private"),
        ({"methods": ["ffa-lora", "bert"]}, "bert cannot be private: only LoRA"),
        ({"methods": ["fed-medlora", "local-adaptation"]}, "adapted/icu/fed-medlora cannot be"),
        ({"methods": ["fed-medlora+"]}, r"sends losses .* federation\.validation: server"),
        ({"adapter__dropout": 0.1}, r"adapter\.dropout: ffa-lora cannot be private with dropout"),
        ({"methods": ["centralised"]}, "belong to no site's ledger"),
        ({"partition": {"by": "even", "sites": 2}}, "sites of a partition have notes of others"),
        ({"scaling": {"sites": [2]}}, "sites of a partition have notes of others"),
    ],
)
def test_what_cannot_be_private_is_refused_before_anything_is_made(tmp_path, changes, told):
    with pytest.raises(ConfigError, match=told):
        run_study(study_of(tmp_path, **changes), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_private_may_stand_beside_what_is(tmp_path):
    other = {"method": "bert", "set": {"privacy.epsilon": None}}
    checked(tmp_path, methods=["zero-shot", "ffa-lora", "fedsvd", "rolora", other])
    checked(tmp_path, methods=["centralised", "single-site"], privacy__ledger="per-row")


def test_patients_need_groups_and_are_counted_by_them(tmp_path):
    # Two notes a patient: 4 and 5 patients.
    checked(tmp_path, privacy__unit="patient", privacy__delta=0.2, privacy__batch=4)
    with pytest.raises(ConfigError, match=r"privacy\.batch: 5 units .* site icu has 4"):
        checked(tmp_path, privacy__unit="patient", privacy__delta=0.2, privacy__batch=5)
    note = {"id": "n1", "text": "chest pain", "entities": [
        {"id": "e1", "type": "problem", "start": 0, "end": 10}], "relations": []}  # fmt: skip
    for split in ("train", "validation", "test"):
        line = json.dumps({**note, "id": split})
        (tmp_path / f"{split}.jsonl").write_text(line + "\n", encoding="utf-8")
    files = {split: f"{split}.jsonl" for split in ("train", "validation", "test")}
    with pytest.raises(ConfigError, match="1 of the 1 training notes of icu have no group"):
        checked(
            tmp_path, sites={"icu": files}, privacy__unit="patient", privacy__delta=0.2,
            privacy__batch=1,
        )  # fmt: skip
    told = "notes of icu, 1 of the 1 training notes of ward have no group"
    with pytest.raises(ConfigError, match=told):  # all of them at once
        checked(tmp_path, sites={"icu": files, "ward": files}, privacy__unit="patient")


# Runs --------------------------------------------------------------------------------------------


def test_the_number_is_told_with_unit_delta_sampling_and_adversary(finished):
    done = json.loads((finished / "run/answers/ffa-lora/done.json").read_text())
    told = done["privacy"]
    assert 3.9 < told["epsilon"] <= 4
    assert (told["delta"], told["unit"], told["sampling"]) == (0.01, "note", "Poisson")
    assert "coordinator" in told["adversary"]
    assert set(told["sites"]) == {"icu", "outpatient"}
    # Two rounds of two steps; half of the notes, and two fifths.
    assert [site["steps"] for site in told["sites"].values()] == [4, 4]
    assert [site["rate"] for site in told["sites"].values()] == [0.5, 0.4]
    text = "\n".join(render_text(table) for table in study_tables(finished / "run"))
    assert "Poisson" in text
    assert "coordinator" in text
    assert "privacy" not in json.loads((finished / "run/answers/zero-shot/done.json").read_text())


def test_neighbours_are_told_alike_everywhere(finished):
    # A unit more would change the number of units, which every reply tells: it is not hidden.
    assert NEIGHBOURS == "one unit emptied; how many units a site has is public"
    told = privacy_of(json.loads((finished / "run/answers/ffa-lora/done.json").read_text()))
    page = (Path(__file__).parents[2] / "docs/privacy.md").read_text(encoding="utf-8")
    tables = "\n".join(render_text(table) for table in study_tables(finished / "run"))
    for text in (told.sentence(), page, " ".join(tables.split())):
        assert NEIGHBOURS in text
        assert "added or taken away" not in text


def test_no_loss_of_a_private_site_is_recorded(finished):
    for line in (finished / "run/rounds.jsonl").read_text().splitlines():
        for site in json.loads(line)["sites"].values():
            assert (site["loss_first"], site["loss_last"]) == (None, None)
            assert site["examples"] == site["tokens"] in (8, 10)


def test_what_a_release_reads_of_a_run_has_all_that_its_number_needs(finished):
    done = json.loads((finished / "run/answers/ffa-lora/done.json").read_text())
    told = privacy_of(done)
    assert set(told.sites) == {"icu", "outpatient"}
    assert (told.delta, told.unit, told.sampling) == (0.01, "note", "Poisson")
    assert (told.neighbours, told.accountant) == (NEIGHBOURS, "rdp")
    assert "coordinator" in told.adversary
    # Each site's number is that of the mechanism that stands beside it.
    for name, site in done["privacy"]["sites"].items():
        mechanism = Mechanism(site["noise"], site["rate"], int(site["steps"]))
        again = epsilon_of([mechanism], delta=told.delta, accountant="rdp")
        assert told.sites[name].epsilon == pytest.approx(again)
        assert told.most >= again


def test_the_table_has_one_sites_numbers_the_one_that_spent_most():
    sites = {
        "icu": {"epsilon": 2.0, "noise": 1.25, "rate": 0.5, "steps": 4},
        "outpatient": {"epsilon": 1.5, "noise": 1.5, "rate": 0.75, "steps": 6},
    }
    told = {
        "epsilon": 2.0, "delta": 0.01, "unit": "note", "neighbours": "", "accountant": "rdp",
        "sampling": "Poisson", "adversary": "sees all", "covers": "per-row", "sites": sites,
    }  # fmt: skip
    tables = run_tables([], {"ffa-lora": {"privacy": told, "rounds": []}})
    [table] = [one for one in tables if one.title.startswith("Privacy")]
    assert table.rows[0][2:7] == ("2.00", "0.01", "1.25", "0.5", "4")


def test_rows_that_count_by_themselves_have_ledgers_in_the_run_folder(tmp_path):
    pytest.importorskip("opacus")
    tight = {"method": "fedsvd", "label": "tight", "set": {"privacy.epsilon": 1}}
    study = study_of(
        tmp_path, methods=["ffa-lora", tight], privacy__ledger="per-row", federation__rounds=1
    )
    runner = MethodRunner(study, load_data(study), tmp_path / "run", lambda kind, facts: None)
    for arm, most in zip(study_arms(study), (4, 1), strict=True):
        runner.train(arm)
        told = privacy_note(arm, tmp_path / "run")
        assert 0.97 * most < told["epsilon"] <= most
        assert told["covers"] == "per-row"
        ledgers = tmp_path / "run/federation" / arm.label / "ledgers"
        assert {file.name for file in ledgers.glob("*.jsonl")} == {"icu.jsonl", "outpatient.jsonl"}


def test_what_a_site_sends_is_made_of_the_noise_that_its_ledger_has(tmp_path):
    pytest.importorskip("opacus")
    once = {"training__steps": 1, "training__warmup": 0.0}
    study = study_of(tmp_path, privacy__noise_multiplier=50, **once)
    [arm] = study_arms(study)
    runner = MethodRunner(study, load_data(study), tmp_path / "run", lambda kind, facts: None)
    worker, bench = runner.worker(arm, "icu"), runner.lora.workbench(study)
    names = {parameter: name for name, parameter in bench.model.named_parameters()}
    steps = {}

    def keep(optimiser, *_):
        for parameter in optimiser.param_groups[0]["params"]:
            steps[names[parameter].replace(".default", "")] = parameter.grad.clone()

    watched = register_optimizer_step_pre_hook(keep)
    try:
        update = worker.train(bench.initial, Order(1, trains="B", returns="B"))
    finally:
        watched.remove()
    with open_ledger(tmp_path / "ledgers/icu.jsonl", site="icu", unit="note") as ledger:
        [spent] = ledger.mechanisms
    assert (spent.noise, spent.steps) == (50, 1)
    # Eight notes at most, each clipped to 1, are lost in thousands of numbers of this size.
    made = torch.cat([step.flatten() for step in steps.values()])
    assert len(made) > 5000
    assert float(made.std()) == pytest.approx(50 * 1.0 / 4, rel=0.05)
    # AdamW's first step goes against each sign; B began at zero.
    sent = update.adapter.tensors
    assert sent.keys() == steps.keys()
    for name, step in steps.items():
        assert (np.sign(sent[name]) == -np.sign(step.numpy())).all()


def test_a_private_site_scores_nobody_whatever_a_coordinator_asks(tmp_path):
    study = study_of(tmp_path)
    [arm] = study_arms(study)
    runner = MethodRunner(study, load_data(study), tmp_path / "run", lambda kind, facts: None)
    with pytest.raises(PrivacyError, match="its losses have no noise"):
        runner.worker(arm, "icu").losses([runner.lora.workbench(study).initial])


def test_a_private_site_declares_its_units_and_neither_rows_nor_tokens(tmp_path):
    study = study_of(tmp_path)
    [arm] = study_arms(study)
    runner = MethodRunner(study, load_data(study), tmp_path / "run", lambda kind, facts: None)
    # What every reply of its counts: screening refuses more, and more would tell of the notes.
    assert runner.worker(arm, "icu").declared() == Declared(examples=8, tokens=8)


def test_a_budget_spent_by_somebody_else_meanwhile_fails_the_site_with_a_word(tmp_path):
    pytest.importorskip("opacus")
    study = study_of(tmp_path)
    [arm] = study_arms(study)
    runner = MethodRunner(study, load_data(study), tmp_path / "run", lambda kind, facts: None)

    def spend(record, adapter):
        worker = runner.worker(arm, "icu")
        start = runner.lora.workbench(study).initial
        worker.train(start, Order(record.round + 5, trains="B", returns="B"))

    with pytest.raises(FederationError, match=r"icu failed \(.*privacy"):
        runner.train(arm, on_round=spend)
