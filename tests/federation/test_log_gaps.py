"""A coordinator that goes on without the log of its complete rounds says so in the new one."""

import shutil

import pytest
from federation_toy import plan, sites, start

from fedmedlora.cli import run_command
from fedmedlora.errors import RunError
from fedmedlora.federation.audit import AuditLog, head_file
from fedmedlora.federation.audit_check import check_log, rounds_left_out
from fedmedlora.federation.run import run_federation
from fedmedlora.federation.signing import make_key


def run(folder, *, rounds, told=None):
    def event(kind, /, **facts):
        if told is not None and kind == "log-gap":
            told.append(facts["rounds"])

    return run_federation(
        plan(rounds=rounds), start(), workers=sites(),
        folder=folder, audit=True, resume=True, on_event=event,
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    """A federation after two rounds."""
    run(tmp_path / "run", rounds=2)
    return tmp_path / "run"


def test_a_log_that_was_there_all_the_time_has_no_gap(folder):
    told = []
    run(folder, rounds=3, told=told)
    assert told == []
    assert check_log(folder / "audit.jsonl").faults == ()


def test_a_log_that_was_moved_away_is_missed_and_told_once(folder, capsys):
    log, told = folder / "audit.jsonl", []
    log.rename(folder / "elsewhere")
    head_file(log).unlink()
    run(folder, rounds=3, told=told)
    run(folder, rounds=4, told=told)
    assert told == [(1, 2)]
    kinds = [entry["kind"] for entry in check_log(log).entries]
    assert kinds[:2] == ["begun", "gap"]
    assert kinds.count("gap") == 1
    [fault] = check_log(log).faults
    assert "the rounds [1, 2] were complete by then and are not in it" in fault
    assert run_command(["site", "audit", str(log), "--check"]) == 1
    assert "the rounds [1, 2] were complete" in capsys.readouterr().out


def test_sites_go_on_with_what_they_keep_when_the_log_was_moved_away(tmp_path):
    """It is the same run: a beginning is marked by the run's own file, not by its log."""
    make_key(tmp_path / "hub.key")

    def adapter(folder, *, rounds):
        return run_federation(
            plan(rounds=rounds, wire="int8"), start(), workers=sites(), folder=folder,
            key=tmp_path / "hub.key", audit=True, resume=True,
        ).adapter  # fmt: skip

    whole = adapter(tmp_path / "whole", rounds=4)
    adapter(tmp_path / "moved", rounds=2)
    log = tmp_path / "moved" / "audit.jsonl"
    log.unlink()
    head_file(log).unlink()
    assert adapter(tmp_path / "moved", rounds=4).sha256 == whole.sha256
    assert not list(tmp_path.glob("moved/own/*/before"))


def test_a_log_put_back_from_an_older_copy_is_missed_likewise(folder, tmp_path):
    log = folder / "audit.jsonl"
    for file in (log, head_file(log)):
        shutil.copy(file, tmp_path)
    run(folder, rounds=3)
    for file in (log, head_file(log)):
        shutil.copy(tmp_path / file.name, file)
    told = []
    run(folder, rounds=4, told=told)
    assert told == [(3,)]
    assert len(check_log(log).faults) == 1


def test_a_log_whose_head_was_left_behind_is_refused(folder):
    (folder / "audit.jsonl").unlink()
    with pytest.raises(RunError, match="does not end as its head file says"):
        run(folder, rounds=3)


def test_rounds_of_another_run_do_not_count(tmp_path):
    log = AuditLog(tmp_path / "log", owner="hub", role="coordinator")
    log.append("sent", run="other", round=1)
    log.append("gap", run="other", rounds=[2])
    log.append("gap", run="mine", rounds=[3])
    assert rounds_left_out(log.path, run="mine", complete=3) == (1, 2)
    assert rounds_left_out(tmp_path / "nothing", run="mine", complete=2) == (1, 2)
