"""What can be wrong with a study or with its run folder: one line that says what and what to do."""

import json
import shutil
from pathlib import Path

import pytest
from chat_server import failure, serving

from fedmedlora.cli import run_command
from fedmedlora.config import load_study
from fedmedlora.corpus.jsonl import write_jsonl
from fedmedlora.errors import BackboneError, ConfigError, EndpointError, RunError
from fedmedlora.report.blocks import Table
from fedmedlora.report.page import render_report
from fedmedlora.report.run import read_run
from fedmedlora.report.scores import score_section
from fedmedlora.schema import Document, Entity, Relation
from fedmedlora.study.rescoring import rescore
from fedmedlora.study.run import run_study
from fedmedlora.study.tables import study_tables

TEXT = """
name: toy
methods: [dictionary]
sites:
  icu: {synthetic: {style: icu, train: 3, validation: 1, test: 1}}
  outpatient: {synthetic: {style: outpatient, train: 3, validation: 1, test: 1}}
task: {heads: numbered, prompt: compact, window_words: 60}
training: {steps: 1, batch: 1, objective: decisions}
federation: {rounds: 1}
adapter: {rank: 2, alpha: 8}
decoding: {draft: 32}
"""
#: One question at a time, and no second try, which would wait.
API = (
    "methods=[zero-shot, dictionary, api]",
    "api={model: toy, allow_egress: true, retries: 0, concurrency: 1, timeout_seconds: 1}",
)

SETTINGS_OF_FINISHED = ("variants={other: {set: {federation.rounds: 2}}}", "seeds=[7, 8]")


