"""Mapping files: what becomes of types and relations, and that every one is accounted for."""

import pytest
from corpus_strategies import document_lists
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmedlora.corpus.account import as_rows
from fedmedlora.corpus.apply import map_documents
from fedmedlora.corpus.mapping import TypeMapping, load_mapping, shipped_mappings
from fedmedlora.corpus.source import SourceDocument, SourceRelation, SourceSpan, from_document
from fedmedlora.errors import ConfigError, DataError
from fedmedlora.schema import DEFAULT_SCHEME, Entity, Relation

MAPPING = TypeMapping.model_validate(
    {
        "entities": {
            "Finding": "problem",
            "Disease": "problem",
            "Drug": "drug",
            "Degree": "severity",
            "Period": {"type": "temporal", "by_head": {"drug": "duration"}},
            "Attribute": {},
        },
        "relations": [
            {"type": "MOD", "head": "Arg2", "tail": "Arg1"},
            {"type": "IN", "tails": ["Attribute"], "becomes": "bodyloc"},
            {"type": "IN", "heads": ["Drug"]},
        ],
        "covers": ["problem", "severity"],
    }
)


def source(*spans, relations=(), text="0123456789" * 5):
    """Spans are (id, type, start, end); relations (type, {role: id})."""
    return SourceDocument(
        id="n1",
        text=text,
        spans=tuple(SourceSpan(name, kind, ((start, end),)) for name, kind, start, end in spans),
        relations=tuple(SourceRelation(kind, arguments) for kind, arguments in relations),
    )


def mapped(document, mapping=MAPPING):
    (result,), report = map_documents([document], mapping, scheme=DEFAULT_SCHEME)
    assert report.balanced
    return result, report


def mod(modifier, head):
    return ("MOD", {"Arg1": modifier, "Arg2": head})


def test_types_direction_and_coverage_come_from_the_mapping():
    document, report = mapped(
        source(("a", "Degree", 0, 3), ("b", "Finding", 4, 8), relations=[mod("a", "b")])
    )
    assert document.entities == (Entity("a", "severity", 0, 3), Entity("b", "problem", 4, 8))
    assert document.relations == (Relation("severity", "b", "a"),)
    assert document.covers == {"problem", "severity"}
    assert report.relations.mapped == {("MOD", "severity"): 1}


def test_unmapped_types_are_skipped_and_take_their_relations_along():
    document, report = mapped(
        source(
            ("a", "Degree", 0, 3),
            ("b", "Age", 4, 8),
            relations=[mod("a", "b"), ("BEFORE", {"Arg1": "a", "Arg2": "b"})],
        )
    )
    assert [e.id for e in document.entities] == ["a"]
    assert report.spans.skipped == {("unmapped type", "Age"): 1}
    assert report.relations.skipped == {
        ("an end was skipped", "MOD"): 1,
        ("unmapped type", "BEFORE"): 1,
    }


@pytest.mark.parametrize("what", ["entity", "relation"])
def test_unmapped_types_are_refused_where_the_mapping_says_so(what):
    strict = MAPPING.model_copy(update={"unmapped": "refuse"})
    kind = "Age" if what == "entity" else "Degree"
    document = source(("a", kind, 0, 3), relations=[("BEFORE", {"Arg1": "a", "Arg2": "a"})])
    with pytest.raises(DataError, match=f"no rule for the {what} type"):
        mapped(document, strict)


def test_a_type_can_depend_on_the_head():
    document, _ = mapped(
        source(
            ("p", "Period", 0, 2),
            ("q", "Period", 3, 5),
            ("r", "Period", 6, 8),
            ("d", "Drug", 10, 12),
            ("f", "Finding", 13, 15),
            relations=[mod("p", "d"), mod("q", "f")],
        )
    )
    assert [e.type for e in document.entities[:3]] == ["duration", "temporal", "temporal"]
    assert [r.type for r in document.relations] == ["duration", "temporal"]


def test_a_relation_can_say_the_type_and_without_one_the_span_is_skipped():
    document, report = mapped(
        source(
            ("a", "Attribute", 0, 2),
            ("b", "Attribute", 3, 5),
            ("f", "Finding", 6, 8),
            relations=[("IN", {"head": "f", "tail": "a"})],
        )
    )
    assert [(e.id, e.type) for e in document.entities] == [("a", "bodyloc"), ("f", "problem")]
    assert report.spans.skipped == {("no relation says its type", "Attribute"): 1}


def test_a_relation_no_rule_fits_and_an_invalid_pair_are_skipped_apart():
    document, report = mapped(
        source(
            ("s", "Degree", 0, 2),
            ("f", "Finding", 3, 5),
            ("d", "Drug", 6, 8),
            relations=[
                ("IN", {"head": "f", "tail": "s"}),  # neither rule for IN fits these ends
                ("IN", {"head": "d", "tail": "s"}),  # fits, but drugs have no severity
                ("MOD", {"head": "f", "tail": "s"}),  # MOD's roles are Arg1 and Arg2
            ],
        )
    )
    assert document.relations == ()
    assert report.relations.skipped == {
        ("types of its ends that no rule names", "IN"): 1,
        ("invalid pair", "IN"): 1,
        ("roles that no rule names", "MOD"): 1,
    }
    assert report.invalid_pairs == {("drug", "severity"): 1}


