"""A study and the ledgers of its sites: one budget for the notes, whatever a study calls them."""

import json
import shutil

import pytest
import yaml
from private_toys import TEXT, study_of

from fedmedlora.errors import ConfigError, PrivacyError, RunError
from fedmedlora.privacy.ledger import Budget, Plan, open_ledger
from fedmedlora.release.privacy import privacy_of
from fedmedlora.study.arms import study_arms
from fedmedlora.study.ledgers import check_ledgers
from fedmedlora.study.privacy import privacy_note, terms_of
from fedmedlora.study.run import run_study
from fedmedlora.study.tables import run_tables


def test_a_new_run_finds_the_budget_spent_before_it_trains(finished):
    with pytest.raises(PrivacyError, match="the budget is spent") as caught:
        run_study(study_of(finished), finished / "again")
    # Whose, where, and what can be done about it.
    assert str(caught.value).startswith(f"site icu, {finished / 'ledgers/icu.jsonl'}: ")
    for told in ("a larger privacy.epsilon", "privacy.ledger: per-row"):
        assert told in str(caught.value).replace("A larger", "a larger")
    assert not (finished / "again/federation").exists()


def test_what_another_ledger_refuses_is_said_before_the_rows_before_it_are_trained(finished):
    plain = {"method": "fed-medlora", "set": {"privacy.epsilon": None}}
    with pytest.raises(PrivacyError, match="the budget is spent: epsilon 3"):
        run_study(study_of(finished, methods=[plain, "ffa-lora"]), finished / "later")
    assert not (finished / "later").exists()
    with pytest.raises(PrivacyError, match=r"counts a note as one, and privacy\.unit is example"):
        run_study(study_of(finished, privacy__unit="example"), finished / "later")
    # A larger budget has something left; one below what is spent has not.
    check_ledgers([(study_of(finished, privacy__epsilon=5), finished / "later")])
    with pytest.raises(PrivacyError, match="the budget is spent"):
        check_ledgers([(study_of(finished, privacy__epsilon=2), finished / "later")])


def test_a_run_that_is_done_goes_on_with_its_spent_ledger(finished):
    study = study_of(finished, methods=["ffa-lora", "zero-shot"])
    ledger = (finished / "ledgers/icu.jsonl").read_bytes()
    run_study(study, finished / "run")
    assert (finished / "ledgers/icu.jsonl").read_bytes() == ledger


