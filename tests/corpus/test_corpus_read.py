"""A study's data files: the reader by what the path is, the splits, and conversion."""

import json

import pytest

from fedmedlora.corpus.brat import read_brat, write_brat
from fedmedlora.corpus.convert import convert
from fedmedlora.corpus.jsonl import read_jsonl, write_jsonl
from fedmedlora.corpus.read import check_splits, read_documents
from fedmedlora.errors import ConfigError, DataError
from fedmedlora.schema import Document, Entity

NOTE = Document("n1", "chest pain", (Entity("T1", "problem", 0, 10),))
BOTH = frozenset({"problem", "drug"})


def test_each_format_is_read_by_its_ending(tmp_path):
    write_jsonl([NOTE], tmp_path / "a.jsonl")
    write_brat([NOTE], tmp_path / "brat")
    tagged = "chest\tB-problem\npain\tI-problem\n"
    for name in ("n1.iob", "n1.bio", "n1.tsv", "n1.conll", "n1.BIO"):
        (tmp_path / name).write_text(tagged)
    html = '<span class="problem">chest pain</span>'
    (tmp_path / "n.json").write_text(json.dumps([{"tokens": [], "tags": [], "html": html}]))
    names = ["a.jsonl", "brat", "n1.iob", "n1.bio", "n1.tsv", "n1.conll", "n1.BIO", "n.json"]
    for name in names:
        (document,) = read_documents(tmp_path / name, covers=BOTH)
        assert (document.text, document.covers) == (NOTE.text, BOTH), name
        assert document.entities == NOTE.entities, name


def test_a_folder_of_files_is_read_in_order_and_refuses_an_id_twice(tmp_path):
    for name in ("b", "a"):
        write_jsonl([Document(name, "x")], tmp_path / f"{name}.jsonl")
    assert [d.id for d in read_documents(tmp_path)] == ["a", "b"]
    write_jsonl([Document("a", "y")], tmp_path / "c.jsonl")
    with pytest.raises(DataError, match=r"c\.jsonl: document id 'a' is in a\.jsonl already"):
        read_documents(tmp_path)


def test_what_no_reader_knows_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(DataError, match=r"no reader for the ending '\.txt'"):
        read_documents(tmp_path / "a.txt")
    with pytest.raises(DataError, match="holds neither"):
        read_documents(tmp_path)
    with pytest.raises(DataError, match="no such file or folder"):
        read_documents(tmp_path / "none")


def test_splits_without_a_common_id_or_group_pass():
    check_splits(
        {
            "train": [Document("a", "x", group="p1"), Document("b", "x", group="p1")],
            "test": [Document("c", "x", group="p2"), Document("d", "x")],
        }
    )


@pytest.mark.parametrize(
    ("train", "test", "said"),
    [
        ([Document("a", "x")], [Document("a", "y")], "'a' is in both train and test"),
        (
            [Document("a", "x", group="p1")],
            [Document("b", "y", group="p1")],
            "group 'p1' is in both train and test .there by document 'b'.",
        ),
        ([Document("a", "x"), Document("a", "y")], [], "'a' is in train twice"),
    ],
)
def test_a_document_or_group_in_two_splits_is_refused(train, test, said):
    with pytest.raises(DataError, match=said):
        check_splits({"train": train, "validation": [], "test": test})


def test_conversion_there_and_back_loses_nothing(tmp_path):
    write_jsonl([NOTE, Document("n0", "y", group="g", covers=BOTH)], tmp_path / "a.jsonl")
    report = convert(tmp_path / "a.jsonl", tmp_path / "b", from_format="jsonl", to_format="brat")
    assert report.spans.totals() == (1, 1, 0)
    convert(tmp_path / "b", tmp_path / "c.jsonl", from_format="brat", to_format="jsonl")
    assert (tmp_path / "c.jsonl").read_bytes() == (tmp_path / "a.jsonl").read_bytes()


def test_conversion_through_a_mapping_file_maps_and_counts(tmp_path):
    write_brat([NOTE], tmp_path / "brat")
    mapping = tmp_path / "m.yaml"
    mapping.write_text("entities: {drug: drug}\ncovers: [drug]\n")
    report = convert(
        tmp_path / "brat",
        tmp_path / "out.jsonl",
        from_format="brat",
        to_format="jsonl",
        mapping=mapping,
    )
    assert report.spans.skipped == {("unmapped type", "problem"): 1}
    assert read_jsonl(tmp_path / "out.jsonl") == [
        Document("n1", "chest pain", covers=frozenset({"drug"}))
    ]
    assert read_brat(tmp_path / "brat")[0] == [NOTE]


@pytest.mark.parametrize(("there", "back"), [("bratt", "jsonl"), ("jsonl", "iob")])
def test_an_unknown_format_is_refused_with_the_known_ones(tmp_path, there, back):
    with pytest.raises(ConfigError, match="use one of jsonl, brat"):
        convert(tmp_path, tmp_path / "o", from_format=there, to_format=back)
