"""Brat folders: the stated rules, line by line, and that writing loses nothing."""

import tempfile
from pathlib import Path

import pytest
from corpus_strategies import document_lists
from hypothesis import given, settings

from fedmedlora.corpus.brat import read_brat, write_brat
from fedmedlora.errors import DataError
from fedmedlora.schema import Document, Entity, Relation

TEXT = "severe chest pain,\nno fever"


def folder_of(path: Path, ann: str, *, text: str = TEXT, name: str = "n1") -> Path:
    path.mkdir(exist_ok=True)
    (path / f"{name}.txt").write_bytes(text.encode())
    (path / f"{name}.ann").write_bytes(ann.encode())
    return path


def read_one(path: Path, ann: str, *, text: str = TEXT) -> Document:
    (document,), report = read_brat(folder_of(path, ann, text=text))
    assert report.balanced
    return document


@given(document_lists(at_least=0))
@settings(max_examples=150, deadline=None)
def test_written_documents_are_read_back_as_they_were(documents):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "out"
        write_brat(documents, path)
        found, report = read_brat(path)
        assert found == documents
        assert report.balanced
        assert report.spans.totals() == (n := sum(len(d.entities) for d in documents), n, 0)
        assert [p.name for p in Path(folder).iterdir()] == ["out"]


def test_spans_relations_and_order_are_those_of_the_file(tmp_path):
    ann = (
        "T2\tseverity 0 6\tsevere\n"
        "R1\tseverity Arg1:T1 Arg2:T2\t\n"  # points forward, and ends in a tab as brat's do
        "\n"
        "T1\tproblem 7 17\tchest pain\r\n"
    )
    assert read_one(tmp_path / "d", ann) == Document(
        id="n1",
        text=TEXT,
        entities=(Entity("T2", "severity", 0, 6), Entity("T1", "problem", 7, 17)),
        relations=(Relation("severity", "T1", "T2"),),
    )


def test_an_event_stands_for_its_trigger_in_relations(tmp_path):
    ann = (
        "T1\tproblem 7 17\tchest pain\n"
        "E1\tproblem:T1 Theme:T2\n"
        "T2\tseverity 0 6\tsevere\n"
        "R1\tseverity Arg1:E1 Arg2:T2\n"
    )
    (document,), report = read_brat(folder_of(tmp_path / "d", ann))
    assert document.relations == (Relation("severity", "T1", "T2"),)
    assert report.events == {"problem": 1}
    assert report.event_arguments == {"Theme": 1}


def test_what_the_data_model_cannot_hold_is_counted_by_type(tmp_path):
    ann = (
        "T1\tproblem 7 17\tchest pain\n"
        "A1\tNegation T1\n"
        "M1\tLevel T1 high\n"
        "#1\tAnnotatorNotes T1\twith a\ttab in it\n"
        "#2\tAnnotatorNotes T1\n"
        "*\tEquiv T1 T1\n"
        "N1\tReference T1 UMLS:C0008031\tChest Pain\n"
        "R1\tGroup A:T1 B:T1 C:T1\n"
    )
    (document,), report = read_brat(folder_of(tmp_path / "d", ann))
    assert document.relations == ()
    assert report.attributes == {"Negation": 1, "Level": 1}
    assert report.notes == {"AnnotatorNotes": 2}
    assert report.equivalences == {"Equiv": 1}
    assert report.normalizations == {"UMLS": 1}
    assert sum(report.relations.skipped.values()) == 1
    assert report.balanced


def test_fragments_with_only_line_breaks_between_are_one_span(tmp_path):
    document = read_one(tmp_path / "d", "T1\tx 13 18;19 21\tpain, no\n")
    assert document.entities == (Entity("T1", "x", 13, 21),)


