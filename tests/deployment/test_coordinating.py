"""A coordinator's run over its hospitals' own settings, in one process: what it leaves behind."""

import json
from functools import partial

import pytest
from deployment_toys import found, study_of

from fedmedlora.cli import run_command
from fedmedlora.federation.client import Desk
from fedmedlora.federation.deployment.journal import read_journal
from fedmedlora.federation.grid import InProcessGrid, SequentialSwitch
from fedmedlora.study.coordinating import run_coordinator
from fedmedlora.study.hosting import site_desk, site_worker

NOTE = "The patient has pneumonia and was given amoxicillin 500 mg."


def worker(files, name):
    return site_worker(files[name], name)


def desk_of(hospitals, audit):
    """One desk that answers for all hospitals, each with its own settings, key and log."""
    files = {one.name: one.settings for one in hospitals}
    desks = [site_desk(file) for file in files.values()]
    keys = {name: key for one in desks for name, key in one.keys.items()}
    return Desk(
        tuple(files),
        partial(worker, files),
        keys=keys,
        audit=audit,
        run=desks[0].run,
        coordinator=desks[0].coordinator,
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The run folder of a federation that is done."""
    made, hospitals = found(
        tmp_path_factory.mktemp("federation"),
        study_of(
            federation_rounds=1, federation_keep_replies=True, decoding_open_bias="validation"
        ),
    )
    switch = SequentialSwitch(desk_of(hospitals, made.folder.parent / "logs"))
    run_coordinator(InProcessGrid(switch, nodes=len(hospitals)), made.folder)
    assert read_journal(made.folder / "run")["state"] == "done"
    return made.folder / "run"


def test_the_trained_adapter_marks_up_notes(run, tmp_path, capsys):
    (tmp_path / "note.txt").write_text(NOTE)
    adapter = run / "adapters" / "fed-medlora"
    arguments = ["extract", "--adapter", str(adapter), str(tmp_path / "note.txt")]
    assert run_command(arguments) == 0
    [line] = capsys.readouterr().out.splitlines()
    assert json.loads(line)["text"] == NOTE


def test_what_it_is_asked_is_the_studys_and_no_notes_chose_it(run):
    task = json.loads((run / "adapters" / "fed-medlora" / "task.json").read_text())
    study = study_of()
    assert task["covers"] == list(study.make_scheme().types)
    assert task["decoding"]["open_bias"] == {"entities": 0.0}
    assert (task["backbone"], task["task"]["prompt"]) == ("embedded", "compact")


def test_whose_work_it_is_lies_beside_it_and_can_be_verified(run, capsys):
    [made] = json.loads((run / "adapters" / "fed-medlora" / "contributions.json").read_text())
    assert [one["signed"]["site"] for one in made["contributions"]] == list(study_of().sites)
    assert run_command(["verify", str(run)]) == 0


def test_each_sites_log_shows_what_the_coordinator_signed_and_agrees_with_its_own(run):
    public = run.parents[1] / "sites" / "icu" / "coordinator.pub"
    log = run / "federation" / "fed-medlora" / "audit.jsonl"
    for site in study_of().sites:
        own = run.parents[1] / "logs" / f"{site}.audit.jsonl"
        checks = ["--check", "--coordinator", str(public), "--against", str(log)]
        assert run_command(["site", "audit", str(own), *checks]) == 0
