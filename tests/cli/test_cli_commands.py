"""The command line: what is printed where, and with which exit code."""

import json
import subprocess
import sys
import types

import pytest
from typer.main import get_command

from fedmedlora.cli import app, run_command
from fedmedlora.corpus.jsonl import read_jsonl, write_jsonl
from fedmedlora.errors import ConfigError, FederationError, RunError
from fedmedlora.evaluation.tables import Table
from fedmedlora.schema import Document, Entity, Relation

NOTE = "No fever. Aspirin 81 mg."
FEVER = Entity("T1", "problem", 3, 8)
ASPIRIN = Entity("T2", "drug", 10, 17)
NO = Entity("T3", "negation", 0, 2)
GOLD = Document("a", NOTE, (FEVER, ASPIRIN, NO), (Relation("negation", "T1", "T3"),))
STUDY = """
name: toy
sites:
  icu: {synthetic: {style: icu, train: 1, validation: 1, test: 1}}
methods: [zero-shot]
"""


@pytest.fixture
def files(tmp_path):
    """Gold with a problem, a drug and a negation; predictions that miss the drug."""
    write_jsonl([GOLD], tmp_path / "gold.jsonl")
    found = Document("a", NOTE, (FEVER, NO), GOLD.relations)
    write_jsonl([found], tmp_path / "pred.jsonl")
    return tmp_path


class FakeStudies:
    """Stands for ``fedmedlora.study``: notes what it is asked, and fails as it is told to."""

    def __init__(self):
        self.ran, self.rescored, self.error, self.events = [], [], None, []

    def run_study(self, study, out, *, on_event):
        self.ran.append((study, out))
        for kind, facts in self.events:
            on_event(kind, facts)
        if self.error is not None:
            raise self.error

    def study_tables(self, out):
        return [Table("scores", ("method", "F1"), (("fed-medlora", "0.8"),))]

    def rescore(self, out, *, method):
        self.rescored.append(out if method is None else (out, method))


@pytest.fixture
def studies(monkeypatch):
    fake = FakeStudies()
    module = types.ModuleType("fedmedlora.study.run")
    module.run_study = fake.run_study
    monkeypatch.setitem(sys.modules, "fedmedlora.study.run", module)
    rescoring = types.ModuleType("fedmedlora.study.rescoring")
    rescoring.rescore = fake.rescore
    monkeypatch.setitem(sys.modules, "fedmedlora.study.rescoring", rescoring)
    tables = types.ModuleType("fedmedlora.study.tables")
    tables.study_tables = fake.study_tables
    monkeypatch.setitem(sys.modules, "fedmedlora.study.tables", tables)
    monkeypatch.delenv("FEDMEDLORA_DEBUG", raising=False)
    return fake


@pytest.fixture
def study_file(tmp_path):
    path = tmp_path / "toy.yaml"
    path.write_text(STUDY, encoding="utf-8")
    return path


def command(*arguments):
    return run_command([str(argument) for argument in arguments])


def test_convert_prints_its_account_and_writes_the_file(files, capsys):
    assert command("convert", "--from", "jsonl", files / "gold.jsonl", files / "out.jsonl") == 0
    out, _ = capsys.readouterr()
    assert "  spans      3 read  3 mapped  0 skipped" in out
    assert read_jsonl(files / "out.jsonl") == [GOLD]


def test_convert_to_brat_and_back_gives_the_same_documents(files):
    gold, brat, back = files / "gold.jsonl", files / "brat", files / "back.jsonl"
    assert command("convert", "--from", "jsonl", gold, "--to", "brat", brat) == 0
    assert command("convert", "--from", "brat", brat, "--to", "jsonl", back) == 0
    assert read_jsonl(back) == [GOLD]


def test_inspect_counts_types(files, capsys):
    assert command("inspect", files / "gold.jsonl") == 0
    out, _ = capsys.readouterr()
    assert [line.split() for line in out.splitlines() if "negation" in line] == [
        ["negation", "1", "1"],
        ["problem", "negation", "1"],
    ]


def test_score_prints_the_table_on_stdout_and_remarks_on_stderr(files, capsys):
    assert command("score", "--gold", files / "gold.jsonl", "--pred", files / "pred.jsonl") == 0
    out, err = capsys.readouterr()
    rows = [line.split() for line in out.splitlines()]
    [micro] = [row for row in rows if row[:3] == ["entities", "strict", "micro"]]
    assert micro[3:6] == ["1.000", "0.500", "0.667"]
    assert err == "1 gold documents\n"


