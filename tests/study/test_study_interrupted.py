"""A run that is ended, killed or short of disk: nothing is lost, nothing stays behind."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fedmedlora.config import load_study
from fedmedlora.corpus.files import write_text
from fedmedlora.errors import RunError
from fedmedlora.model.adapter_files import read_adapter
from fedmedlora.study import processes
from fedmedlora.study.arms import study_arms
from fedmedlora.study.run import run_study
from fedmedlora.study.run_folder import RunFolder
from fedmedlora.study.tables import study_tables

TEXT = """
name: toy
methods: [single-site]
sites:
  icu: {synthetic: {style: icu, train: 2, validation: 1, test: 1}}
  outpatient: {synthetic: {style: outpatient, train: 2, validation: 1, test: 1}}
task: {heads: numbered, prompt: compact, window_words: 30}
training: {steps: 1, batch: 1}
federation: {rounds: 2}
"""
ONE_SITE = ("sites={icu: {synthetic: {style: icu, train: 2, validation: 1, test: 1}}}",)
METHOD = "single-site/icu"


def study_of(folder: Path, *overrides: str):
    file = folder / "study.yaml"
    file.write_text(TEXT, encoding="utf-8")
    return load_study(file, overrides)


def test_a_full_disk_during_a_checkpoint_keeps_the_last_good_one(tmp_path, monkeypatch):
    study, out = study_of(tmp_path, *ONE_SITE), tmp_path / "run"
    federation = out / "federation" / METHOD
    synced = os.fsync

    def full(handle):
        if (federation / "round-0001").exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        synced(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="No space left on device"):
        run_study(study, out)
    monkeypatch.undo()
    before = read_adapter(federation / "round-0001" / "adapter").sha256
    names = {path.name for path in federation.iterdir()}
    assert names == {"federation.json", "declared.json", "round-0001"}
    run_study(study, out)
    assert read_adapter(federation / "round-0001" / "adapter").sha256 == before
    assert (out / "adapters" / METHOD / "task.json").is_file()
    assert study_tables(out)


def test_an_adapter_appears_with_its_task_or_not_at_all(tmp_path, monkeypatch):
    from fedmedlora.study import keeping

    def full(path, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    study, out = study_of(tmp_path, *ONE_SITE, "federation.rounds=1"), tmp_path / "run"
    monkeypatch.setattr(keeping, "write_bytes", full)
    with pytest.raises(RunError, match="No space left on device"):
        run_study(study, out)
    assert not list((out / "adapters").rglob("*.*"))


def test_a_second_process_is_kept_out_of_a_run_folder(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.begin(study_of(tmp_path))
    with folder.alone(), pytest.raises(RunError, match="another process"), folder.alone():
        pass
    with folder.alone():
        pass


def test_what_a_killed_process_left_half_written_is_removed(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.begin(study_of(tmp_path))
    (folder.path / "answers" / "m").mkdir(parents=True)
    (folder.path / "answers" / "m" / ".0123.partial").write_text("half")
    (folder.path / "adapters" / ".m.0123.tmp").mkdir(parents=True)
    with folder.alone():
        assert [path.name for path in folder.path.rglob(".*")] == [".lock"]


def test_a_run_killed_while_it_wrote_its_first_file_can_be_started_again(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    (folder.path / ".0123.partial").write_text("name: t")
    folder.begin(study_of(tmp_path))
    with folder.alone():
        assert {path.name for path in folder.path.iterdir()} == {
            ".lock", "study.yaml", "versions.json"
        }  # fmt: skip


def test_a_round_is_scored_even_if_the_run_ended_after_its_checkpoint(tmp_path, monkeypatch):
    from fedmedlora.study import method_run

    settings = (*ONE_SITE, "evaluation.by_round=true")
    run_study(study_of(tmp_path, *settings), tmp_path / "whole")
    study, out = study_of(tmp_path, *settings), tmp_path / "run"
    score = method_run.score_round
    for ending in (1, 2):

        def ended(*arguments, number, ending=ending, **more):
            if number == ending:
                raise KeyboardInterrupt
            return score(*arguments, number=number, **more)

        monkeypatch.setattr(method_run, "score_round", ended)
        with pytest.raises(KeyboardInterrupt):
            run_study(study, out)
        assert (out / "federation" / METHOD / f"round-000{ending}").is_dir()
    monkeypatch.undo()
    run_study(study, out)
    name = "validation_rounds.json"
    assert {row["round"] for row in json.loads((out / name).read_text())} == {1, 2}
    assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_disk_that_refuses_an_answer_fails_the_run_and_says_how_to_go_on(tmp_path):
    (tmp_path / "answers").write_text("in the way")
    with pytest.raises(RunError, match=r"answers.*cannot be written.*goes on from there"):
        RunFolder(tmp_path).write_answers("zero-shot", "icu", [])


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("study.yaml", b"\xff", "is no study any more"),
        ("study.yaml", b"[" * 3000, "is no study any more"),
        ("scores.json", b"\xff", "is not JSON any more"),
        ("scores.json", b"[" * 100_000, "is not JSON any more"),
        ("scores.json", b"[1]", "not what a run writes"),
        ("scores.json", b"{}", "has no scores"),
        ("answers/zero-shot/done.json", b"[]", "not what a run writes"),
        ("answers/zero-shot/done.json", b'{"rounds": [5]}', "not what a run writes"),
    ],
)
def test_a_changed_file_of_a_run_is_named(tmp_path, name, content, says):
    folder = RunFolder(tmp_path / "run")
    folder.begin(study_of(tmp_path, "methods=[zero-shot]"))
    folder.write_json("scores.json", [])
    (folder.path / "answers" / "zero-shot").mkdir(parents=True)
    (folder.path / name).write_bytes(content)
    with pytest.raises(RunError, match=says):
        study_tables(folder.path)


@pytest.mark.parametrize("line", ["[1]", '{"example": "x"}', '{"example": "x", "answer": 5}', "{"])
def test_broken_answers_say_what_to_remove(tmp_path, line):
    folder = RunFolder(tmp_path)
    write_text(tmp_path / "icu.jsonl", line)
    (tmp_path / "answers" / "m").mkdir(parents=True)
    (tmp_path / "icu.jsonl").rename(tmp_path / "answers" / "m" / "icu.jsonl")
    with pytest.raises(RunError, match="is broken; remove the folder"):
        folder.read_answers("m", "icu", [])


def test_a_folder_that_is_no_run_is_called_so(tmp_path):
    for place in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(RunError, match="is no run folder"):
            study_tables(place)


def test_a_worker_process_that_dies_is_told_in_one_sentence(tmp_path, monkeypatch):
    # Called with three arguments it fails, and a process that cannot start breaks the pool.
    monkeypatch.setattr(processes, "_open", os.getpid)
    study = study_of(tmp_path, "runtime.processes=2")
    jobs = [processes.Job(0, "", study, tmp_path / "run", arm) for arm in study_arms(study)]
    with pytest.raises(RunError, match="a worker process was killed"):
        processes.run_side_by_side(
            jobs,
            processes=2,
            threads=1,
            on_event=lambda kind, facts: None,
            on_run_done=lambda run: None,
        )


def alive(session: int) -> list[str]:
    """Processes of a session that have not ended."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, sid = stat.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(sid) == session and state not in "ZX":
            found.append(stat.parent.name)
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="counts processes in /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_no_worker_outlives_the_command(tmp_path, number):
    study_of(tmp_path)
    out = tmp_path / "run"
    more = ("--set", "runtime.processes=2", "--set", "federation.rounds=500")
    process = subprocess.Popen(
        [sys.executable, "-m", "fedmedlora", "run", str(tmp_path / "study.yaml"),
         "--out", str(out), *more],
        stderr=subprocess.PIPE, start_new_session=True, text=True,
        # A shell lets what it runs in the background ignore Ctrl-C, and all that comes of it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        # Killed while it works; interrupted while its workers only begin.
        sign = "federation/*/*/round-0001" if number == signal.SIGKILL else "data.json"
        while time.monotonic() < deadline and not (
            list(out.glob(sign)) and len(alive(process.pid)) > 3
        ):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.05)
        if number == signal.SIGINT:  # as a terminal does it: to all of them
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        told = process.communicate(timeout=60)[1]
        assert process.returncode == {signal.SIGKILL: -9, signal.SIGTERM: 143}.get(number, 130)
        assert "Traceback" not in told
        deadline = time.monotonic() + 20
        while alive(process.pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert alive(process.pid) == []
        for record in out.glob("federation/*/*/round-0001/round.json"):
            assert json.loads(record.read_text())["round"] == 1
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