def study_of(folder: Path, *overrides: str):
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "study.yaml"
    file.write_text(TEXT, encoding="utf-8")
    return load_study(file, overrides)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of dictionaries alone, with a variant: nothing is trained and nothing asked."""
    folder = tmp_path_factory.mktemp("finished")
    study = study_of(folder, *SETTINGS_OF_FINISHED)
    run_study(study, folder / "run")
    return folder / "run"


@pytest.fixture
def run(finished, tmp_path):
    """A copy of it to spoil."""
    return shutil.copytree(finished, tmp_path / "copy")


def told(capsys, *arguments: str) -> tuple[int, str]:
    """The exit code of a command and the line on stderr that it fails with."""
    code = run_command(arguments)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return code, lines[0]


# Models that are not there ---------------------------------------------------


@pytest.mark.parametrize(
    ("method", "key"), [("zero-shot", "backbone.name"), ("bert", "encoder.name")]
)
@pytest.mark.parametrize("name", ["not-a-model-of-anybody", "./not-a-folder"])
def test_a_model_that_is_nowhere_is_said_before_the_first_row(tmp_path, method, key, name):
    study = study_of(tmp_path, f"methods=[{method}]", f"{key}={name}")
    told = []
    with pytest.raises(BackboneError, match=rf"^{key}: .*'{name}'.* no ") as caught:
        run_study(study, tmp_path / "run", on_event=lambda kind, facts: told.append(kind))
    assert "tokenizer" not in str(caught.value)
    assert told == []
    assert not (tmp_path / "run").exists()


def test_a_model_that_no_row_needs_need_not_be_there(tmp_path):
    study = study_of(tmp_path, "backbone.name=./not-a-folder", "encoder.name=./not-a-folder")
    run_study(study, tmp_path / "run")


# Names -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entries", "place", "value"),
    [
        ("[zero-shot, single-site, fedmedlora]", "methods.2", "'fedmedlora'"),
        ("[{method: fedmedlora, label: mine}]", "methods.0", "'fedmedlora'"),
    ],
)
def test_a_method_that_does_not_exist_is_named_once_with_those_that_do(
    tmp_path, entries, place, value
):
    with pytest.raises(ConfigError) as caught:
        study_of(tmp_path, f"methods={entries}")
    message = str(caught.value)
    assert f"{place}: {value} is none of zero-shot, few-shot, " in message
    assert message.count("fedmedlora") == 1
    assert message.count("fedex-lora") == 1
    assert "Input should be" not in message


@pytest.mark.parametrize("entry", ["3", "null", "true", "[fed-medlora]"])
def test_an_entry_that_is_no_method_is_told_what_one_is(tmp_path, entry):
    with pytest.raises(ConfigError, match=r"methods\.0: a method is a name, or a mapping"):
        study_of(tmp_path, f"methods=[{entry}]")


def test_a_value_that_is_none_of_several_kinds_is_one_fault(tmp_path):
    with pytest.raises(ConfigError) as caught:
        study_of(tmp_path, "api.allow_egress=icu")
    assert str(caught.value).endswith(
        "study.yaml: api.allow_egress: must be true or false, or must be a list (is 'icu')"
    )


@pytest.mark.parametrize("start", ["zero-shot", "dictionary", "bert", "centralised", "nobody"])
def test_a_new_site_cannot_start_from_a_method_without_a_federated_adapter(tmp_path, start):
    new = "{synthetic: {style: discharge, train: 2, validation: 1, test: 1}, notes: [1], of: [%s]}"
    study = study_of(
        tmp_path,
        "methods=[zero-shot, dictionary, bert, fed-medlora, centralised]",
        f"new_sites={{later: {new % start}}}",
    )
    with pytest.raises(ConfigError) as caught:
        run_study(study, tmp_path / "run")
    assert str(caught.value) == (
        f"new_sites.later.of: '{start}' is no federated method of the study (fed-medlora)"
    )
    assert not (tmp_path / "run").exists()


def test_what_is_wrong_with_a_new_site_is_told_under_its_own_key(tmp_path):
    new = "{synthetic: {style: icu, train: 2, validation: 1, test: 1}, notes: [1], tasks: [%s]}"
    bare = new.replace("tasks: [%s]", "annotates: [problem], strip: [problem]")
    for text, key in ((bare, "strip"), (new % "modifiers", "tasks")):
        study = study_of(tmp_path, "task.tasks=[entities]", f"new_sites={{later: {text}}}")
        with pytest.raises(ConfigError, match=rf"^new_sites\.later\.{key}: "):
            run_study(study, tmp_path / "run")


# Notes that may not leave ------------------------------------------------------------------------


def test_without_permission_nothing_is_trained_sent_or_written(tmp_path, monkeypatch):
    with serving(lambda prompt, number: "No pain.") as server:
        set_environment(monkeypatch, server)
        study = study_of(tmp_path, "methods=[zero-shot, fed-medlora, api]", "api.model=toy")
        with pytest.raises(ConfigError) as caught:
            run_study(study, tmp_path / "run")
    assert str(caught.value).startswith("the notes of icu, outpatient would be sent to an API")
    assert "`api.allow_egress: true`" in str(caught.value)
    assert server.requests == []
    assert not (tmp_path / "run").exists()


def test_permission_for_some_cohorts_names_the_others(tmp_path):
    study = study_of(tmp_path, "methods=[api]", "api={model: toy, allow_egress: [icu]}")
    with pytest.raises(ConfigError, match="the notes of outpatient would be sent"):
        run_study(study, tmp_path / "run")


def test_permission_for_a_cohort_that_the_study_does_not_have_is_refused(tmp_path):
    allowed = "api={model: toy, allow_egress: [icu, outpatient, icv]}"
    with pytest.raises(ConfigError, match=r"api\.allow_egress: icv is no .* icu, outpatient$"):
        run_study(study_of(tmp_path, "methods=[api]", allowed), tmp_path / "run")


def test_worked_examples_of_shared_notes_need_the_new_sites_permission_at_once(tmp_path):
    allowed = "api={model: toy, allow_egress: [icu, outpatient], examples: 1}"
    study = study_of(tmp_path, "methods=[api]", allowed, "partition={sites: 1}")
    with pytest.raises(ConfigError, match="the notes of site-1 would be sent"):
        run_study(study, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_variant_that_would_send_notes_is_refused_before_the_study_runs(tmp_path):
    study = study_of(tmp_path, "variants={asked: {set: {}, methods: [api]}}")
    with pytest.raises(ConfigError, match="would be sent to an API"):
        run_study(study, tmp_path / "run")
    assert not (tmp_path / "run").exists()


# An endpoint that fails --------------------------------------------------------------------------


def set_environment(monkeypatch, server) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name, value in server.environ.items():
        monkeypatch.setenv(name, value)


def work_of(run: Path) -> dict[str, bytes]:
    """What a method leaves, by place in the run folder."""
    files = sorted((run / "answers" / "zero-shot").iterdir())
    return {file.name: file.read_bytes() for file in files}


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """A run whose other methods are done and whose endpoint answered nothing."""
    folder = tmp_path_factory.mktemp("asked")
    with (
        pytest.MonkeyPatch.context() as patch,
        serving(lambda prompt, number: (500, failure())) as server,
    ):
        set_environment(patch, server)
        with pytest.raises(EndpointError):
            run_study(study_of(folder, *API), folder / "run")
    return folder / "run"


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        ((401, failure()), "the key is refused (401): set OPENAI_API_KEY to a valid one"),
        ((429, failure()), "too many requests (429), and retries is 0: lower concurrency"),
        ((500, failure()), "it fails (500), and retries is 0: try again later"),
        ((200, "<html>"), "the answer is a web page, not JSON: check OPENAI_BASE_URL"),
        ((200, ""), "the answer is empty (200): check OPENAI_BASE_URL"),
        ("BREAK", "the connection broke (RemoteProtocolError), and retries is 0: try again later"),
        ("HANG", "no answer within 1 s, and retries is 0: raise timeout_seconds"),
    ],
)
def test_a_failing_endpoint_ends_the_study_and_costs_no_answer_of_anyone(
    asked, tmp_path, monkeypatch, reply, says
):
    out = shutil.copytree(asked, tmp_path / "run")
    before = work_of(out)
    study = study_of(tmp_path, *API)
    requests = []

    def after_two(prompt, number):
        requests.append(prompt)
        return reply if len(requests) == 3 else "No pain."

    with serving(after_two) as server:
        set_environment(monkeypatch, server)
        with pytest.raises(EndpointError) as caught:
            run_study(study, out)
        message = str(caught.value)
        assert message.startswith(f"{server.host}: {says}")
        assert "2 of " in message
        assert f"are kept in {out / 'answers/api/api-cache.jsonl'}" in message
        assert work_of(out) == before
        assert not (out / "scores.json").exists()
        sent = len(requests)
        run_study(study, out)
    # What failed is asked again, and nothing that was answered.
    assert sent == 3
    again = requests[sent:]
    assert requests[2] in again
    assert not {*requests[:2]} & {*again}
    assert work_of(out) == before
    done = json.loads((out / "answers/api/done.json").read_text())
    answered = len({*requests})
    assert done["cost"]["answers"] == answered
    assert (done["cost"]["prompt_tokens"], done["cost"]["completion_tokens"]) == (
        10 * answered,
        5 * answered,
    )
    assert {row[1] for row in study_tables(out)[0].rows} >= {"zero-shot", "dictionary", "api"}
    assert "Services that were asked" in render_report(read_run(out))


# Half-written files ------------------------------------------------------------------------------


def halve(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize("command", ["table", "report"])
def test_half_written_scores_are_named_and_made_again_by_rescore(run, capsys, command):
    before = (run / "scores.json").read_bytes()
    halve(run / "scores.json")
    code, line = told(capsys, command, str(run))
    assert code == 1
    assert str(run / "scores.json") in line
    assert "rescore" in line
    assert run_command(["rescore", str(run)]) == 0
    assert (run / "scores.json").read_bytes() == before
    assert run_command([command, str(run)]) == 0


@pytest.mark.parametrize("content", [b"[", b"5", b"[5]", b"[{}]"])
def test_one_row_cannot_be_put_into_broken_scores(run, capsys, content):
    (run / "scores.json").write_bytes(content)
    code, line = told(capsys, "rescore", str(run), "--method", "dictionary")
    assert code == 1
    assert "scores.json" in line
    assert "rescore" in line
    assert (run / "scores.json").read_bytes() == content


@pytest.mark.parametrize(
    ("name", "mended_by"),
    [
        ("comparisons.json", "rescore"),
        ("seeds.json", "rescore"),
        ("methods.json", "run"),
        ("variants.json", "run"),
        ("data.json", "run"),
    ],
)
def test_a_half_written_file_is_named_by_the_report_and_made_again(run, capsys, name, mended_by):
    before = (run / name).read_bytes()
    assert before
    (run / name).write_bytes(before[: len(before) // 2 or 1])
    code, line = told(capsys, "report", str(run))
    assert code == 1
    assert str(run / name) in line
    assert ("rescore" if mended_by == "rescore" else "run the study again") in line
    if mended_by == "rescore":
        rescore(run)
    else:
        (run / name).unlink()
        more = ("variants={other: {set: {federation.rounds: 2}}}", "seeds=[7, 8]")
        run_study(study_of(run.parent, *more), run)
    assert (run / name).read_bytes() == before
    assert run_command(["report", str(run)]) == 0


def test_half_written_scores_of_a_variant_are_named_with_their_folder(run, capsys):
    halve(run / "variants/other/scores.json")
    code, line = told(capsys, "report", str(run))
    assert code == 1
    assert str(run / "variants/other/scores.json") in line


# Runs that are not finished, or another study's --------------------------------------------------


def test_a_run_that_is_not_finished_has_no_report_and_says_how_to_go_on(run, capsys):
    (run / "scores.json").unlink()
    for command in ("report", "table"):
        code, line = told(capsys, command, str(run))
        assert code == 1
        assert "not finished" in line or "has not come that far" in line


def test_a_report_is_made_without_the_variant_and_the_seed_that_are_not_finished(run):
    whole = render_report(read_run(run))
    for name in ("other", "seed-8"):
        (run / "variants" / name / "scores.json").unlink()
    (run / "seeds.json").unlink()
    page = render_report(read_run(run))
    assert "Not finished" not in whole
    for name in ("other", "seed-8"):
        assert f"Not finished, and so not here: {name}." in page
    shutil.rmtree(run / "variants" / "other")
    assert "Not finished, and so not here: other." in render_report(read_run(run))


def test_rescoring_leaves_alone_what_is_not_finished_and_says_so(run, capsys):
    shutil.rmtree(run / "variants/seed-8")
    assert run_command(["rescore", str(run)]) == 0
    assert capsys.readouterr().err == "not finished, and not scored: seed-8\n"
    assert not (run / "variants/seed-8").exists()


def test_a_method_that_was_added_and_is_not_finished_is_named_in_the_report(run):
    rows = json.loads((run / "methods.json").read_text())
    more = {**rows[0], "label": "fed-medlora", "kind": "federated", "method": "fed-medlora"}
    (run / "methods.json").write_text(json.dumps([*rows, more]))
    assert "has not come that far: fed-medlora." in render_report(read_run(run))


def test_the_run_folder_of_another_study_is_refused_with_what_differs(run):
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    other = study_of(run.parent, "seed=7", "task.window_words=50", "absent=negative")
    with pytest.raises(RunError) as caught:
        run_study(other, run)
    assert str(caught.value) == (
        f"{run} holds a run of another study (it differs in absent, task); give another "
        "--out, or remove the folder"
    )
    assert {file: file.read_bytes() for file in run.rglob("*") if file.is_file()} == before


def test_a_variant_that_was_changed_is_refused_before_anything_is_written(run):
    before = (run / "study.yaml").stat().st_mtime_ns
    changed = "variants={other: {set: {federation.rounds: 3}}}"
    with pytest.raises(RunError, match=r"variants/other holds a run of another study.*federation"):
        run_study(study_of(run.parent, changed, "seeds=[7, 8]"), run)
    assert (run / "study.yaml").stat().st_mtime_ns == before


# Nothing to score --------------------------------------------------------------------------------


def test_a_cohort_without_relations_has_a_dash_for_them(tmp_path):
    text = "severe pain"
    related = Document(
        "d",
        text,
        (Entity("T1", "problem", 7, 11), Entity("T2", "severity", 0, 6)),
        (Relation("severity", "T1", "T2"),),
    )
    bare = Document("e", text, (Entity("T1", "problem", 7, 11),))
    for name, document in {"train": related, "validation": related, "test": related}.items():
        write_jsonl(
            [Document(name, text, document.entities, document.relations)],
            tmp_path / f"{name}.jsonl",
        )
    write_jsonl([bare], tmp_path / "bare.jsonl")
    files = ", ".join(f"{name}: {name}.jsonl" for name in ("train", "validation", "test"))
    study = study_of(tmp_path, f"sites={{here: {{{files}}}}}", "cohorts={bare: {test: bare.jsonl}}")
    run_study(study, tmp_path / "run")
    table = study_tables(tmp_path / "run")[0]
    assert table.headers == ("task", "method", "all", "here", "bare")
    shown = {(row[0], row[1]): row[2:] for row in table.rows}
    assert shown["relations", "dictionary"] == ("1.0 / 1.0", "1.0 / 1.0", "–")
    assert shown["entities", "dictionary"] == ("1.0 / 1.0", "1.0 / 1.0", "1.0 / 1.0")
    run = read_run(tmp_path / "run")
    assert render_report(run)
    tables = {block.view["task"]: block for block in score_section(run).blocks if view_of(block)}
    cells = {
        task: {row.header: [cell.text for cell in row.cells] for row in table.groups[0].rows}
        for task, table in tables.items()
    }
    assert cells["relations"]["dictionary"] == ["1.00", "1.00", "–"]
    assert cells["entities"]["dictionary"] == ["1.00", "1.00", "1.00"]


def view_of(block) -> bool:
    """Whether it is a table of strict micro F1."""
    wanted = {"matching": "strict", "average": "micro"}
    return isinstance(block, Table) and wanted.items() <= block.view.items()


def test_a_run_from_before_checkpointing_was_decided_goes_on(run):
    file = run / "study.yaml"
    text = file.read_text(encoding="utf-8")
    assert "gradient_checkpointing: auto" in text
    file.write_text(text.replace("gradient_checkpointing: auto", "gradient_checkpointing: false"))
    run_study(study_of(run.parent, *SETTINGS_OF_FINISHED), run)


def test_a_run_whose_sites_took_part_in_other_tasks_is_not_mixed_with(run):
    data = json.loads((run / "data.json").read_text(encoding="utf-8"))
    data["sites"]["icu"]["tasks"] = ["entities"]
    (run / "data.json").write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(RunError, match=r"sites.icu takes part in entities, and now in entities, m"):
        run_study(study_of(run.parent, *SETTINGS_OF_FINISHED), run)