def test_score_json_prints_records_alone(files, capsys):
    gold, pred = files / "gold.jsonl", files / "pred.jsonl"
    assert command("score", "--gold", gold, "--pred", pred, "--json") == 0
    records = json.loads(capsys.readouterr().out)
    [one] = [
        r
        for r in records
        if (r["task"], r["matching"], r["level"], r["type"])
        == ("entities", "strict", "typed", "micro")
    ]
    assert (one["tp"], one["predicted"], one["gold"], one["recall"]) == (1, 1, 2, 0.5)
    assert one["cohort"] == "all"


def test_score_can_be_restricted_to_types_and_tasks(files, capsys):
    gold, pred = files / "gold.jsonl", files / "pred.jsonl"
    options = ("--covers", "problem, negation", "--tasks", "entities", "--json")
    assert command("score", "--gold", gold, "--pred", pred, *options) == 0
    records = json.loads(capsys.readouterr().out)
    assert {r["task"] for r in records} == {"entities"}
    assert {r["type"] for r in records} == {"problem", "micro", "macro"}


def test_synthetic_writes_each_split_of_each_site(tmp_path, capsys):
    out = tmp_path / "notes"
    assert command("synthetic", out, "--train", 2, "--validation", 1, "--test", 0) == 0
    written = sorted(str(path.relative_to(out)) for path in out.rglob("*.jsonl"))
    assert written == [
        f"{site}/{split}.jsonl"
        for site in ("discharge", "icu", "outpatient")
        for split in ("train", "validation")
    ]
    assert len(read_jsonl(out / "icu" / "train.jsonl")) == 2


def test_run_passes_the_study_with_its_settings_and_prints_its_tables(
    study_file, tmp_path, studies, capsys
):
    out = tmp_path / "run"
    settings = ("--set", "seed=11", "--set", "federation.rounds=5")
    studies.events = [("method-done", {"method": "zero-shot", "seconds": 61.4})]
    assert command("run", study_file, "--out", out, *settings) == 0
    [(study, folder)] = studies.ran
    assert (study.seed, study.federation.rounds, folder) == (11, 5, out)
    printed = capsys.readouterr()
    assert printed.out.startswith("scores\nmethod")
    assert printed.out.endswith(f"run folder: {out}\n")
    assert printed.err == "zero-shot: done in 61 s\n"


def test_ctrl_c_says_how_to_go_on(study_file, tmp_path, studies, capsys):
    studies.error = KeyboardInterrupt()
    out = tmp_path / "run"
    assert command("run", study_file, "--out", out) == 130
    told = capsys.readouterr().err
    assert told == f"interrupted; {out} can be resumed by the same command\n"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (FederationError("round 2: 1 of 3 sites answered"), 1),
        (RunError("cannot write run"), 1),
        (ConfigError("sites: none"), 2),
    ],
)
def test_a_failed_run_is_one_line_and_its_own_exit_code(
    study_file, tmp_path, studies, capsys, error, code
):
    studies.error = error
    assert command("run", study_file, "--out", tmp_path / "run") == code
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", f"error: {error}\n")


def test_table_and_rescore_print_the_tables(tmp_path, studies, capsys):
    assert command("table", tmp_path) == 0
    assert command("rescore", tmp_path) == 0
    assert studies.rescored == [tmp_path]
    assert capsys.readouterr().out.count("fed-medlora") == 2
    assert command("rescore", tmp_path, "--method", "fed-medlora+") == 0
    assert studies.rescored[-1] == (tmp_path, "fed-medlora+")


def test_unexpected_errors_tell_their_place_but_not_their_message(
    study_file, tmp_path, studies, capsys
):
    studies.error = RuntimeError("Mr. Smith was seen for chest pain")
    assert command("run", study_file, "--out", tmp_path / "run") == 1
    told = capsys.readouterr().err
    assert told.startswith("error: unexpected RuntimeError at fedmedlora/cli.py:")
    assert "Smith" not in told
    assert told.count("\n") == 1


