"""The i2b2/VA 2010 format: words to characters, the stated rules, the shipped mapping."""

import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmedlora.corpus.i2b2_2010 import read_i2b2_2010, read_i2b2_2010_sources
from fedmedlora.corpus.mapping import load_mapping
from fedmedlora.corpus.read import read_documents
from fedmedlora.errors import DataError
from fedmedlora.schema import DEFAULT_SCHEME, Entity, Relation

TEXT = "HISTORY :\nNo Chest  Pain after aspirin .\n ECG was normal\n"
PAIN = 'c="chest pain" 2:1 2:2||t="problem"'
ASPIRIN = 'c="aspirin" 2:4 2:4||t="treatment"'
REL = 'c="aspirin" 2:4 2:4||r="TrIP"||c="chest pain" 2:1 2:2'


def release(path: Path, *, text: str = TEXT, name: str = "record-1", **files: str) -> Path:
    """A folder laid out as the release: a subfolder for each kind of file."""
    for ending, content in {"txt": text, "con": "", **files}.items():
        folder = path / {"con": "concept"}.get(ending, ending)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.{ending}").write_bytes(content.encode())
    return path


def spans_of(path: Path, con: str, *, text: str = TEXT) -> list[str]:
    (document,), report = read_i2b2_2010(release(path, text=text, con=con))
    assert report.balanced
    return [text[e.start : e.end] for e in document.entities]


def test_concepts_and_relations_are_found_at_their_words(tmp_path):
    folder = release(tmp_path, con=f"{PAIN}\r\n\n{ASPIRIN}\n", rel=f"{REL}\n")
    (document,), report = read_i2b2_2010(folder)
    assert (document.id, document.text) == ("record-1", TEXT)
    assert document.entities == (
        Entity("T1", "problem", 13, 24),
        Entity("T2", "treatment", 31, 38),
    )
    assert document.relations == (Relation("TrIP", "T2", "T1"),)
    assert report.balanced
    assert read_documents(folder) == [document]


def test_through_the_shipped_mapping_relations_and_assertions_are_counted(tmp_path):
    con = f'{PAIN}\n{ASPIRIN}\nc="ecg" 3:1 3:1||t="test"\nc="no" 2:0 2:0||t="pronoun"\n'
    ast = 'c="chest pain" 2:1 2:2||t="problem"||a="absent"\n'
    folder = release(tmp_path, con=con, rel=f"{REL}\n", ast=ast)
    mapping = load_mapping("i2b2-2010", scheme=DEFAULT_SCHEME)
    (document,), report = read_i2b2_2010(folder, mapping)
    assert [(e.type, TEXT[e.start : e.end]) for e in document.entities] == [
        ("problem", "Chest  Pain"),
        ("treatment", "aspirin"),
        ("test", "ECG"),
    ]
    assert document.relations == ()
    assert document.covers == {"problem", "treatment", "test"}
    assert report.spans.skipped == {("unmapped type", "pronoun"): 1}
    assert report.relations.skipped == {("unmapped type", "TrIP"): 1}
    assert report.attributes == {"assertion absent": 1}
    assert report.repairs == {}
    assert report.balanced


def test_an_assertion_at_a_place_without_concept_is_counted(tmp_path):
    ast = 'c="pain" 2:2 2:2||t="problem"||a="associated_with_someone_else"'
    _, report = read_i2b2_2010(release(tmp_path, con=PAIN, ast=ast))
    assert report.attributes == {"assertion associated_with_someone_else": 1}
    assert report.repairs == {"assertion at a place where no concept is": 1}


def test_an_indented_line_begins_with_an_empty_word_unless_the_text_says_otherwise(tmp_path):
    (document,), report = read_i2b2_2010(
        release(
            tmp_path,
            text="a\n  mild pain",
            con='c="mild" 2:1 2:1||t="x"\nc="pain" 2:1 2:1||t="y"\nc="mild pain" 2:0 2:1||t="z"',
        )
    )
    # 2:0 to 2:1 is " mild" with the empty word, "mild pain" without
    assert [(e.type, e.start, e.end) for e in document.entities] == [
        ("x", 4, 8),
        ("y", 9, 13),
        ("z", 4, 13),
    ]
    assert report.repairs == {"words counted without the empty one of a line that is indented": 2}


def test_a_concept_over_lines_is_one_span(tmp_path):
    assert spans_of(tmp_path, 'c="chest pain" 1:1 2:0||t="x"', text="no chest \npain") == [
        "chest \npain"
    ]


def test_places_are_exact_among_tabs_line_ends_and_wide_characters(tmp_path):
    text = "\U0001f9ec\tGène\u00a0x  ok\r\n\r\nmild\tpain\r\n"
    con = 'c="gène\u00a0x" 1:1 1:1||t="a"\nc="mild pain" 3:0 3:1||t="b"\nc="ok" 1:2 1:2||t="c"'
    assert spans_of(tmp_path, con, text=text) == ["Gène\u00a0x", "mild\tpain", "ok"]


def test_quotation_marks_and_bars_may_stand_in_a_text(tmp_path):
    text = 'the "so called" a||b'
    con = 'c="the "so called"" 1:0 1:2||t="x"\nc="a||b" 1:3 1:3||t="x"'
    assert spans_of(tmp_path, con, text=text) == ['the "so called"', "a||b"]


