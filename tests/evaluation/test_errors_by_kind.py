"""Errors by kind: each kind by hand, and what must hold against the scores for any documents."""

from collections import Counter

import pytest
from hypothesis import given, settings
from scoring_documents import SCHEME, doc, documents

from fedmedlora.evaluation.errors_by_kind import find_errors
from fedmedlora.evaluation.tally import tally_documents

MODIFIERS = frozenset(SCHEME.modifiers)


def errors(gold, predicted, **more):
    return find_errors(gold, predicted, modifiers=MODIFIERS, **more)


def told(found):
    return [(e.task, e.kind, e.type, e.predicted_type, e.gold, e.predicted) for e in found]


@pytest.mark.parametrize(
    ("gold", "predicted", "expected"),
    [
        ([("drug", 0, 4)], [("drug", 0, 4)], []),
        ([("drug", 0, 4)], [], [("missed", "drug", None, ("e0",), ())]),
        ([], [("drug", 0, 4)], [("spurious", "drug", "drug", (), ("e0",))]),
        (
            [("drug", 0, 4)],
            [("problem", 0, 4)],
            [("wrong type", "drug", "problem", ("e0",), ("e0",))],
        ),
        (
            [("drug", 0, 4)],
            [("drug", 2, 6)],
            [("wrong boundary", "drug", "drug", ("e0",), ("e0",))],
        ),
        # touching is no overlap
        (
            [("drug", 0, 4)],
            [("drug", 4, 8)],
            [
                ("missed", "drug", None, ("e0",), ()),
                ("spurious", "drug", "drug", (), ("e0",)),
            ],
        ),
        # overlap under another type is neither of the two near misses
        (
            [("drug", 0, 4)],
            [("problem", 2, 6)],
            [
                ("missed", "drug", None, ("e0",), ()),
                ("spurious", "problem", "problem", (), ("e0",)),
            ],
        ),
        # one gold satisfies one prediction: the second piece is spurious
        (
            [("drug", 0, 10)],
            [("drug", 0, 4), ("drug", 6, 10)],
            [
                ("wrong boundary", "drug", "drug", ("e0",), ("e0",)),
                ("spurious", "drug", "drug", (), ("e1",)),
            ],
        ),
        # a repeated item is one
        ([("drug", 0, 4), ("drug", 0, 4)], [("drug", 0, 4)], []),
        ([], [("drug", 0, 4), ("drug", 0, 4)], [("spurious", "drug", "drug", (), ("e0",))]),
    ],
)
def test_each_kind_of_span_error(gold, predicted, expected):
    found = errors(doc(*gold), doc(*predicted), tasks=("entities",))
    assert told(found) == [("entities", *row) for row in expected]


def test_modifiers_and_entities_are_compared_apart():
    gold = doc(("drug", 0, 4), ("dosage", 5, 9))
    predicted = doc(("drug", 5, 9), ("dosage", 0, 4))
    assert Counter((e.task, e.kind) for e in errors(gold, predicted)) == {
        ("entities", "missed"): 1,
        ("entities", "spurious"): 1,
        ("modifiers", "missed"): 1,
        ("modifiers", "spurious"): 1,
    }


HEADS = (("drug", 0, 4), ("drug", 10, 14))


@pytest.mark.parametrize(
    ("modifier", "head", "kind"),
    [
        (("dosage", 5, 9), 0, None),
        (("dosage", 5, 9), 1, "wrong head"),
        (("dosage", 6, 9), 0, "wrong boundary"),
        (("severity", 5, 9), 0, "wrong type"),
    ],
)
def test_each_kind_of_relation_error(modifier, head, kind):
    gold = doc(*HEADS, ("dosage", 5, 9), relations=[(0, 2)])
    predicted = doc(*HEADS, modifier, relations=[(head, 2)])
    found = errors(gold, predicted, tasks=("relations",))
    assert [(e.kind, e.gold, e.predicted) for e in found] == (
        [] if kind is None else [(kind, ("e0", "e2"), (f"e{head}", "e2"))]
    )


def test_a_modifier_that_is_not_exactly_right_is_no_wrong_head():
    gold = doc(*HEADS, ("dosage", 5, 9), relations=[(0, 2)])
    predicted = doc(*HEADS, ("dosage", 6, 9), relations=[(1, 2)])
    kinds = [e.kind for e in errors(gold, predicted, tasks=("relations",))]
    assert kinds == ["missed", "spurious"]


def test_the_right_head_among_two_leaves_the_other_spurious():
    gold = doc(*HEADS, ("dosage", 5, 9), relations=[(0, 2)])
    predicted = doc(*HEADS, ("dosage", 5, 9), relations=[(0, 2), (1, 2)])
    found = errors(gold, predicted, tasks=("relations",))
    assert [(e.kind, e.predicted) for e in found] == [("spurious", ("e1", "e2"))]


def test_types_outside_covers_are_set_aside_on_both_sides():
    gold = doc(("drug", 0, 4), covers=frozenset({"drug", "problem"}))
    predicted = doc(("problem", 6, 9), ("severity", 10, 12))
    found = errors(gold, predicted, covers=frozenset({"problem", "severity"}))
    assert told(found) == [("entities", "spurious", "problem", "problem", (), ("e0",))]


def test_a_relation_needs_its_heads_type_covered():
    gold = doc()
    predicted = doc(*HEADS, ("dosage", 5, 9), relations=[(0, 2)])
    assert not errors(gold, predicted, covers=frozenset({"dosage"}), tasks=("relations",))


def test_a_document_without_a_prediction_misses_all():
    found = errors(doc(("drug", 0, 4), ("dosage", 5, 9), relations=[(0, 1)]), None)
    assert [(e.task, e.kind) for e in found] == [
        ("entities", "missed"),
        ("modifiers", "missed"),
        ("relations", "missed"),
    ]


@settings(deadline=None)
@given(documents(), documents())
def test_errors_add_up_to_what_strict_scoring_counts_as_wrong(gold, predicted):
    # A cohort with modifiers and no relation is not scored for relations.
    tally = tally_documents([gold], [predicted], scheme=SCHEME)
    found = errors(gold, predicted, tasks=tuple(tally.tasks))
    for task, counted in tally.tasks.items():
        counts = counted.micro("strict")
        kinds = Counter(e.kind for e in found if e.task == task)
        pairs = kinds["wrong type"] + kinds["wrong boundary"] + kinds["wrong head"]
        assert kinds["missed"] + pairs == counts.gold - counts.tp
        assert kinds["spurious"] + pairs == counts.predicted - counts.tp
        assert counts.tp + kinds["wrong boundary"] <= counted.micro("lenient").tp
        assert counts.tp + kinds["wrong type"] <= counted.micro("strict", agnostic=True).tp