def test_debug_lets_the_traceback_through(study_file, tmp_path, studies, monkeypatch):
    monkeypatch.setenv("FEDMEDLORA_DEBUG", "1")
    studies.error = ConfigError("sites: none")
    with pytest.raises(ConfigError):
        command("run", study_file, "--out", tmp_path / "run")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["score", "--gold", "{missing}", "--pred", "{gold}"], "no such file"),
        (["score", "--gold", "{empty_folder}", "--pred", "{gold}"], "the folder holds neither"),
        (["score", "--gold", "{binary}", "--pred", "{gold}"], "is not UTF-8"),
        (["score", "--gold", "{nul}", "--pred", "{gold}"], "NUL byte at byte 1"),
        (["score", "--gold", "{gold}", "--pred", "{empty}"], "the file is empty"),
        (["score", "--gold", "{gold}", "--pred", "{gold}", "--covers", "fever"], "--covers names"),
        (["score", "--gold", "{gold}", "--pred", "{gold}", "--covers", ","], "names nothing"),
        (["score", "--gold", "{gold}", "--pred", "{gold}", "--tasks", "re"], "--tasks 're' is not"),
        (["score", "--gold", "{gold}"], "Missing option '--pred'"),
        (["inspect", "{missing}"], "no such file or folder"),
        (["inspect", "{study}"], "no reader for the ending '.yaml'"),
        (["convert", "--from", "docx", "{gold}", "x"], "unknown format 'docx'"),
        (["convert", "--from", "brat", "--mapping", "mimic", "{gold}", "x"], "no mapping 'mimic'"),
        (
            ["convert", "--from", "brat", "--discontinuous", "all", "{gold}", "x"],
            "--discontinuous 'all' is not one of skip, cover, first, last",
        ),
        (["synthetic", "{folder}"], "is no empty folder"),
        (["synthetic", "{gold}/x"], "Not a directory"),
        (["run", "{missing}", "--out", "x"], "no such study file"),
        (["run", "{binary}", "--out", "x"], "cannot be read as UTF-8"),
        (["run", "{study}", "--out", "x", "--set", "seed"], "--set 'seed' is not of the form"),
        (["run", "{study}", "--out", "x", "--set", "sede=3"], "sede"),
        (["extract", "--adapter", "{missing}", "{gold}"], "there is no such folder"),
        (["extract", "--adapter", "{folder}", "{gold}"], "no task.json"),
        (["extract", "--adapter", "{folder}", "{gold}", "--format", "brat"], "give it with --out"),
        (["extract", "--adapter", "{folder}", "{gold}", "--format", "xml"], "not one of jsonl"),
        (["trian"], "No such command 'trian'"),
    ],
)
def test_bad_input_is_one_clear_line_and_exit_code_2(
    files, study_file, studies, capsys, monkeypatch, arguments, told
):
    monkeypatch.chdir(files)
    places = {
        "missing": files / "missing",
        "folder": files,
        "empty_folder": files / "empty folder",
        "gold": files / "gold.jsonl",
        "study": study_file,
    }
    places["empty_folder"].mkdir()
    for name, content in (("binary", b"\xff\xfe"), ("nul", b"{\0}"), ("empty", b"")):
        places[name] = files / f"{name}.jsonl"
        places[name].write_bytes(content)
    assert command(*(argument.format(**places) for argument in arguments)) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert told in printed.err
    assert printed.err.count("\n") == 1
    assert not (files / "x").exists()


def test_no_arguments_show_the_help(capsys):
    assert command() == 0
    assert "Usage: fedmedlora" in capsys.readouterr().out


def test_version_is_the_package_version(capsys):
    assert command("--version") == 0
    assert capsys.readouterr().out.strip()


def test_whoever_closes_the_pipe_early_sees_no_traceback(tmp_path):
    documents = [Document(f"d{i}", NOTE, (FEVER, ASPIRIN)) for i in range(3)]
    write_jsonl(documents, tmp_path / "gold.jsonl")
    gold = str(tmp_path / "gold.jsonl")
    process = subprocess.Popen(
        [sys.executable, "-m", "fedmedlora", "score", "--gold", gold, "--pred", gold, "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdout.close()
    told = process.stderr.read().decode()
    assert process.wait(timeout=60) == 1
    process.stderr.close()
    assert "Traceback" not in told
    assert "BrokenPipe" not in told


def commands(command, path=()):
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, (*path, name))


@pytest.mark.parametrize(
    ("path", "command"), list(commands(get_command(app))), ids=lambda one: "-".join(one)
    if isinstance(one, tuple) else "",
)  # fmt: skip
def test_help_says_what_every_argument_is_and_shows_no_markup(path, command, capsys):
    assert run_command([*path, "--help"]) == 0
    told = capsys.readouterr().out
    assert "\\" not in told
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            assert parameter.help
            assert parameter.help.split()[0] in told
