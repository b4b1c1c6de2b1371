"""Neutral JSONL: what is read, what is refused, and that writing loses nothing."""

import errno
import json
import os
import tempfile
from pathlib import Path

import pytest
from corpus_strategies import document_lists
from hypothesis import given, settings

from fedmedlora.corpus.jsonl import read_jsonl, write_jsonl
from fedmedlora.errors import DataError
from fedmedlora.schema import Document, Entity, Relation

GOOD = {
    "id": "n1",
    "text": "severe pain",
    "entities": [
        {"id": "T1", "type": "problem", "start": 7, "end": 11},
        {"id": "T2", "type": "severity", "start": 0, "end": 6},
    ],
    "relations": [{"type": "severity", "head": "T1", "tail": "T2"}],
}


def write(path: Path, *records: object) -> Path:
    path.write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
    return path


def test_a_record_becomes_the_document_it_says(tmp_path):
    (document,) = read_jsonl(write(tmp_path / "a.jsonl", GOOD))
    assert document == Document(
        id="n1",
        text="severe pain",
        entities=(Entity("T1", "problem", 7, 11), Entity("T2", "severity", 0, 6)),
        relations=(Relation("severity", "T1", "T2"),),
    )


def test_covers_of_the_record_wins_over_covers_of_the_caller(tmp_path):
    path = write(tmp_path / "a.jsonl", GOOD, GOOD | {"id": "n2", "covers": ["drug"]})
    covers = [d.covers for d in read_jsonl(path, covers=frozenset({"problem"}))]
    assert covers == [frozenset({"problem"}), frozenset({"drug"})]


@given(document_lists())
@settings(max_examples=150, deadline=None)
def test_written_documents_are_read_back_as_they_were(documents):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.jsonl"
        write_jsonl(documents, path)
        assert read_jsonl(path) == documents
        assert [p.name for p in Path(folder).iterdir()] == ["a.jsonl"]


def spoiled(**changes: object) -> dict[str, object]:
    return {k: v for k, v in (GOOD | changes).items() if v != "drop"}


ENTITY = {"id": "T1", "type": "problem", "start": 7, "end": 11}


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (spoiled(entities="drop"), "'entities' is missing"),
        (spoiled(text="drop"), "'text' is missing"),
        (spoiled(text=3), "'text' must be a string, not an integer"),
        (spoiled(id=""), "'id' must be a non-empty string"),
        (spoiled(text=None), "not null"),
        (spoiled(realtions=[]), "unknown key 'realtions'"),
        (spoiled(entities=[ENTITY | {"note": 1}], relations=[]), "unknown key 'note'"),
        (spoiled(entities=[ENTITY | {"end": 12}], relations=[]), r"\[7, 12\)"),
        (spoiled(entities=[ENTITY | {"end": 7}], relations=[]), r"\[7, 7\)"),
        (spoiled(entities=[ENTITY | {"start": -1}], relations=[]), r"\[-1, 11\)"),
        (spoiled(entities=[ENTITY | {"start": 7.0}], relations=[]), "an integer, not a number"),
        (spoiled(entities=[ENTITY | {"start": True}], relations=[]), "not true or false"),
        (spoiled(entities=[ENTITY, ENTITY], relations=[]), "'T1' occurs twice"),
        (spoiled(entities=["T1"], relations=[]), "entity 1: must be an object"),
        (spoiled(relations=[{"type": "x", "head": "T1", "tail": "T9"}]), "points to 'T9'"),
        (spoiled(covers="problem"), "'covers' must be a list"),
        (spoiled(covers=[1]), "'covers' must be a list of type names"),
        (spoiled(group=7), "'group' must be a string"),
        (spoiled(text="a\0b", entities=[], relations=[]), "NUL"),
        (spoiled(text="a\ud800", entities=[], relations=[]), "surrogate"),
        (GOOD, "used on line 1 already"),
        ([GOOD], "not an object"),
    ],
)
def test_a_broken_record_is_refused_with_its_line(tmp_path, record, said):
    path = write(tmp_path / "a.jsonl", GOOD, record)
    with pytest.raises(DataError, match=said) as caught:
        read_jsonl(path)
    assert caught.value.line == 2
    assert str(caught.value).startswith(f"{path}:2: ")
    assert "pain" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "line", "said"),
    [
        (b"", None, "no document"),
        (b"\n \n", None, "no document"),
        (b'{"id": "n1"\n', 1, "not JSON"),
        (b'\n{"id": "n1", "id": "n2"}\n', 2, "a key occurs twice"),
        (b"\n" + b"[" * 100_000, 2, "nested too deep"),
        (b'{"id": "caf\xe9"}', 1, "byte 11 .0xe9. is not UTF-8"),
        (b'{}\n{"id": "\0"}', 2, "NUL byte at byte 11"),
        ('{"id": "n1"}'.encode("utf-16"), 1, "not UTF-8|NUL"),
    ],
)
def test_a_file_that_is_no_jsonl_is_refused(tmp_path, content, line, said):
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=said) as caught:
        read_jsonl(path)
    assert caught.value.line == line


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_jsonl(tmp_path / "none.jsonl")
    with pytest.raises(DataError, match="cannot be read"):
        read_jsonl(tmp_path)


def test_line_ends_and_tabs_inside_a_text_keep_its_offsets(tmp_path):
    text = "a\r\nb\tc\u2028\U0001f9ecd"
    record = {"id": "n", "text": text, "entities": [], "relations": []}
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(record, ensure_ascii=False).encode() + b"\r\n")
    (document,) = read_jsonl(path)
    assert document.text == text
    assert len(document.text) == 9


def test_a_single_line_of_300_kilobytes_is_read_and_written(tmp_path):
    text = "chest pain " * 30_000
    document = Document("long", text, (Entity("T1", "problem", len(text) - 5, len(text) - 1),))
    write_jsonl([document], tmp_path / "a.jsonl")
    assert read_jsonl(tmp_path / "a.jsonl") == [document]


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.jsonl"
    write_jsonl([Document("old", "old")], path)
    with pytest.raises(DataError, match="surrogate"):
        write_jsonl([Document("new", "\ud800")], path)
    assert [d.id for d in read_jsonl(path)] == ["old"]
    assert [p.name for p in tmp_path.iterdir()] == ["a.jsonl"]


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.jsonl"
    write_jsonl([Document("old", "old")], path)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match="No space left"):
        write_jsonl([Document("new", "new")], path)
    assert [d.id for d in read_jsonl(path)] == ["old"]
    assert [p.name for p in tmp_path.iterdir()] == ["a.jsonl"]


def test_a_path_that_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(DataError, match="cannot be written"):
        write_jsonl([Document("n", "x")], tmp_path / "none" / "a.jsonl")
