"""What `federation start` does when its run ends otherwise than well; a stand-in for Flower."""

import json
import shutil
import sys
import threading
import time

import pytest
import yaml
from deployment_toys import found, study_of, wait_until

from fedmedlora.cli import run_command
from fedmedlora.errors import FederationError
from fedmedlora.federation.deployment import tending
from fedmedlora.federation.deployment.journal import Journal, at_work, is_at_work
from fedmedlora.federation.deployment.layout import CoordinatorFolder
from fedmedlora.federation.deployment.services import Service, Services
from fedmedlora.federation.records import RoundRecord
from fedmedlora.model.backbone import embedded_folder
from fedmedlora.study import federating
from fedmedlora.study.federating import start_federation, start_site

SITES = ("icu", "outpatient")


class Runs:
    """Stands for the SuperLink: every run does what it is told and ends."""

    def __init__(self, folder, *what):
        self.folder, self.what, self.started, self.stopped = folder, list(what), [], []

    def start(self, folder):
        what = self.what.pop(0)
        number = str(len(self.started) + 1)
        self.started.append(what)
        begun = threading.Event()
        threading.Thread(target=self._run, args=(what, begun)).start()
        begun.wait(5)
        return number

    def _run(self, what, begun):
        with at_work(self.folder.run):
            journal = Journal(self.folder.run, run_id="toy", rounds=2, sites=SITES)
            begun.set()
            time.sleep(0.2)
            if what == "a round, then killed":
                record = RoundRecord(1, "fed-medlora", {}, 1.0, checkpoint="round-0001")
                journal.tell("round-done", record=record)
            elif what != "killed":
                journal.end(what, reason="1 of 2 sites trained" if what == "failed" else "")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(tending, "_LOOK_S", 0.05)
    monkeypatch.setattr(tending, "register_sites", lambda folder, nodes: None)
    monkeypatch.setattr(tending, "wait_for_port", lambda port, **more: None)
    return CoordinatorFolder(tmp_path)


def tended(folder, monkeypatch, *what):
    """Tend a federation whose runs do so; what was noted."""
    runs, notes = Runs(folder, *what), []
    monkeypatch.setattr(tending, "start_run", runs.start)
    monkeypatch.setattr(tending, "stop_run", lambda folder, run: runs.stopped.append(run))
    services = Services([], logs=folder.logs)
    try:
        tending.tend_federation(folder, services, nodes={}, ports=[("port", 1)], note=notes.append)
    finally:
        runs.notes = notes
        tended.last = runs
    return runs


def test_a_run_that_is_done_ends_the_command(folder, monkeypatch):
    runs = tended(folder, monkeypatch, "done")
    assert runs.started == ["done"]
    assert runs.notes == ["run 1 started"]


def test_a_run_whose_process_is_killed_is_started_again(folder, monkeypatch):
    runs = tended(folder, monkeypatch, "killed", "done")
    assert runs.started == ["killed", "done"]
    assert runs.stopped == ["1"]
    assert runs.notes[-1] == "run 2 goes on"


def test_a_run_that_says_it_failed_ends_the_command_with_its_reason(folder, monkeypatch):
    with pytest.raises(FederationError, match="1 of 2 sites trained"):
        tended(folder, monkeypatch, "failed", "done")
    assert tended.last.started == ["failed"]


def test_a_run_that_never_completes_a_round_is_given_up(folder, monkeypatch):
    with pytest.raises(FederationError, match="5 times without completing a round"):
        tended(folder, monkeypatch, *["killed"] * 9)
    assert len(tended.last.started) == 5


def test_a_completed_round_gives_it_new_patience(folder, monkeypatch):
    what = [*["killed"] * 4, "a round, then killed", *["killed"] * 3, "done"]
    assert tended(folder, monkeypatch, *what).started == what


