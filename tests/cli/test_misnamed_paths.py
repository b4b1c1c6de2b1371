"""Every path that a user may misname: nothing there, a file for a folder, a folder for a file.

All are exit code 2, one line and no traceback: 1 is for what fails while a command works.
"""

import shutil

import pytest

from fedmedlora.cli import run_command
from fedmedlora.corpus.jsonl import write_jsonl
from fedmedlora.federation.audit import AuditLog
from fedmedlora.schema import Document, Entity

STUDY = """
name: toy
methods: [fed-medlora]
sites:
  icu: {synthetic: {style: icu, train: 2, validation: 1, test: 1}}
  outpatient: {synthetic: {style: outpatient, train: 2, validation: 1, test: 1}}
"""
POLICY = """
name: toy
intended_use: none
sites: 1
"""
NOWHERE, FILE, FOLDER, BELOW = "nowhere", "notes.jsonl", "folder", "notes.jsonl/below"

#: A command line, with {} for what is misnamed; then the names that are wrong there.
CASES = {
    "convert {} out.jsonl --from jsonl": (NOWHERE, FOLDER, BELOW),
    "convert {} out.jsonl --from brat": (NOWHERE, FILE, BELOW),
    "convert notes.jsonl {} --from jsonl": (FOLDER, BELOW, "nowhere/out.jsonl"),
    "convert notes.jsonl {} --from jsonl --to brat": (FILE, BELOW),
    "convert notes.jsonl out.jsonl --from jsonl --mapping {}": (NOWHERE, FOLDER, BELOW),
    "inspect {}": (NOWHERE, FOLDER, BELOW),
    "inspect notes.jsonl --mapping {}": (NOWHERE, FOLDER),
    "score --gold {} --pred notes.jsonl": (NOWHERE, FOLDER, BELOW),
    "score --gold notes.jsonl --pred {}": (NOWHERE, FOLDER, BELOW),
    "estimate {}": (NOWHERE, FOLDER, BELOW),
    "run {} --out new": (NOWHERE, FOLDER, BELOW),
    "run study.yaml --out {}": (FILE, BELOW, "notes.jsonl/further/below", "full"),
    "table {}": (NOWHERE, FILE, FOLDER, BELOW),
    "rescore {}": (NOWHERE, FILE, FOLDER, BELOW),
    "rescore {} --method dictionary": (NOWHERE, FILE, FOLDER, BELOW),
    "report {}": (NOWHERE, FILE, FOLDER, BELOW),
    "leakage {}": (NOWHERE, FILE, FOLDER, BELOW),
    "release {} --policy policy.yaml": (NOWHERE, FILE, FOLDER, BELOW),
    "release folder --policy {}": (NOWHERE, FOLDER, BELOW),
    "verify {}": (NOWHERE, FILE, FOLDER, BELOW),
    "extract note.txt --adapter {}": (NOWHERE, FILE, FOLDER, BELOW),
    "extract note.txt --adapter folder --out {}": (FOLDER, BELOW, "nowhere/out.jsonl"),
    "synthetic {}": (FILE, BELOW, "full"),
    "federation init {} --host localhost --out new": (NOWHERE, FOLDER, BELOW),
    "federation init study.yaml --host localhost --out {}": (FILE, FOLDER, BELOW),
    "federation admit {} a.membership.json": (NOWHERE, FILE, FOLDER, BELOW, "a-run", "a-site"),
    "federation start {}": (NOWHERE, FILE, FOLDER, BELOW, "a-run", "a-site"),
    "federation status {}": (NOWHERE, FILE, FOLDER, BELOW, "a-run", "a-site"),
    "federation stop {}": (NOWHERE, FILE, FOLDER, BELOW, "a-run", "a-site"),
    "site audit {}": (NOWHERE, FOLDER, BELOW),
    "site audit {} --check": (NOWHERE, FOLDER, BELOW),
    "site audit audit.jsonl --against {}": (NOWHERE, FOLDER, BELOW, "audit.jsonl"),
    "site audit audit.jsonl --check --against {}": (NOWHERE, FOLDER, BELOW, "audit.jsonl"),
    "site audit audit.jsonl --key {}": (NOWHERE, FILE, FOLDER, BELOW),
    "site audit audit.jsonl --coordinator {}": (NOWHERE, FILE, FOLDER, BELOW),
    "site unpack {} --out new --key 00": (NOWHERE, FILE, FOLDER, BELOW),
    "site check {}": (NOWHERE, FOLDER, BELOW),
    "site start {}": (NOWHERE, FILE, FOLDER, BELOW),
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with one thing of each kind, in which the command is given."""
    monkeypatch.chdir(tmp_path)
    write_jsonl([Document("a", "No fever.", (Entity("T1", "problem", 3, 8),))], tmp_path / FILE)
    (tmp_path / "note.txt").write_text("No fever.")
    (tmp_path / "study.yaml").write_text(STUDY)
    (tmp_path / "policy.yaml").write_text(POLICY)
    for name in (FOLDER, "full", "a-run", "a-site"):
        (tmp_path / name).mkdir()
    (tmp_path / "full" / "mine").touch()
    # Both have a study file, as a coordinator's folder has.
    shutil.copy("study.yaml", "a-run")
    (tmp_path / "a-run" / "scores.json").write_text("[]")
    shutil.copy("study.yaml", "a-site")
    (tmp_path / "a-site" / "site.yaml").touch()
    AuditLog(tmp_path / "audit.jsonl", owner="icu", role="site").append("received", run="a")
    return tmp_path


@pytest.mark.parametrize(
    ("command", "name"), [(command, name) for command, names in CASES.items() for name in names]
)
def test_a_misnamed_path_is_bad_input_and_told_in_one_line(here, capsys, command, name):
    before = sorted(here.rglob("*"))
    assert run_command(command.format(name).split()) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("error: ")
    assert told.err.count("\n") == 1
    assert "unexpected" not in told.err
    assert sorted(here.rglob("*")) == before
