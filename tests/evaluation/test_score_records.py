"""Records: the keys of scores.json, means, cohorts and their pool, document classes."""

import json

import pytest
from hypothesis import given, settings
from scoring_documents import SCHEME, cohorts, doc

from fedmedlora.errors import DataError
from fedmedlora.evaluation.records import (
    Cohort,
    score_classes,
    score_cohorts,
    score_documents,
)

KEYS = [
    "method",
    "round",
    "cohort",
    "task",
    "matching",
    "level",
    "type",
    "tp",
    "predicted",
    "gold",
    "precision",
    "recall",
    "f1",
]
NAMES = {"scheme": SCHEME, "method": "m", "round": 2}


def pick(records, **wanted):
    wanted = {"task": "entities", "matching": "strict", "level": "typed", **wanted}
    (record,) = (
        r for r in records if all(getattr(r, name) == value for name, value in wanted.items())
    )
    return record


GOLD = [
    doc(("problem", 0, 4), ("problem", 5, 9), ("drug", 10, 14), name="a"),
    doc(("problem", 0, 4), ("drug", 10, 14), name="b"),
]
# problem: 1 right of 2 predicted, 3 in gold; drug: 0 of 0, 2 in gold; test: 0 of 1, not in gold.
PREDICTED = [doc(("problem", 0, 4), ("problem", 6, 9), ("test", 20, 24), name="a")]


def test_a_record_has_the_keys_of_scores_json_in_their_order():
    records = score_documents(GOLD, PREDICTED, cohort="c", bootstrap=None, **NAMES)
    assert all(list(record.as_dict()) == KEYS for record in records)
    row = pick(records, type="problem").as_dict()
    assert (row["method"], row["round"], row["cohort"]) == ("m", 2, "c")
    assert (row["tp"], row["predicted"], row["gold"]) == (1, 2, 3)
    assert (row["precision"], row["recall"], row["f1"]) == pytest.approx((1 / 2, 1 / 3, 2 / 5))


def test_zero_over_zero_is_null_in_json():
    records = score_documents(GOLD, PREDICTED, cohort="c", **NAMES)
    row = json.loads(json.dumps(pick(records, type="drug").as_dict()))
    assert (row["precision"], row["recall"], row["f1"]) == (None, 0, 0)
    row = json.loads(json.dumps(pick(records, type="micro", task="modifiers").as_dict()))
    assert (row["precision"], row["recall"], row["f1"]) == (None, None, None)


def test_micro_counts_every_type_and_macro_is_the_mean_over_types_in_gold():
    records = score_documents(GOLD, PREDICTED, cohort="c", bootstrap=None, **NAMES)
    micro = pick(records, type="micro")
    assert (micro.tp, micro.predicted, micro.gold) == (1, 3, 5)
    assert micro.f1 == pytest.approx(2 / 8)
    macro = pick(records, type="macro")
    assert (macro.tp, macro.predicted, macro.gold) == (1, 2, 5)
    assert macro.f1 == pytest.approx((2 / 5 + 0) / 2)
    assert macro.recall == pytest.approx((1 / 3 + 0) / 2)
    assert macro.precision == pytest.approx(1 / 2)
    assert pick(records, type="macro", matching="lenient").f1 == pytest.approx((4 / 5 + 0) / 2)


def test_a_type_that_gold_never_has_gets_its_own_record():
    records = score_documents(GOLD, PREDICTED, cohort="c", bootstrap=None, **NAMES)
    record = pick(records, type="test")
    assert (record.tp, record.predicted, record.gold, record.precision) == (0, 1, 0, 0)


def test_the_interval_holds_the_f1_and_stands_after_the_other_keys():
    records = score_documents(GOLD, GOLD[:1], cohort="c", **NAMES)
    row = pick(records, type="micro").as_dict()
    assert list(row) == [*KEYS, "low", "high"]
    assert 0 <= row["low"] < row["f1"] < row["high"] <= 1


def test_predictions_set_aside_are_told_with_typed_micro():
    records = score_documents(
        GOLD, PREDICTED, cohort="c", covers=frozenset({"problem", "drug"}), **NAMES
    )
    told = [r for r in records if r.set_aside is not None]
    assert [(r.task, r.matching, r.level, r.type) for r in told] == [
        ("entities", "strict", "typed", "micro"),
        ("entities", "lenient", "typed", "micro"),
    ]
    assert told[0].as_dict()["set_aside"] == 1
    assert told[0].predicted == 2


def test_each_cohort_keeps_its_own_covers_in_the_pool():
    both = [doc(("problem", 0, 4), ("drug", 10, 14), name="a")]
    records = score_cohorts(
        {
            "north": (both, both, frozenset({"problem"})),
            "south": Cohort(both, [], frozenset({"drug"})),
        },
        **NAMES,
    )
    assert list(dict.fromkeys(r.cohort for r in records)) == ["north", "south", "all"]
    pooled = pick(records, cohort="all", type="micro")
    assert (pooled.tp, pooled.predicted, pooled.gold) == (1, 1, 2)
    assert pick(records, cohort="all", type="macro").f1 == pytest.approx((1 + 0) / 2)


def test_relations_are_pooled_over_the_cohorts_that_have_them():
    linked = [doc(("problem", 0, 4), ("severity", 5, 9), relations=[(0, 1)])]
    unlinked = [doc(("problem", 0, 4), ("severity", 5, 9))]
    records = score_cohorts(
        {"linked": Cohort(linked, linked), "unlinked": Cohort(unlinked, linked)}, **NAMES
    )
    assert {r.cohort for r in records if r.task == "relations"} == {"linked", "all"}
    pooled = pick(records, cohort="all", task="relations", type="micro")
    assert (pooled.tp, pooled.predicted, pooled.gold) == (1, 1, 1)


def test_a_cohort_named_like_the_pool_is_refused():
    with pytest.raises(DataError, match="'all'"):
        score_cohorts({"all": Cohort([], [])}, **NAMES)


@settings(max_examples=25, deadline=None)
@given(cohorts(), cohorts(), cohorts())
def test_the_micro_counts_of_cohorts_add_up_to_those_of_all(first, second, third):
    given_cohorts = {"a": Cohort(*first), "b": Cohort(*second), "c": Cohort(*third)}
    records = score_cohorts(given_cohorts, bootstrap=None, **NAMES)
    for pooled in (r for r in records if r.cohort == "all" and r.type != "macro"):
        parts = [
            r
            for r in records
            if r.cohort != "all"
            and (r.task, r.matching, r.level, r.type)
            == (pooled.task, pooled.matching, pooled.level, pooled.type)
        ]
        for name in ("tp", "predicted", "gold"):
            assert getattr(pooled, name) == sum(getattr(part, name) for part in parts)


def test_document_classes_are_scored_apart():
    records = score_classes(
        GOLD, GOLD[:1], classes={"a": "letter", "b": "report"}, cohort="c", **NAMES
    )
    letter = pick(records, type="micro", document_class="letter")
    report = pick(records, type="micro", document_class="report")
    assert (letter.f1, report.f1, report.gold) == (1, 0, 2)
    assert letter.as_dict()["document_class"] == "letter"


def test_a_document_without_a_class_and_a_prediction_without_a_document_are_refused():
    with pytest.raises(DataError, match="'b' has no class"):
        score_classes(GOLD, GOLD, classes={"a": "letter"}, cohort="c", **NAMES)
    with pytest.raises(DataError, match="'z' that gold does not have"):
        score_classes(GOLD, [doc(name="z")], classes={"a": "letter", "b": "x"}, cohort="c", **NAMES)