def test_a_failure_of_before_does_not_end_a_new_start(folder, monkeypatch):
    Journal(folder.run, run_id="toy", rounds=2, sites=SITES).end("failed", reason="before")
    assert tended(folder, monkeypatch, "done").started == ["done"]


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    return found(tmp_path_factory.mktemp("federation"), study_of())


def test_a_second_start_in_the_same_folder_is_refused(federation, capsys):
    made, _ = federation
    with at_work(made.folder / "state"):
        assert run_command(["federation", "start", str(made.folder)]) == 1
    assert "another process works there" in capsys.readouterr().err


def test_a_missing_proxy_is_named(tmp_path, monkeypatch, capsys):
    made, _ = found(tmp_path, study_of(), proxy="nginx")
    monkeypatch.setenv("PATH", "/nowhere")
    assert run_command(["federation", "start", str(made.folder)]) == 1
    assert "nginx: there is no such program here" in capsys.readouterr().err


def test_a_site_without_its_key_does_not_start(federation, capsys):
    _, [icu, *_] = federation
    (icu.settings.parent / "keys" / "node.key").unlink()
    assert run_command(["site", "start", str(icu.settings)]) == 2
    assert "`site unpack` of the kit makes it" in capsys.readouterr().err


def test_a_second_start_changes_no_file_of_the_first(tmp_path, capsys):
    made, _ = found(tmp_path, study_of(), proxy="nginx")
    settings = yaml.safe_load((made.folder / "federation.yaml").read_text())
    settings["port"] = settings["port"] % 60000 + 1
    (made.folder / "federation.yaml").write_text(yaml.safe_dump(settings))
    files = [made.folder / name for name in ("nginx.conf", "compose.yaml")]
    before = [file.read_bytes() for file in files]
    with at_work(made.folder / "state"):
        assert run_command(["federation", "start", str(made.folder)]) == 1
    assert "another process works there" in capsys.readouterr().err
    assert [file.read_bytes() for file in files] == before
    assert not (made.folder / "app").exists()


@pytest.fixture(scope="module")
def moved(tmp_path_factory):
    """A federation whose backbone is a folder that is not there any more; and the folder."""
    folder = tmp_path_factory.mktemp("moved")
    shutil.copytree(embedded_folder(), folder / "backbone")
    made = found(folder, study_of(backbone_name=str(folder / "backbone")))
    (folder / "backbone").rename(folder / "elsewhere")
    return made, folder


def test_a_coordinator_without_the_backbone_does_not_start_and_may_be_started_later(moved, capsys):
    (made, _), folder = moved
    # Not 2, after which a service is not started again: its disk may come later.
    assert run_command(["federation", "start", str(made.folder)]) == 1
    told = capsys.readouterr().err
    assert told.startswith(f"error: backbone.name: backbone '{folder / 'backbone'}': there is no")
    assert told.count("\n") == 1
    assert not (made.folder / "logs").exists()
    assert not is_at_work(made.folder / "state")


def test_a_site_without_the_backbone_does_not_start_and_may_name_another_folder(
    moved, monkeypatch, capsys
):
    (_, [icu, *_]), folder = moved

    class Refused(Exception):
        """Everything before the processes was right."""

    def refuse(*arguments, **more):
        raise Refused

    monkeypatch.setattr(federating, "Services", refuse)
    assert run_command(["site", "start", str(icu.settings)]) == 1
    assert "error: backbone.name: backbone" in capsys.readouterr().err
    content = yaml.safe_load(icu.settings.read_text())
    content["backbone"] = str(folder / "elsewhere")
    icu.settings.write_text(yaml.safe_dump(content))
    with pytest.raises(Refused):
        start_site(icu.settings, note=print)