def test_an_edited_ledger_ends_a_study_before_anything_is_trained(finished, tmp_path):
    shutil.copytree(finished / "ledgers", tmp_path / "ledgers")
    file = tmp_path / "ledgers" / "outpatient.jsonl"
    file.write_text(file.read_text().replace('"steps":2', '"steps":1'))
    study = study_of(tmp_path, methods=["zero-shot", "ffa-lora"], privacy__epsilon=9)
    with pytest.raises(RunError, match=r"outpatient\.jsonl: .* the ledger was edited"):
        run_study(study, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"methods": ["ffa-lora", "fedsvd"]}, "ffa-lora and fedsvd both would train on the notes"),
        ({"seeds": [1, 2]}, "ffa-lora, of two runs, would train on the notes of icu"),
    ],
)
def test_two_rows_that_would_each_use_the_whole_budget_are_refused(tmp_path, changes, told):
    with pytest.raises(ConfigError, match=told):
        run_study(study_of(tmp_path, **changes), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def copied(finished, tmp_path):
    """The finished run and its ledgers, to be changed; its private row."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    return study_arms(study_of(tmp_path, methods=["ffa-lora", "zero-shot"]))[0]


def test_what_a_ledger_knows_and_no_accepted_reply_says_is_told_as_well(finished, tmp_path):
    # A reply that came late, or was refused: its adapter was seen.
    arm = copied(finished, tmp_path)
    before = privacy_note(arm, tmp_path / "run")
    done = json.loads((tmp_path / "run/answers/ffa-lora/done.json").read_text())
    assert before == done["privacy"]
    plan = Plan("late", noise=2.0, rate=0.4, steps=2, rounds=1, units=10)
    with open_ledger(tmp_path / "ledgers/outpatient.jsonl", site="outpatient", unit="note") as one:
        one.reserve(plan, 1, Budget(100.0, 0.01, "rdp"))
    after = privacy_note(arm, tmp_path / "run")
    assert after["sites"]["icu"] == before["sites"]["icu"]
    assert after["epsilon"] == after["sites"]["outpatient"]["epsilon"] > before["epsilon"]
    assert (after["sites"]["outpatient"]["steps"], after["sites"]["outpatient"]["runs"]) == (6, 2)


def test_a_site_whose_ledger_does_not_know_of_the_run_promises_nothing(finished, tmp_path):
    arm = copied(finished, tmp_path)
    (tmp_path / "ledgers/outpatient.jsonl").unlink()
    note = privacy_note(arm, tmp_path / "run")
    assert (note["epsilon"], note["sites"]["outpatient"]) == (None, {})
    with pytest.raises(RunError, match="privacy record"):
        privacy_of({"privacy": note})
    tables = run_tables([], {"ffa-lora": {"privacy": note, "rounds": []}})
    [table] = [one for one in tables if one.title.startswith("Privacy")]
    assert table.rows[0][2] == "not told"


def test_rows_without_noise_on_the_same_notes_are_in_the_ledger_before_they_are_trained(
    finished, tmp_path, monkeypatch
):
    arm = copied(finished, tmp_path)
    assert privacy_note(arm, tmp_path / "run")["covers"] == "all that the sites' ledgers hold"
    off = {"privacy.epsilon": None}
    plain = [{"method": "fed-medlora", "set": off}, {"method": "single-site", "set": off}]
    study = study_of(tmp_path, methods=[*plain, "zero-shot"])
    monkeypatch.setattr("fedmedlora.study.run._run_all", lambda *_: {0: None})
    for _ in range(2):  # an interrupted run begins again
        run_study(study, tmp_path / "plain")
    with open_ledger(tmp_path / "ledgers/icu.jsonl", site="icu", unit="note") as ledger:
        assert ledger.unprotected == ("private/fed-medlora", "private/single-site/icu")
    told = privacy_note(arm, tmp_path / "run")
    assert "without noise, and nothing bounds what these tell" in told["covers"]
    assert told["covers"] in privacy_of({"privacy": told}).sentence()
    assert told["epsilon"] == pytest.approx(privacy_note(arm, tmp_path / "run")["epsilon"])


@pytest.mark.parametrize(
    ("where", "content"),
    [
        ("methods", [{"method": "fedsvd", "set": {"privacy.ledger": "other"}}]),
        ("methods", [{"method": "fedsvd", "set": {"privacy": {"epsilon": 3, "ledger": "other"}}}]),
        ("variants", {"again": {"set": {"privacy.ledger": "other"}}}),
    ],
)
def test_no_row_and_no_variant_has_a_ledger_of_its_own(tmp_path, where, content):
    with pytest.raises(ConfigError, match=r"privacy\.ledger is one for the whole study"):
        study_of(tmp_path, **{where: content})


def test_another_root_does_not_begin_another_ledger(tmp_path):
    variants = {"again": {"set": {"root": str(tmp_path / "other"), "privacy.epsilon": 9}}}
    with pytest.raises(ConfigError, match="ffa-lora have ledgers in two places"):
        run_study(study_of(tmp_path, variants=variants), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_site_that_was_renamed_does_not_begin_another_budget(finished):
    renamed = {"icu": "wards", "outpatient": "outpatient"}
    sites = {renamed[name]: site for name, site in yaml.safe_load(TEXT)["sites"].items()}
    study = study_of(finished, sites=sites, privacy__epsilon=9)
    with pytest.raises(ConfigError, match="has what icu spent, and wards would begin a budget"):
        run_study(study, finished / "later")
    assert not (finished / "later").exists()


def test_examples_that_are_made_otherwise_are_not_added_up(tmp_path):
    study = study_of(tmp_path, privacy__unit="example")
    terms = terms_of(study, "icu")
    with open_ledger(tmp_path / "icu.jsonl", site="icu", unit="example", of=terms.of) as ledger:
        ledger.plan(Plan("run", 2.0, 0.5, 2, 1, units=8), Budget(100.0, 0.01, "rdp"))
    for change in (
        {"task__window_words": 30},
        {"training__max_tokens": 99},
        {"sites": {"icu": {**yaml.safe_load(TEXT)["sites"]["icu"], "strip": ["drug"]}}},
    ):
        other = terms_of(study_of(tmp_path, privacy__unit="example", **change), "icu")
        with (
            pytest.raises(PrivacyError, match="an example is made in another way"),
            open_ledger(tmp_path / "icu.jsonl", site="icu", unit="example", of=other.of),
        ):
            pass
    assert terms_of(study_of(tmp_path, task__window_words=30), "icu").of == ""
    assert terms_of(study_of(tmp_path, privacy__unit="example", seed=9), "icu") == terms


@pytest.mark.parametrize("place", ["file", "file/ledgers", "round", "round/ledgers"])
def test_a_place_for_no_ledgers_is_refused_before_a_run_is_begun(tmp_path, place):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "round").symlink_to("round")
    with pytest.raises(ConfigError, match=r"privacy\.ledger: .*(file|round) is no folder"):
        run_study(study_of(tmp_path, privacy__ledger=place), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert (tmp_path / "file").read_text() == "mine"