def test_two_spans_that_become_the_same_are_one_and_keep_their_relations():
    document, report = mapped(
        source(
            ("a", "Finding", 4, 8),
            ("b", "Disease", 4, 8),
            ("s", "Degree", 0, 3),
            relations=[mod("s", "b"), mod("s", "a")],
        )
    )
    assert [e.id for e in document.entities] == ["a", "s"]
    assert document.relations == (Relation("severity", "a", "s"),)
    assert report.spans.skipped == {("same type at the same place", "Disease"): 1}
    assert report.relations.skipped == {("said already", "MOD"): 1}


def test_nested_crossing_and_same_place_spans_are_kept_and_counted():
    document, report = mapped(
        source(
            ("a", "Finding", 0, 10),
            ("b", "Finding", 2, 5),  # nested in a
            ("c", "Drug", 8, 12),  # crosses a
            ("d", "Degree", 8, 12),  # crosses a, same place as c
            ("e", "Drug", 12, 14),  # touches c and d: no overlap
        )
    )
    assert len(document.entities) == 5
    assert report.overlaps == {"nested": 1, "crossing": 2, "same place": 1}


@given(document_lists(), st.sampled_from(["skip", "cover", "first", "last"]))
@settings(max_examples=100, deadline=None)
def test_whatever_is_read_is_mapped_or_skipped(documents, rule):
    mapping = TypeMapping.model_validate(
        {
            "entities": {
                "problem": "problem",
                "drug": "problem",
                "severity": {"by_head": {"problem": "severity"}},
                "x;y": "bodyloc",
            },
            "relations": [{"type": "severity"}, {"type": "bodyloc", "becomes": "bodyloc"}],
        }
    )
    result, report = map_documents(
        map(from_document, documents), mapping, scheme=DEFAULT_SCHEME, discontinuous=rule
    )
    assert report.balanced
    assert report.documents == len(documents) == len(result)
    assert report.spans.totals()[1] == sum(len(d.entities) for d in result)
    assert report.relations.totals()[1] == sum(len(d.relations) for d in result)
    assert sum(report.invalid_pairs.values()) == report.relations.totals()[2] - sum(
        n for (reason, _), n in report.relations.skipped.items() if reason != "invalid pair"
    )
    assert all(
        DEFAULT_SCHEME.valid(d.entity(r.head).type, r.type) for d in result for r in d.relations
    )


def test_the_account_is_printed_whole():
    _, report = mapped(source(("a", "Degree", 0, 3), ("b", "Age", 4, 8)))
    assert as_rows(report) == [
        (
            "read",
            [
                ("documents", "1", "", ""),
                ("spans", "2 read", "1 mapped", "1 skipped"),
                ("relations", "0 read", "0 mapped", "0 skipped"),
            ],
        ),
        ("spans mapped", [("Degree", "severity", "1")]),
        ("spans skipped", [("unmapped type", "Age", "1")]),
    ]


def test_every_shipped_mapping_fits_the_default_scheme():
    assert "maccrobat" in shipped_mappings()
    for name in shipped_mappings():
        assert load_mapping(name, scheme=DEFAULT_SCHEME).entities


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("entities: {Finding: problm}", r"entities\.Finding: 'problm' is not in the scheme"),
        ("entities: {A: {by_head: {severity: drug}}}", r"entities\.A\.by_head: 'severity'"),
        ("entities: {A: {by_head: {drug: test}}}", r"entities\.A\.by_head\.drug: 'test'"),
        ("entities: {A: drug}\ncovers: [pain]", "covers: 'pain'"),
        ("entities: {A: drug}\nrelations: [{type: R, becomes: drug}]", r"relations\.0\.becomes"),
        ("entities: {A: drug}\nrelation: []", "relation: there is no such setting"),
        ("entities: {A: {typ: drug}}", r"entities\.A\.typ: there is no such"),
        ("entities: {A: drug}\ndiscontinuous: middle", "discontinuous: Input should be"),
        ("relations: []", "entities: this key is missing"),
        ("entities: {A: drug, A: test}", "'A' occurs twice"),
        ("entities: {A: drug", ":1: |:2: "),
        ("", "the whole file"),
    ],
)
def test_a_broken_mapping_is_refused_with_its_key(tmp_path, content, said):
    path = tmp_path / "m.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=said):
        load_mapping(path, scheme=DEFAULT_SCHEME)


def test_an_unknown_mapping_names_the_shipped_ones():
    with pytest.raises(ConfigError, match="maccrobat"):
        load_mapping("macrobat", scheme=DEFAULT_SCHEME)
