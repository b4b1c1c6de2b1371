"""`rescore`: what follows from scores is made again or is gone; one process at a time."""

import json
import shutil
from pathlib import Path

import pytest

from fedmedlora.cli import run_command
from fedmedlora.config import load_study
from fedmedlora.errors import NoRunError, RunError
from fedmedlora.report.page import render_report
from fedmedlora.report.run import read_run
from fedmedlora.study.arms import study_arms
from fedmedlora.study.data import load_data
from fedmedlora.study.rescoring import rescore
from fedmedlora.study.run import run_study
from fedmedlora.study.run_folder import RunFolder
from fedmedlora.study.scoring import score_run
from fedmedlora.study.task_settings import task_settings
from fedmedlora.tasks.build import build_examples

TEXT = """
name: toy
methods: [dictionary, zero-shot, single-site, fed-medlora]
sites:
  icu: {synthetic: {style: icu, train: 3, validation: 1, test: 2}}
  outpatient: {synthetic: {style: outpatient, train: 3, validation: 1, test: 2}}
task: {heads: numbered, prompt: compact, window_words: 60}
seeds: [7, 8]
variants:
  other: {set: {federation.rounds: 2}}
  bare: {set: {}, methods: [zero-shot]}
"""
#: Where the row that is scored again is: in the run itself, its other seed and one variant.
WITH_IT = ("", "variants/seed-8", "variants/other")
FOLLOW = ("comparisons.json", "seeds.json")


def study_of(folder: Path):
    file = folder / "study.yaml"
    file.write_text(TEXT, encoding="utf-8")
    return load_study(file, ())


def answer(folder: RunFolder, label: str, *, well: bool) -> None:
    """Let a row have gold's answers, or have marked nothing."""
    study = folder.study()
    for cohort in load_data(study).cohorts:
        examples, _ = build_examples(
            cohort.documents,
            covers=cohort.covers,
            scheme=study.make_scheme(),
            settings=task_settings(study),
        )
        answers = [(one, one.answer if well else one.source) for one in examples]
        folder.write_answers(label, cohort.name, answers)
    folder.write_json(f"answers/{label}/done.json", {"method": label, "rounds": []})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run whose sites answer well and whose other models mark nothing; nothing is trained."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(
            "fedmedlora.study.run.run_method",
            lambda runner, arm, *, folder, on_event: answer(
                folder, arm.label, well=arm.kind == "single"
            ),
        )
        run_study(study_of(folder), folder / "run")
    return folder / "run"


@pytest.fixture
def run(finished, tmp_path):
    """A copy of it, in which fed-medlora answers well by now, and nothing was scored since."""
    copy = shutil.copytree(finished, tmp_path / "copy")
    for name in WITH_IT:
        answer(RunFolder(copy / name), "fed-medlora", well=True)
    return copy


def written(run: Path) -> dict[str, bytes]:
    """Every score, reading, prediction and comparison of a run and its further runs."""
    files = [file for file in run.rglob("*") if file.is_file() and "answers" not in file.parts]
    return {str(file.relative_to(run)): file.read_bytes() for file in files}


def test_what_follows_from_one_rows_scores_is_made_again_with_them(finished, run, tmp_path):
    stale = written(run)
    whole = shutil.copytree(run, tmp_path / "whole")
    assert rescore(whole) == []
    assert rescore(run, method="fed-medlora") == []
    assert written(run) == written(whole)
    changed = {name for name, content in written(run).items() if content != stale[name]}
    assert {*FOLLOW, "variants/seed-8/scores.json", "variants/other/scores.json"} <= changed
    assert not any(name.startswith(("predictions/zero-shot", "variants/bare")) for name in changed)
    means = {
        row["mean"]
        for row in json.loads((run / "seeds.json").read_text())
        if (row["method"], row["task"]) == ("fed-medlora", "entities")
    }
    assert means == {1.0}


def test_comparisons_are_of_the_scores_beside_them(run):
    rescore(run, method="fed-medlora")
    f1 = {
        (row["method"], row["cohort"], row["task"], row["matching"]): row["f1"]
        for row in json.loads((run / "scores.json").read_text())
        if (row["level"], row["type"]) == ("typed", "micro")
    }
    rows = json.loads((run / "comparisons.json").read_text())
    assert rows
    for row in rows:
        key = row["cohort"], row["task"], row["matching"]
        difference = f1[row["first"], *key] - f1[row["second"], *key]
        assert row["f1"] == pytest.approx(difference, abs=1e-6)


