"""Tagged files: the text that is rebuilt, where documents start, and what the tags mean."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmedlora.corpus.iob import read_iob
from fedmedlora.errors import DataError
from fedmedlora.schema import Entity


def read(path: Path, content: str, **settings: str):
    path.write_bytes(content.encode())
    return read_iob(path, **settings)


def marked(document):
    return [(e.type, document.text[e.start : e.end]) for e in document.entities]


def test_tokens_are_joined_by_spaces_and_sentences_by_line_breaks(tmp_path):
    content = (
        "severe\tB-severity\nchest\tB-problem\npain\tI-problem\n\n\nNo\tO\r\nfever\tB-problem\r\n"
    )
    (document,), report = read(tmp_path / "note7.bio", content)
    assert document.id == "note7"
    assert document.text == "severe chest pain\nNo fever"
    assert document.entities == (
        Entity("T1", "severity", 0, 6),
        Entity("T2", "problem", 7, 17),
        Entity("T3", "problem", 21, 26),
    )
    assert report.repairs == {}
    assert report.balanced


def test_docstart_lines_part_documents(tmp_path):
    content = "-DOCSTART-\tO\n\na\tB-x\n\nb\tO\n\n-DOCSTART- -X- O O\nc\tB-x\n"
    documents, _ = read(tmp_path / "f.iob", content)
    assert [(d.id, d.text) for d in documents] == [("f-1", "a\nb"), ("f-2", "c")]


def test_blank_lines_part_documents_where_asked(tmp_path):
    documents, _ = read(tmp_path / "f.iob", "a\tO\n\n\nb\tO\n\n", blank_line="document")
    assert [(d.id, d.text) for d in documents] == [("f-1", "a"), ("f-2", "b")]


@pytest.mark.parametrize(
    ("tags", "spans", "repairs"),
    [
        ("B-x I-x O", [("x", "0 1")], 0),
        ("B-x B-x O", [("x", "0"), ("x", "1")], 0),
        ("I-x I-x O", [("x", "0 1")], 1),  # IOB1
        ("I-x B-x O", [("x", "0"), ("x", "1")], 1),
        ("B-x I-y I-y", [("x", "0"), ("y", "1 2")], 1),
        ("B-x I-x E-x", [("x", "0 1 2")], 0),  # BIOES
        ("S-x S-x E-x", [("x", "0"), ("x", "1"), ("x", "2")], 1),
        ("B-x L-x U-x", [("x", "0 1"), ("x", "2")], 0),  # BILOU
        ("O O B-x", [("x", "2")], 0),
    ],
)
def test_tags_mean_spans_by_the_stated_rules(tmp_path, tags, spans, repairs):
    content = "".join(f"{n}\t{tag}\n" for n, tag in enumerate(tags.split()))
    (document,), report = read(tmp_path / "f.iob", content)
    assert marked(document) == spans
    assert sum(report.repairs.values()) == repairs


def test_no_span_goes_over_the_end_of_a_sentence(tmp_path):
    (document,), _ = read(tmp_path / "f.iob", "a\tB-x\n\nb\tI-x\n")
    assert marked(document) == [("x", "a"), ("x", "b")]


@pytest.mark.parametrize(
    ("content", "line", "said"),
    [
        ("a\tO\nb O\n", 2, "1 cells"),
        ("a\tNN\tO\n", 1, "3 cells"),
        ("\tO\n", 1, "token<TAB>tag"),
        ("a\tX-problem\n", 1, "no tag"),
        ("a\tB-\n", 1, "no tag"),
        ("", None, "no token"),
        ("\n\n", None, "no token"),
        ("-DOCSTART-\tO\n", None, "no token"),
        ("-DOCSTART-\tO\n\n-DOCSTART-\tO\na\tO\n", 3, "no tokens"),
        ("a\tO\nb\0\tO\n", 2, "NUL"),
    ],
)
def test_a_file_that_is_not_tagged_tokens_is_refused_with_its_line(tmp_path, content, line, said):
    with pytest.raises(DataError, match=said) as caught:
        read(tmp_path / "f.iob", content)
    assert caught.value.line == line


_words = st.text(st.sampled_from("aB7.é\U0001f9ec"), min_size=1, max_size=4)
_spans = st.lists(
    st.tuples(st.sampled_from(["", "x", "y"]), st.lists(_words, min_size=1, max_size=3)),
    min_size=1,
    max_size=5,
)


@given(st.lists(_spans, min_size=1, max_size=4))
@settings(max_examples=100, deadline=None)
def test_tagged_spans_are_found_again_in_the_rebuilt_text(sentences):
    lines, expected = [], []
    for sentence in sentences:
        for kind, words in sentence:
            tags = ["O" if not kind else f"{'I' if n else 'B'}-{kind}" for n in range(len(words))]
            lines += [f"{word}\t{tag}" for word, tag in zip(words, tags, strict=True)]
            expected += [(kind, " ".join(words))] if kind else []
        lines.append("")
    with tempfile.TemporaryDirectory() as folder:
        (document,), report = read(Path(folder) / "f.iob", "\n".join(lines))
    assert marked(document) == expected
    assert report.spans.totals() == (len(expected), len(expected), 0)
    assert document.text.count("\n") == len(sentences) - 1