@pytest.mark.parametrize(
    ("rule", "places"),
    [("skip", []), ("cover", [(0, 17)]), ("first", [(0, 6)]), ("last", [(13, 17)])],
)
def test_a_discontinuous_span_follows_the_rule_that_is_asked(tmp_path, rule, places):
    folder = folder_of(tmp_path / "d", "T1\tproblem 0 6;13 17\tsevere pain\n")
    (document,), report = read_brat(folder, discontinuous=rule)
    assert [(e.start, e.end) for e in document.entities] == places
    assert sum(report.discontinuous.values()) == 1
    assert report.balanced


def test_offsets_count_code_points_with_line_ends_as_they_are(tmp_path):
    text = "\U0001f9ec gene\r\n\tmild\tpain"
    document = read_one(tmp_path / "d", "T1\tproblem 9 18\tmild pain\n", text=text)
    assert document.text == text
    assert text[9:18] == "mild\tpain"


def test_offsets_in_utf16_units_are_refused(tmp_path):
    with pytest.raises(DataError, match="code points"):
        read_one(tmp_path / "d", "T1\tproblem 3 7\tgene\n", text="\U0001f9ec gene x")


def test_quoted_text_may_hold_tabs_and_other_white_space_than_the_text(tmp_path):
    ann = "T1\tx 0 4\ta\tb\nT2\tx 0 4\ta b\n"
    assert len(read_one(tmp_path / "d", ann, text="a\t\nb").entities) == 2


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("T2\tproblem 7 17\tchest  payne", "quoted text is not the text"),
        ("T2\tproblem 7 99\tchest", r"\[7, 99\)"),
        ("T2\tproblem -1 3\tse", r"\[-1, 3\)"),
        ("T2\tproblem 7 7\t", "START < END"),
        ("T2\tproblem 9 7\t", "START < END"),
        ("T2\tproblem 7 x\tchest", "well-formed T line"),
        ("T2\tproblem 7 17", "well-formed T line"),
        ("T2 problem 7 17 chest pain", "well-formed T line"),
        ("T1\tproblem 7 17\tchest pain", "'T1' is on an earlier line"),
        ("R1\tx Arg1:T1 Arg2:T9", "points to 'T9'"),
        ("R1\tx Arg1:T1 Arg2:E9", "points to 'E9'"),
        ("R1\tx Arg1:T1 Arg1:T1", "one role twice"),
        ("R1\tx T1 T1", "well-formed R line"),
        ("E1\tproblem:T9", "trigger 'T9'"),
        ("E1\tproblem", "well-formed E line"),
        ("A1\tNegation", "well-formed A line"),
        ("N1\tReference T1", "well-formed N line"),
        ("severe chest pain", "starts with none of"),
        (" T2\tproblem 7 17\tchest pain", "starts with none of"),
    ],
)
def test_a_broken_line_is_refused_with_its_place_and_without_its_text(tmp_path, line, said):
    folder = folder_of(tmp_path / "d", f"T1\tseverity 0 6\tsevere\n{line}\n")
    with pytest.raises(DataError, match=said) as caught:
        read_brat(folder)
    assert caught.value.line == 2
    assert caught.value.path == str(folder / "n1.ann")
    assert "chest" not in str(caught.value)


def test_a_folder_without_annotation_files_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"no \.ann file"):
        read_brat(tmp_path)
    with pytest.raises(DataError, match="not a folder"):
        read_brat(tmp_path / "none")


@pytest.mark.parametrize(("gone", "left"), [("txt", "ann"), ("ann", "txt")])
def test_half_of_a_document_is_refused(tmp_path, gone, left):
    folder = folder_of(tmp_path / "d", "")
    folder_of(folder, "", name="n2")
    (folder / f"n2.{gone}").unlink()
    with pytest.raises(DataError, match=rf"n2\.{left}: there is no \.{gone}"):
        read_brat(folder)