@pytest.mark.parametrize("method", [None, "fed-medlora"])
def test_a_mean_over_seeds_of_other_scores_is_gone_where_a_seed_is_not_finished(run, method):
    (run / "variants/seed-8/answers/zero-shot/done.json").unlink()
    stale = (run / "comparisons.json").read_bytes()
    assert rescore(run, method=method) == ["seed-8"]
    assert not (run / "seeds.json").exists()
    assert (run / "comparisons.json").read_bytes() != stale
    page = render_report(read_run(run))
    assert "Not finished, and so not here: the mean over seeds." in page
    (run / "variants/seed-8/scores.json").unlink()
    assert "Not finished, and so not here: seed-8." in render_report(read_run(run))


def test_one_row_of_a_further_run_that_was_never_scored_waits_for_the_others(run):
    (run / "variants/other/scores.json").unlink()
    assert rescore(run, method="fed-medlora") == ["other"]
    assert not (run / "variants/other/scores.json").exists()
    assert rescore(run) == []


@pytest.mark.parametrize("method", [None, "fed-medlora"])
def test_a_process_that_is_killed_in_between_leaves_nothing_stale(run, method, monkeypatch):
    write = RunFolder.write_json

    def killed(self, name, content):
        write(self, name, content)
        if name == "scores.json":
            raise KeyboardInterrupt

    monkeypatch.setattr(RunFolder, "write_json", killed)
    with pytest.raises(KeyboardInterrupt):
        rescore(run, method=method)
    assert not any((run / name).exists() for name in FOLLOW)
    monkeypatch.undo()
    rescore(run)
    assert all((run / name).exists() for name in FOLLOW)


def test_broken_predictions_of_another_row_are_named_and_nothing_is_changed(run):
    file = run / "predictions/zero-shot/entities/icu.jsonl"
    file.write_text("{")
    before = written(run)
    with pytest.raises(RunError, match=rf"{file}.*rescore {run}`"):
        rescore(run, method="fed-medlora")
    assert written(run) == before
    rescore(run)
    rescore(run, method="fed-medlora")


def test_a_row_that_is_not_finished_keeps_no_other_from_being_scored(run):
    # As after `methods` got a new one and the run was interrupted.
    for name in ("scores.json", "comparisons.json"):
        rows = json.loads((run / name).read_text())
        kept = [row for row in rows if "zero-shot" not in row.values()]
        (run / name).write_text(json.dumps(kept))
    shutil.rmtree(run / "answers/zero-shot")
    shutil.rmtree(run / "predictions/zero-shot")
    rescore(run, method="fed-medlora")
    assert "zero-shot" not in (run / "comparisons.json").read_text()
    seeds = json.loads((run / "seeds.json").read_text())
    labels = {arm.label for arm in study_arms(RunFolder(run).study())}
    assert {row["method"] for row in seeds} == labels - {"zero-shot"}


def test_a_seed_is_scored_with_the_run_that_has_the_mean(run, capsys):
    before = written(run)
    assert run_command(["rescore", str(run / "variants/seed-8")]) == 2
    assert f"`fedmedlora rescore {run}`" in capsys.readouterr().err
    assert written(run) == before
    assert run_command(["rescore", str(run / "variants/other")]) == 0
    assert run_command(["rescore", str(run)]) == 0
    moved = shutil.move(run / "variants/seed-8", run.parent / "by itself")
    rescore(Path(moved))


@pytest.mark.parametrize("place", ["", "variants/other"])
def test_a_folder_that_a_process_works_in_is_left_alone(run, place):
    before = written(run)
    with RunFolder(run / place).alone(), pytest.raises(RunError, match="another process") as caught:
        rescore(run)
    assert not isinstance(caught.value, NoRunError)
    before |= {name: content for name, content in written(run).items() if name.endswith(".lock")}
    assert written(run) == before


@pytest.mark.parametrize("place", ["", "variants/other"])
def test_a_study_at_work_has_the_folders_of_its_further_runs(tmp_path, monkeypatch, place):
    refused = []

    def trained(runner, arm, *, folder, on_event):
        try:
            rescore(tmp_path / "run" / place)
        except RunError as error:
            refused.append(str(error))
        answer(folder, arm.label, well=False)

    monkeypatch.setattr("fedmedlora.study.run.run_method", trained)
    run_study(study_of(tmp_path), tmp_path / "run")
    assert len(refused) > 1
    assert all("another process" in message for message in refused)


def test_scores_of_a_run_that_goes_on_leave_no_mean_over_seeds_of_before(run):
    folder = RunFolder(run)
    score_run(folder, folder.study(), load_data(folder.study()))
    assert not (run / "seeds.json").exists()
