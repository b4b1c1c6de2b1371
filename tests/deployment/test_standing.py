"""What `federation status` says, from the records of a run."""

import json

import pytest
from deployment_toys import study_of

from fedmedlora.cli import run_command
from fedmedlora.federation.deployment.journal import Journal, at_work, is_at_work
from fedmedlora.federation.records import RoundRecord, SiteRecord
from fedmedlora.study.shared import shared_text
from fedmedlora.study.standing import standing

SITES = ("icu", "outpatient", "discharge")


@pytest.fixture
def coordinator(tmp_path):
    """A coordinator's folder before its first start."""
    text = shared_text(study_of(federation_rounds=4))
    (tmp_path / "study.yaml").write_text(text)
    (tmp_path / "federation.yaml").touch()
    return tmp_path


def complete(folder, number, *, seconds=100.0, **others):
    """The record of a complete round."""
    sites = {
        name: SiteRecord("ok", None, 10, 1000, 1 / 3, 2.0, 1.5, bytes_up=250_000, seconds=80.0)
        for name in SITES
    }
    record = RoundRecord(
        number, "fed-medlora", {**sites, **others}, seconds, checkpoint="x", adapter_sha256="a" * 64
    )
    place = folder / "run" / "federation" / "fed-medlora" / f"round-{number:04d}"
    place.mkdir(parents=True)
    (place / "round.json").write_text(json.dumps(record.to_dict()))
    return record


def journal_of(folder):
    return Journal(folder / "run", run_id="toy", rounds=4, sites=SITES)


def test_before_the_first_start(coordinator):
    found = standing(coordinator)
    assert found.state == "not started"
    assert found.sentences == (
        "toy, fed-medlora: 0 of 4 rounds done",
        "no key is admitted yet of icu, outpatient, discharge",
        "not started",
    )
    assert [row[0] for row in found.tables[0].rows] == list(SITES)


def test_while_it_waits_it_says_for_whom(coordinator):
    journal = journal_of(coordinator)
    journal.tell("joined", site="discharge")
    with at_work(coordinator / "run"):
        begun = json.loads((coordinator / "run" / "journal.json").read_text())["since"]
        found = standing(coordinator, now=begun + 300)
    assert found.sentences[2] == "waiting for icu, outpatient, for 5 min"
    assert [row[2] for row in found.tables[0].rows] == ["not there", "not there", "there"]


def test_who_was_turned_away_and_why_is_told_until_it_is_heard(coordinator):
    journal = journal_of(coordinator)
    journal.tell("set-aside", rounds=("round-0002.broken",))
    journal.tell("turned-away", site="icu", reason="config (incident 1 in the site's own log)")
    journal.tell("turned-away", site="", reason="its app ended with Flower error 5")
    journal.tell("not-believed", site="outpatient")
    journal.tell("name-taken", site="discharge")
    with at_work(coordinator / "run"):
        assert standing(coordinator).sentences[3:] == (
            "icu was turned away: config (incident 1 in the site's own log)",
            "a node that named no site was turned away: its app ended with Flower error 5",
            "outpatient was turned away: what it sent does not bear the signature of the site that "
            "it names",
            "discharge was turned away: another node is that site already",
            "damaged, set aside and made again: round-0002.broken",
        )
        for site in ("", "outpatient", "discharge"):
            journal.tell("joined", site=site)
        journal.tell("late", site="icu", round=2, phase="train")
        assert standing(coordinator).sentences[3:-1] == (
            "icu was turned away: its answer came after the deadline of round 2",
        )
        journal.tell("reply", site="icu", seconds=1.0, bytes_up=1)
        assert len(standing(coordinator).sentences) == 4


def test_rounds_that_the_log_lacks_are_told(coordinator):
    journal = journal_of(coordinator)
    journal.tell("log-gap", rounds=(1, 2))
    journal.tell("joined", site="icu")
    with at_work(coordinator / "run"):
        [told] = standing(coordinator).sentences[3:]
    assert told.startswith("complete, and not in the audit log")
    assert told.endswith("rounds 1, 2")


