"""A whole study on the embedded backbone, small: every station real, interrupted and resumed."""

import json
import shutil
from pathlib import Path

import pytest

from fedmedlora.config import load_study
from fedmedlora.errors import DataError, RunError
from fedmedlora.model.adapter_files import read_adapter
from fedmedlora.model.backbone import embedded_folder
from fedmedlora.study.arms import study_arms
from fedmedlora.study.methods import first_rounds_of
from fedmedlora.study.rescoring import rescore
from fedmedlora.study.run import run_study
from fedmedlora.study.run_folder import RunFolder
from fedmedlora.study.tables import study_tables

TEXT = """
name: toy
methods: [zero-shot, dictionary, single-site, fed-medlora, fed-medlora+, centralised]
sites:
  icu: {synthetic: {style: icu, train: 3, validation: 1, test: 1}}
  outpatient: {synthetic: {style: outpatient, train: 3, validation: 1, test: 1}}
task: {heads: numbered, prompt: compact, window_words: 30}
training: {steps: 2, batch: 2, learning_rate: 1.0e-3, objective: decisions}
federation: {rounds: 2}
"""


def study_of(folder: Path, *overrides: str):
    file = folder / "study.yaml"
    file.write_text(TEXT, encoding="utf-8")
    return load_study(file, overrides)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    run_study(study_of(folder), folder / "run")
    return folder / "run"


def test_every_method_is_scored_on_every_cohort_and_task(run):
    scores = json.loads((run / "scores.json").read_text())
    found = {(s["method"], s["cohort"], s["task"]) for s in scores}
    methods = [arm.label for arm in study_arms(study_of(run.parent))]
    cohorts = ("icu", "outpatient", "all")
    tasks = ("entities", "modifiers", "relations")
    assert found == {(m, c, t) for m in methods for c in cohorts for t in tasks}
    keys = ["method", "round", "cohort", "task", "matching", "level", "type"]
    keys += ["tp", "predicted", "gold", "precision", "recall", "f1"]
    assert all(list(score)[: len(keys)] == keys for score in scores)


def test_a_round_says_what_every_site_did_and_what_travelled(run):
    rounds = [json.loads(line) for line in (run / "rounds.jsonl").read_text().splitlines()]
    federated = [r for r in rounds if r["method"] == "fed-medlora+"]
    assert [r["round"] for r in federated] == [1, 2]
    for record in federated:
        assert set(record["sites"]) == {"icu", "outpatient"}
        assert sum(site["weight"] for site in record["sites"].values()) == pytest.approx(1)
        for site in record["sites"].values():
            assert site["status"] == "ok"
            assert site["validation_loss"] > 0
            assert site["bytes_up"] > 200_000  # the adapter in bf16
            assert site["counts"]["steps"] == 2


def test_methods_that_begin_alike_share_a_first_round_and_lose_nothing_by_it(run, tmp_path):
    def recalled(folder):
        return {
            (record["method"], record["round"])
            for record in map(json.loads, (folder / "rounds.jsonl").read_text().splitlines())
            if all(site["counts"].get("recalled") for site in record["sites"].values())
        }

    # The single sites came first: both federated methods took up their rounds.
    assert recalled(run) == {("fed-medlora", 1), ("fed-medlora+", 1)}
    assert not first_rounds_of(run).exists()
    run_study(study_of(tmp_path, "methods=[fed-medlora]"), tmp_path / "run")
    assert recalled(tmp_path / "run") == set()
    ours, theirs = (read_adapter(f / "adapters/fed-medlora") for f in (run, tmp_path / "run"))
    assert ours.sha256 == theirs.sha256


def test_scores_can_be_made_again_without_a_model(run, monkeypatch):
    before = (run / "scores.json").read_bytes()
    (run / "scores.json").unlink()
    monkeypatch.setattr("fedmedlora.study.run.MethodRunner", None)
    rescore(run)
    assert (run / "scores.json").read_bytes() == before


def test_scores_are_not_made_again_while_another_process_is_at_work(run):
    with RunFolder(run).alone(), pytest.raises(RunError, match="another process"):
        rescore(run)