def test_a_site_that_is_not_let_in_says_where_to_look(tmp_path, monkeypatch):
    _, [icu, *_] = found(tmp_path, study_of())

    class Ends:
        """Stands for processes of which the SuperNode ends at once."""

        def __init__(self, services, *, logs, together=False):
            self.names, self.log = [one.name for one in services], Services([], logs=logs).log

        def start(self):
            pass

        stop = start

        def tend(self):
            return [name for name in self.names if name == "supernode"]

    notes = []

    def note(line):
        notes.append(line)
        if len(notes) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(federating, "Services", Ends)
    monkeypatch.setattr(federating, "_TEND_S", 0)
    with pytest.raises(KeyboardInterrupt):
        start_site(icu.settings, note=note)
    assert notes[0].startswith("site icu tries to join 'toy' at localhost:")
    assert f"see {icu.settings.parent / 'work' / 'logs' / 'supernode.log'}; if" in notes[1]
    assert "has it admitted this site's key" in notes[1]


def test_who_runs_a_site_hears_of_what_failed_in_training(tmp_path, monkeypatch):
    _, [icu, *_] = found(tmp_path, study_of())
    incidents = icu.settings.parent / "work" / "incidents"
    incidents.mkdir(parents=True)
    (incidents / "icu.log").write_text("of a run before\n")

    class Trains:
        """Stands for processes of which one fails at the third look."""

        looks = 0

        def __init__(self, *arguments, **more):
            pass

        def start(self):
            pass

        stop = start

        def tend(self):
            Trains.looks += 1
            if Trains.looks == 5:
                (incidents / "icu.log").write_text("of a run before\nand of this one\n")
            return []

    notes = []

    def note(line):
        notes.append(line)
        if len(notes) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(federating, "Services", Trains)
    monkeypatch.setattr(federating, "_TEND_S", 0)
    with pytest.raises(KeyboardInterrupt):
        start_site(icu.settings, note=note)
    assert notes[1] == f"what the coordinator asked for failed here; see {incidents}"
    assert Trains.looks >= 5


#: What the caller's shell may say.
TALKATIVE = {
    "HF_HUB_OFFLINE": "0",
    "TRANSFORMERS_OFFLINE": "0",
    "HF_HUB_DISABLE_TELEMETRY": "0",
    "FLWR_TELEMETRY_ENABLED": "1",
    "FLWR_DISABLE_UPDATE_CHECK": "0",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "0",
}


def services_of(command, monkeypatch):
    """The services that a command would start."""
    caught = []

    class Recorder:
        def __init__(self, services, **more):
            caught.extend(services)

        def start(self):
            pass

        stop = start

    def interrupt(*arguments, **more):
        raise KeyboardInterrupt

    monkeypatch.setattr(federating, "Services", Recorder)
    monkeypatch.setattr(federating, "tend_federation", interrupt)
    with pytest.raises(KeyboardInterrupt):
        command(interrupt)
    return caught


def seen_by(service, folder):
    """The environment that a service finds itself in."""
    code = "import json, os; print(json.dumps(dict(os.environ)))"
    shown = Service(service.name, (sys.executable, "-c", code), service.environment)
    services = Services([shown], logs=folder)
    services.start()
    wait_until(lambda: services.pid(service.name) is None, seconds=30, what="end")
    return json.loads((folder / f"{service.name}.log").read_text())


def test_processes_call_nobody_whatever_the_callers_environment_says(
    federation, tmp_path, monkeypatch
):
    made, [*_, discharge] = federation
    for name, value in TALKATIVE.items():
        monkeypatch.setenv(name, value)
    site = services_of(lambda note: start_site(discharge.settings, note=note), monkeypatch)
    coordinator = services_of(lambda note: start_federation(made.folder, note=note), monkeypatch)
    assert {one.name for one in site} == {"worker", "supernode", "superexec"}
    assert {one.name for one in coordinator} == {"superlink", "superexec"}
    for place, services in (("site", site), ("coordinator", coordinator)):
        for service in services:
            seen = seen_by(service, tmp_path / place)
            flipped = {name: "0" if value == "1" else "1" for name, value in TALKATIVE.items()}
            assert {name: seen[name] for name in TALKATIVE} == flipped
