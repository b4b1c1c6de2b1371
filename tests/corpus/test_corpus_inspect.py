"""Inspection: every count on documents small enough to count by hand."""

from fedmedlora.corpus.inspect import as_rows, inspect_documents
from fedmedlora.schema import DEFAULT_SCHEME, Document, Entity, Relation

DOCUMENTS = [
    Document(
        id="n1",
        text="severe chest pain,\nno fever",
        entities=(
            Entity("T1", "problem", 7, 17),
            Entity("T2", "severity", 0, 6),
            Entity("T3", "problem", 13, 21),  # over the line break, crosses T1
            Entity("T4", "drug", 23, 27),  # "ever": starts inside a word
            Entity("T5", "bodyloc", 6, 12),  # " chest": crosses T1
            Entity("T6", "finding", 0, 6),  # not in the scheme, same place as T2
        ),
        relations=(
            Relation("severity", "T1", "T2"),
            Relation("severity", "T1", "T2"),
            Relation("severity", "T4", "T5"),  # drugs take no bodyloc, and that is no severity
        ),
        group="p1",
        covers=frozenset({"problem", "severity", "bodyloc"}),
    ),
    Document("n2", "ok", group="p1"),
    Document("n3", "ok"),
]


def test_counts_are_those_counted_by_hand():
    found = inspect_documents(DOCUMENTS, DEFAULT_SCHEME)
    assert (found.documents, found.characters, found.words) == (3, 31, 7)
    assert (found.without_annotation, found.groups) == (2, 2)
    assert found.longest == ("n1", 27)
    assert found.longest_line == ("n1", 18)
    assert found.entities == {"problem": 2, "severity": 1, "drug": 1, "bodyloc": 1, "finding": 1}
    assert found.entity_documents == dict.fromkeys(found.entities, 1)
    assert found.relations == {("problem", "severity"): 2, ("drug", "severity"): 1}
    assert found.covers == {"problem": 1, "severity": 1, "bodyloc": 1}
    assert found.covers_unstated == 2
    assert found.outside_covers == {"drug": 1, "finding": 1}
    assert found.outside_scheme == {"finding": 1}
    assert found.overlaps == {"crossing": 2, "same place": 1}
    assert (found.space_edged, found.mid_word, found.over_lines) == (1, 1, 1)
    assert found.invalid_pairs == {("drug", "bodyloc"): 1}
    assert (found.mistyped_relations, found.repeated_relations) == (1, 1)
    assert found.headless == {}


def test_a_modifier_without_a_head_is_counted_by_type():
    document = Document("n1", "severe", (Entity("T1", "severity", 0, 6),))
    assert inspect_documents([document], DEFAULT_SCHEME).headless == {"severity": 1}


def test_rows_hold_counts_and_ids_and_no_text():
    tables = dict(as_rows(inspect_documents(DOCUMENTS, DEFAULT_SCHEME)))
    assert tables["spans: type, spans, documents"][0] == ("problem", "2", "1")
    assert tables["coverage: type, documents"][-1] == ("not stated", "2")
    assert ("crossing (pairs)", "2") in tables["span and relation problems"]
    assert "modifiers without a head" not in tables
    assert "chest" not in repr(tables)


def test_no_documents_are_no_error():
    assert inspect_documents([], DEFAULT_SCHEME).longest == ("none", 0)
