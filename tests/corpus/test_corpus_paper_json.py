"""The paper's NER JSON: the html leads, the tags stand in, and both must agree on the text."""

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmedlora.corpus.paper_json import read_paper_json
from fedmedlora.errors import DataError

RECORD = {
    "tokens": ["No", "chest", "pain", "."],
    "tags": ["O", "B-problem", "I-problem", "O"],
    "html": 'No <span class="problem">chest pain</span>.',
}


def read(path: Path, content: object):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return read_paper_json(path)


def marked(document):
    return [(e.type, document.text[e.start : e.end]) for e in document.entities]


def test_the_text_is_the_html_without_its_marks(tmp_path):
    (document,), report = read(tmp_path / "ner.json", [RECORD])
    assert (document.id, document.text) == ("ner-1", "No chest pain.")
    assert marked(document) == [("problem", "chest pain")]
    assert report.repairs == {}


def test_the_html_leads_where_only_first_tokens_are_tagged(tmp_path):
    record = RECORD | {"tags": ["O", "B-problem", "O", "O"]}
    (document,), report = read(tmp_path / "ner.json", [record])
    assert marked(document) == [("problem", "chest pain")]
    assert report.repairs == {"html taken where the tags say otherwise": 1}


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        (["No", "chest", "pain"], "No chest pain"),
        (["No", " ", "chest", "-", "pain"], "No chest-pain"),
    ],
)
def test_without_html_the_text_is_rebuilt_from_tokens(tmp_path, tokens, text):
    tags = ["O"] * (len(tokens) - 1) + ["B-problem"]
    (document,), _ = read(tmp_path / "ner.json", [{"tokens": tokens, "tags": tags, "html": ""}])
    assert document.text == text
    assert marked(document) == [("problem", "pain")]


def test_marks_can_nest_and_other_angle_brackets_are_text(tmp_path):
    html = 'BP < 90 & <b> <span class="test">a <span class="drug">b</span></span>'
    (document,), _ = read(tmp_path / "ner.json", [{"tokens": [], "tags": [], "html": html}])
    assert document.text == "BP < 90 & <b> a b"
    assert marked(document) == [("test", "a b"), ("drug", "b")]


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (RECORD | {"tags": ["O"]}, "4 tokens but 1 tags"),
        (RECORD | {"tokens": ["No", "chest", "pains", "."]}, "tokens are not the text"),
        (RECORD | {"html": "No chest pain.</span>"}, "closes nothing"),
        (RECORD | {"html": 'No <span class="problem">chest pain.'}, "never closed"),
        (RECORD | {"html": 'No <span class="x"></span>chest pain.'}, "is empty"),
        (RECORD | {"html": 3}, "'html' must be a string"),
        (RECORD | {"tags": ["O", "problem", "O", "O"]}, "tag 2 is none"),
        (RECORD | {"tokens": "No chest pain ."}, "'tokens' must be a list of strings"),
        ({"tokens": ["a"]}, "'tags' must be a list"),
        ({"tokens": [], "tags": [], "html": ""}, "no text"),
        ({"tokens": ["a", ""], "tags": ["O", "B-x"], "html": ""}, "tagged token is empty"),
        ("No chest pain", "must be an object"),
    ],
)
def test_a_broken_record_is_refused_with_its_number_and_without_its_text(tmp_path, record, said):
    with pytest.raises(DataError, match=f"record 2: .*{said}") as caught:
        read(tmp_path / "ner.json", [RECORD, record])
    assert "chest" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [("[]", "list is empty"), ("{}", "must be a list"), ("[\n{", ":2: not JSON"), ("", "not JSON")],
)
def test_a_file_of_another_form_is_refused(tmp_path, content, said):
    with pytest.raises(DataError, match=said):
        read(tmp_path / "ner.json", content)


@given(
    st.lists(
        st.tuples(st.sampled_from(["", "x", "y"]), st.text("a <>&7\n", min_size=1, max_size=6)),
        min_size=1,
        max_size=6,
    )
)
@settings(max_examples=100, deadline=None)
def test_marked_up_pieces_are_found_again(pieces):
    html = "".join(f'<span class="{k}">{piece}</span>' if k else piece for k, piece in pieces)
    with tempfile.TemporaryDirectory() as folder:
        (document,), _ = read(Path(folder) / "f.json", [{"tokens": [], "tags": [], "html": html}])
    assert document.text == "".join(piece for _, piece in pieces)
    assert marked(document) == [(kind, piece) for kind, piece in pieces if kind]