def test_a_concept_whose_text_is_elsewhere_is_skipped_with_its_relations(tmp_path):
    con = f'{PAIN}\n{ASPIRIN}\nc="normal" 3:1 3:1||t="problem"\n'
    rel = 'c="aspirin" 2:4 2:4||r="TrIP"||c="normal" 3:1 3:1'
    (document,), report = read_i2b2_2010(release(tmp_path, con=con, rel=rel))
    assert [e.id for e in document.entities] == ["T1", "T2"]
    assert report.spans.skipped == {("its text is not at its place", "problem"): 1}
    assert report.relations.skipped == {("an end was skipped", "TrIP"): 1}
    assert report.balanced


def test_a_file_of_which_most_texts_are_elsewhere_is_refused(tmp_path):
    con = f'{PAIN}\nc="pain" 2:1 2:1||t="x"\nc="normal" 3:1 3:1||t="x"\n'
    with pytest.raises(DataError, match="for 2 of 3 spans") as caught:
        read_i2b2_2010(release(tmp_path, con=con))
    assert caught.value.line == 2


@pytest.mark.parametrize(
    ("ending", "line", "said"),
    [
        ("con", 'c="pain" 2:1||t="x"', "not of the form c="),
        ("con", 'c="pain" 2:1 2:1||t=""', "not of the form c="),
        ("con", "pain 2:1 2:1 problem", "not of the form c="),
        ("con", 'c="pain" 9:0 9:0||t="x"', "9:0 9:0 is outside a text of 4 lines"),
        ("con", 'c="pain" 0:0 0:0||t="x"', "0:0 0:0 is outside a text of 4 lines"),
        ("con", 'c="pain" 2:4 2:6||t="x"', "2:4 2:6 is outside line 2, which has 6 words"),
        ("con", 'c="pain" 4:0 4:0||t="x"', "outside line 4, which has 0 words"),
        ("con", 'c="pain" 2:2 2:1||t="x"', "ends before it begins"),
        ("con", f'c="pain" {"9" * 5000}:1 2:1||t="x"', "not of the form c="),
        ("ast", 'c="pain" 2:1 2:1||t="problem"', "not of the form c="),
        ("rel", 'c="pain" 2:1 2:1||r="PIP"', "not of the form c="),
        ("rel", REL.replace("2:4 2:4", "2:5 2:5"), "Arg1 is at 2:5 2:5, where the .con has no"),
        ("rel", REL.replace("2:1 2:2", "2:2 2:2"), "Arg2 is at 2:2 2:2, where the .con has no"),
    ],
)
def test_a_broken_line_is_refused_with_its_place_and_without_its_text(tmp_path, ending, line, said):
    files = {"con": f"{PAIN}\n{ASPIRIN}\n", "rel": "", "ast": ""}
    number = files[ending].count("\n") + 1
    files[ending] += f"{line}\n"
    with pytest.raises(DataError, match=re.escape(said)) as caught:
        read_i2b2_2010(release(tmp_path, **files))
    assert caught.value.line == number
    assert caught.value.path is not None
    assert caught.value.path.endswith(f"record-1.{ending}")
    assert "pain" not in str(caught.value)


@pytest.mark.parametrize(("gone", "left"), [("txt/a.txt", "a.con"), ("concept/a.con", "a.txt")])
def test_half_of_a_document_is_refused(tmp_path, gone, left):
    release(tmp_path)
    release(tmp_path, name="a")
    (tmp_path / gone).unlink()
    with pytest.raises(DataError, match=f"{re.escape(left)}: there is no"):
        read_i2b2_2010(tmp_path)


def test_a_folder_without_concepts_and_two_files_of_one_name_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"no \.con file"):
        read_i2b2_2010(tmp_path)
    with pytest.raises(DataError, match="not a folder"):
        read_i2b2_2010(tmp_path / "none")
    release(tmp_path / "beth")
    release(tmp_path / "partners")
    with pytest.raises(DataError, match=r"record-1\.con has the same name"):
        read_i2b2_2010(tmp_path)


def test_hidden_files_of_an_archive_are_passed_over(tmp_path):
    release(tmp_path, con=PAIN)
    release(tmp_path / "__MACOSX", name="._record-1")
    assert [s.id for s in read_i2b2_2010_sources(tmp_path)] == ["record-1"]


_PIECES = st.sampled_from(
    ["a", "bc", "é", "\U0001f9ec", '"', "||", ".", " ", "  ", "\t", "\n", "\r\n"]
)


@given(st.lists(_PIECES, max_size=40).map("".join), st.data())
@settings(max_examples=200, deadline=None)
def test_any_words_written_as_the_format_counts_them_are_found_again(text, data):
    # the same count by another way: each line cut at white space, as the release was made
    places = {}
    start = 0
    for number, line in enumerate(text.split("\n"), start=1):
        at = start
        for index, word in enumerate(re.split(r"[ \t\r]+", line) if line.strip() else []):
            if word:
                at = text.index(word, at)
                places[at, at + len(word)] = (number, index)
                at += len(word)
        start += len(line) + 1
    if not places:
        return
    words = sorted(places)
    wanted = []
    for _ in range(data.draw(st.integers(1, 4))):
        first = data.draw(st.integers(0, len(words) - 1))
        last = data.draw(st.integers(first, len(words) - 1))
        wanted.append((words[first][0], words[last][1], places[words[first]], places[words[last]]))
    con = "".join(
        'c="{}" {}:{} {}:{}||t="x"\n'.format(" ".join(text[a:b].lower().split()), *first, *last)
        for a, b, first, last in wanted
    )
    with tempfile.TemporaryDirectory() as folder:
        (source,) = read_i2b2_2010_sources(release(Path(folder), text=text, con=con))
    assert [s.fragments for s in source.spans] == [((a, b),) for a, b, _, _ in wanted]