def test_bytes_that_are_no_text_are_refused_with_their_place(tmp_path):
    folder = folder_of(tmp_path / "d", "")
    (folder / "n1.txt").write_bytes(b"fine\ncaf\xe9")
    with pytest.raises(DataError, match=r"byte 8 \(0xe9\) is not UTF-8") as caught:
        read_brat(folder)
    assert caught.value.line == 2


def test_a_single_line_of_300_kilobytes_is_read(tmp_path):
    text = "chest pain " * 30_000
    end = len(text) - 1
    document = read_one(tmp_path / "d", f"T1\tproblem {end - 4} {end}\tpain\n", text=text)
    assert document.entities[0].end == end


def test_a_span_over_lines_is_written_as_one_fragment_a_line(tmp_path):
    document = Document("n1", TEXT, (Entity("T1", "x", 13, 21),))
    write_brat([document], tmp_path / "out")
    assert (tmp_path / "out/n1.ann").read_text() == "T1\tx 13 18;19 21\tpain, no\n"


def test_annotations_added_in_brat_join_those_that_were_written(tmp_path):
    document = Document("a/b", TEXT, (Entity("pain", "problem", 13, 17),), group="p1")
    write_brat([document], tmp_path / "out")
    (ann,) = (tmp_path / "out").glob("*.ann")
    ann.write_text(ann.read_text() + "T2\tseverity 0 6\tsevere\nR1\tseverity Arg1:T1 Arg2:T2\n")
    (found,), _ = read_brat(tmp_path / "out")
    assert (found.id, found.group) == ("a/b", "p1")
    assert [e.id for e in found.entities] == ["pain", "T2"]
    assert found.relations == (Relation("severity", "pain", "T2"),)


def test_a_document_that_the_sidecar_lists_must_be_there(tmp_path):
    write_brat([Document("n1", "x"), Document("n2", "x")], tmp_path / "out")
    for ending in ("ann", "txt"):
        (tmp_path / f"out/n2.{ending}").unlink()
    with pytest.raises(DataError, match="lists 'n2'"):
        read_brat(tmp_path / "out")


@pytest.mark.parametrize("content", ["{", "[]", '{"format": "other", "documents": []}'])
def test_a_broken_sidecar_is_refused(tmp_path, content):
    folder = folder_of(tmp_path / "d", "")
    (folder / "fedmedlora.json").write_text(content)
    with pytest.raises(DataError, match=r"fedmedlora\.json"):
        read_brat(folder)


def test_a_folder_that_holds_something_is_never_overwritten(tmp_path):
    (tmp_path / "out").mkdir()
    write_brat([Document("n1", "x")], tmp_path / "out")
    with pytest.raises(DataError, match="not an empty folder"):
        write_brat([Document("n2", "x")], tmp_path / "out")
    assert [d.id for d in read_brat(tmp_path / "out")[0]] == ["n1"]


@pytest.mark.parametrize(
    ("documents", "said"),
    [
        ([Document("n", "x"), Document("n", "y")], "two documents have the id 'n'"),
        ([Document("n", "x", (Entity("T1", "lab value", 0, 1),))], "'lab value' has a space"),
        ([Document("n", "a\0")], "NUL"),
    ],
)
def test_documents_that_brat_cannot_hold_leave_no_folder(tmp_path, documents, said):
    with pytest.raises(DataError, match=said):
        write_brat(documents, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_the_sidecar_that_the_page_shows_gives_notes_their_patient(tmp_path):
    page = (Path(__file__).parents[2] / "docs/formats.md").read_text(encoding="utf-8")
    blocks = [part.partition("```")[0] for part in page.split("```json\n")[1:]]
    [example] = [block for block in blocks if '"documents"' in block]
    for name in ("n1", "n2"):
        folder_of(tmp_path, "", name=name)
    (tmp_path / "fedmedlora.json").write_text(example, encoding="utf-8")
    documents, _ = read_brat(tmp_path)
    assert [(one.id, one.group) for one in documents] == [("n1", "patient-7"), ("n2", "patient-7")]