def test_a_row_is_scored_again_from_the_run_folder_alone(run, monkeypatch):
    before = (run / "scores.json").read_bytes()
    monkeypatch.setattr("fedmedlora.study.rescoring.load_data", None)
    rescore(run, method="fed-medlora")
    assert (run / "scores.json").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("gold/icu.jsonl", None, "is missing"),
        ("gold/icu.jsonl", "{", "remove it and run again"),
        ("data.json", '{"cohorts": []}', "not what a run writes there"),
    ],
)
def test_a_run_without_its_gold_is_not_scored_again(run, tmp_path, name, content, says):
    shutil.copytree(run, tmp_path / "run")
    file = tmp_path / "run" / name
    file.unlink() if content is None else file.write_text(content)
    with pytest.raises(RunError, match=rf"{file.name}.*{says}"):
        rescore(tmp_path / "run", method="fed-medlora")


def test_the_tables_name_every_method(run):
    scores, traffic = study_tables(run)
    assert {row[1] for row in scores.rows} == {
        arm.label for arm in study_arms(study_of(run.parent))
    }
    assert {row[0] for row in traffic.rows} == {"fed-medlora", "fed-medlora+"}


def test_a_saved_adapter_opens_with_peft_and_merges(run):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(embedded_folder())
    merged = PeftModel.from_pretrained(base, run / "adapters" / "fed-medlora").merge_and_unload()
    assert type(merged) is type(base)
    task = json.loads((run / "adapters" / "fed-medlora" / "task.json").read_text())
    assert task["task"]["heads"] == "numbered"


def test_a_finished_run_is_not_done_again_and_another_study_is_refused(run):
    times = {file: file.stat().st_mtime_ns for file in (run / "answers").rglob("*")}
    run_study(study_of(run.parent), run)
    assert times == {file: file.stat().st_mtime_ns for file in (run / "answers").rglob("*")}
    with pytest.raises(RunError, match="seed"):
        run_study(study_of(run.parent, "seed=99"), run)


def test_answers_of_another_backbone_are_not_mixed_in(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    answers = tmp_path / "run" / "answers"
    shutil.rmtree(answers / "centralised")
    noted = json.loads((answers / "zero-shot/done.json").read_text())
    noted["backbone"] = "0" * 64
    (answers / "zero-shot/done.json").write_text(json.dumps(noted))
    with pytest.raises(RunError, match=r"zero-shot has answers of a backbone"):
        run_study(study_of(tmp_path), tmp_path / "run")


def test_an_interrupted_run_goes_on_to_the_same_adapter_and_scores(run, tmp_path):
    def interrupt(kind: str, facts: dict[str, object]) -> None:
        if (kind, facts.get("method"), facts.get("round")) == ("round", "fed-medlora", 2):
            raise KeyboardInterrupt

    study = study_of(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run_study(study, tmp_path / "run", on_event=interrupt)
    assert not (tmp_path / "run" / "scores.json").exists()
    left = []
    run_study(
        study,
        tmp_path / "run",
        on_event=lambda kind, facts: left.extend(facts["methods"] if kind == "study" else ()),
    )
    assert left == ["fed-medlora", "fed-medlora+", "centralised"]
    for method in ("fed-medlora", "centralised"):
        ours, theirs = (
            read_adapter(folder / "adapters" / method) for folder in (tmp_path / "run", run)
        )
        assert ours.sha256 == theirs.sha256
    again = (tmp_path / "run" / "scores.json").read_bytes()
    assert again == (run / "scores.json").read_bytes()


def test_a_full_disk_fails_the_run_and_not_the_input(tmp_path, monkeypatch):
    def full(path, text):
        raise DataError("cannot be written: No space left on device", path=path)

    monkeypatch.setattr("fedmedlora.study.run_folder.write_text", full)
    with pytest.raises(RunError, match=r"study\.yaml: cannot be written: No space left"):
        run_study(study_of(tmp_path), tmp_path / "run")


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("mine")
    with pytest.raises(RunError, match="not empty"):
        run_study(study_of(tmp_path), tmp_path / "run")
    assert [file.name for file in (tmp_path / "run").iterdir()] == ["mine.txt"]


@pytest.mark.slow
def test_flowers_simulation_gives_a_study_the_same_adapter_and_scores(run, tmp_path):
    pytest.importorskip("ray", reason="Flower's simulation needs Ray")
    study = study_of(
        tmp_path, "methods=[fed-medlora+]", "federation.engine=flower", "runtime.processes=2"
    )
    run_study(study, tmp_path / "run")
    place = "adapters/fed-medlora+"
    assert read_adapter(tmp_path / "run" / place).sha256 == read_adapter(run / place).sha256
    ours, flowers = (
        [
            s
            for s in json.loads((folder / "scores.json").read_text())
            if s["method"] == "fed-medlora+"
        ]
        for folder in (run, tmp_path / "run")
    )
    assert flowers == ours
