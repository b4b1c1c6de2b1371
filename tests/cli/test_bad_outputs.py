"""Places that cannot be written to: refused before the work, and what was there stays."""

import os
import sys

import pytest

from fedmedlora.cli import run_command
from fedmedlora.corpus.files import write_text
from fedmedlora.corpus.jsonl import read_jsonl, write_jsonl
from fedmedlora.errors import DataError
from fedmedlora.schema import Document, Entity

GOLD = Document("a", "No fever.", (Entity("T1", "problem", 3, 8),))


@pytest.fixture
def gold(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_jsonl([GOLD], tmp_path / "gold.jsonl")
    return tmp_path / "gold.jsonl"


def convert(*arguments):
    return run_command(["convert", "--from", "jsonl", "gold.jsonl", *arguments])


@pytest.mark.parametrize(
    ("out", "told"),
    [
        (["."], "is a folder"),
        ([""], "is a folder"),
        (["no/such/out.jsonl"], "there is no such folder"),
        (["gold.jsonl/out.jsonl"], "there is no such folder"),
        (["gold.jsonl"], "is what is to be read"),
        (["link.jsonl"], "is what is to be read"),
        (["round.jsonl"], "links go round"),
        (["gold.jsonl/out", "--to", "brat"], "is no folder"),
        (["other", "--to", "brat"], "is not an empty folder"),
    ],
)
def test_a_place_that_cannot_be_written_is_refused(gold, capsys, out, told):
    (gold.parent / "link.jsonl").symlink_to(gold)
    (gold.parent / "round.jsonl").symlink_to("round.jsonl")
    (gold.parent / "other").write_text("mine")
    before = sorted(gold.parent.iterdir())
    assert convert(*out) == 2
    err = capsys.readouterr().err
    assert told in err
    assert err.count("\n") == 1
    assert sorted(gold.parent.iterdir()) == before
    assert read_jsonl(gold) == [GOLD]
    assert (gold.parent / "other").read_text() == "mine"


def test_a_link_stays_a_link_and_its_target_is_replaced(gold):
    (gold.parent / "target.jsonl").write_text("old")
    (gold.parent / "link.jsonl").symlink_to("target.jsonl")
    assert convert("link.jsonl") == 0
    assert (gold.parent / "link.jsonl").is_symlink()
    assert read_jsonl(gold.parent / "target.jsonl") == [GOLD]


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such files")
def test_a_pipe_or_device_is_not_replaced_by_a_file(gold):
    os.mkfifo("pipe")
    assert convert("pipe") == 2
    assert (gold.parent / "pipe").is_fifo()


def test_a_name_as_long_as_names_may_be_is_written(gold):
    name = "😀" * 62 + ".jsonl"
    assert convert(name) == 0
    assert read_jsonl(gold.parent / name) == [GOLD]


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.write_text("old")

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match="No space left on device"):
        write_text(file, "new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert file.read_text() == "old"


def test_brat_files_whose_names_are_not_utf8_are_refused(gold, capsys):
    try:
        for ending in (".txt", ".ann"):
            with open(b"caf\xe9" + ending.encode(), "w"):  # noqa: PTH123
                pass
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    assert run_command(["inspect", "."]) == 2
    assert "not UTF-8" in capsys.readouterr().err