def test_a_round_under_way_says_who_is_missing_and_how_long_still(coordinator):
    complete(coordinator, 1)
    journal = journal_of(coordinator)
    journal.tell("round", round=2, rounds=4, sites=3)
    journal.tell("reply", site="icu", seconds=41.0, bytes_up=1)
    with at_work(coordinator / "run"):
        begun = json.loads((coordinator / "run" / "journal.json").read_text())["round_since"]
        found = standing(coordinator, now=begun + 40)
    assert found.state == "training"
    assert found.sentences[2] == (
        "round 2, training for 40 s: 1 answered, not yet: outpatient, discharge"
    )
    # 60 s of this round, and two more of 100 s.
    assert found.sentences[3] == "about 4 min left, at 100 s a round"
    sites, rounds = found.tables
    assert sites.rows[0] == (
        "icu", "not admitted", "answered", "ok", "10", "0.333", "1.500", "–", "0.250", "80",
    )  # fmt: skip
    assert rounds.rows == (("1", "none", "3", "1.500", "100", "a" * 12),)


def test_a_round_without_a_site_names_it(coordinator):
    complete(coordinator, 1, discharge=SiteRecord("absent", "not connected"))
    found = standing(coordinator)
    assert found.tables[1].rows[0][:3] == ("1", "discharge", "2")
    assert found.tables[0].rows[2][3] == "absent: not connected"


def test_a_run_whose_process_is_gone_is_interrupted(coordinator, capsys):
    journal_of(coordinator).tell("round", round=1, rounds=4, sites=3)
    assert not is_at_work(coordinator / "run")
    assert standing(coordinator).state == "interrupted"
    assert run_command(["federation", "status", str(coordinator)]) == 1
    assert "`fedmedlora federation start` goes on" in capsys.readouterr().out


def test_how_a_run_ended_is_told(coordinator, capsys):
    journal = journal_of(coordinator)
    journal.end("failed", reason="round 1: 2 of 3 sites trained, 3 are needed")
    assert "2 of 3 sites trained" in standing(coordinator).sentences[2]
    assert run_command(["federation", "status", str(coordinator)]) == 1
    journal.end("done")
    assert standing(coordinator).state == "done"
    assert run_command(["federation", "status", str(coordinator)]) == 0


def test_a_record_that_cannot_be_read_is_named(coordinator, capsys):
    complete(coordinator, 1)
    file = coordinator / "run" / "federation" / "fed-medlora" / "round-0001" / "round.json"
    file.write_text("{")
    assert run_command(["federation", "status", str(coordinator)]) == 1
    assert "round.json cannot be read" in capsys.readouterr().err


def test_stop_where_nothing_runs_says_so(coordinator, capsys):
    assert run_command(["federation", "stop", str(coordinator)]) == 0
    assert "nothing runs there" in capsys.readouterr().out


def test_stop_of_a_misspelt_folder_does_not_pass_for_stopped(tmp_path, capsys):
    assert run_command(["federation", "stop", str(tmp_path / "misspelt")]) == 2
    assert "is no folder that `federation init` made" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command",
    [
        ["federation", "start"],
        ["federation", "stop"],
        ["federation", "admit"],
        ["federation", "init", "--host", "localhost", "--out"],
        ["site", "start"],
        ["site", "check"],
    ],
)
def test_links_that_go_round_are_an_error_of_the_user(tmp_path, capsys, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "round").symlink_to("round")
    study = tmp_path / "study.yaml"
    study.write_text(shared_text(study_of()))
    more = {"admit": ["a.membership.json"], "init": [str(study)]}.get(command[1], [])
    assert run_command([*command, "round", *more]) in (1, 2)
    told = capsys.readouterr()
    assert "unexpected" not in told.err
    assert "round" in told.out + told.err
