"""What is scored and how: the table of the specification, covers, duplicates, missing notes."""

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scoring_documents import SCHEME, cohorts, doc

from fedmedlora.errors import DataError
from fedmedlora.evaluation.counts import Counts
from fedmedlora.evaluation.tally import MATCHINGS, TASKS, pool_tallies, tally_documents
from fedmedlora.schema import Document


def tally(gold, predicted, **options):
    return tally_documents(gold, predicted, scheme=SCHEME, **options)


def entities(gold, predicted, **options):
    return tally([gold], [predicted], **options).tasks["entities"]


# --- the table of the specification, row by row ---------------------------------------------------


def test_right_span_of_wrong_type_is_right_only_if_types_are_ignored():
    counted = entities(doc(("problem", 0, 4)), doc(("drug", 0, 4)))
    for matching in MATCHINGS:
        assert counted.micro(matching).f1 == 0
        assert counted.micro(matching, agnostic=True).f1 == 1


def test_two_predictions_inside_one_gold_are_one_right_and_one_wrong_leniently():
    counted = entities(doc(("problem", 0, 10)), doc(("problem", 0, 4), ("problem", 5, 10)))
    assert counted.micro("strict") == Counts(0, 2, 1)
    assert counted.micro("lenient") == Counts(1, 2, 1)
    assert counted.micro("strict").f1 == 0
    assert counted.micro("lenient").f1 == pytest.approx(2 / 3)


def test_one_prediction_over_two_golds_finds_one_of_them_leniently():
    counted = entities(doc(("problem", 0, 4), ("problem", 5, 10)), doc(("problem", 0, 10)))
    assert counted.micro("strict").f1 == 0
    assert counted.micro("lenient") == Counts(1, 1, 2)
    assert counted.micro("lenient").f1 == pytest.approx(2 / 3)


def test_wrong_type_and_right_type_inside_one_gold_are_one_right_and_one_wrong_leniently():
    counted = entities(doc(("problem", 0, 10)), doc(("drug", 0, 4), ("problem", 5, 10)))
    assert counted.micro("strict").f1 == 0
    assert counted.micro("lenient").f1 == pytest.approx(2 / 3)


def test_touching_spans_do_not_count_as_overlapping():
    counted = entities(doc(("problem", 0, 4)), doc(("problem", 4, 8)))
    for matching in MATCHINGS:
        assert counted.micro(matching) == Counts(0, 1, 1)
        assert counted.micro(matching, agnostic=True) == Counts(0, 1, 1)


def test_a_prediction_of_a_type_that_gold_never_has_is_a_false_positive():
    counted = entities(doc(("problem", 0, 4)), doc(("problem", 0, 4), ("drug", 5, 9)))
    for matching in MATCHINGS:
        assert counted.micro(matching) == Counts(1, 2, 1)
        assert counted.counts(matching, "drug") == Counts(0, 1, 0)


# --- ratios ---------------------------------------------------------------------------------------


def test_zero_over_zero_is_none_and_nothing_found_is_zero():
    assert (Counts(0, 0, 0).precision, Counts(0, 0, 0).recall, Counts(0, 0, 0).f1) == (None,) * 3
    assert (Counts(0, 0, 3).precision, Counts(0, 0, 3).recall, Counts(0, 0, 3).f1) == (None, 0, 0)
    assert (Counts(0, 3, 0).precision, Counts(0, 3, 0).recall, Counts(0, 3, 0).f1) == (0, None, 0)
    counts = Counts(2, 4, 2) + Counts(1, 1, 4)
    assert (counts.precision, counts.recall, counts.f1) == (0.6, 0.5, pytest.approx(6 / 11))


# --- duplicates -----------------------------------------------------------------------------------


def test_a_repeated_identical_prediction_counts_once():
    counted = entities(doc(("drug", 0, 4)), doc(("drug", 0, 4), ("drug", 0, 4)))
    assert counted.micro("strict") == Counts(1, 1, 1)
    assert counted.micro("lenient", agnostic=True) == Counts(1, 1, 1)


def test_one_span_under_two_types_stays_two_predictions_if_types_are_ignored():
    counted = entities(doc(("drug", 0, 4)), doc(("drug", 0, 4), ("problem", 0, 4)))
    for matching in MATCHINGS:
        assert counted.micro(matching, agnostic=True) == Counts(1, 2, 1)


# --- covers ---------------------------------------------------------------------------------------


def test_predictions_of_types_nobody_looked_for_are_set_aside_and_counted():
    gold = doc(("problem", 0, 4), ("drug", 20, 24))
    counted = entities(
        gold,
        doc(("problem", 0, 4), ("drug", 5, 9), ("drug", 10, 14)),
        covers=frozenset({"problem"}),
    )
    assert counted.micro("strict") == Counts(1, 1, 1)
    assert (counted.set_aside, counted.gold_set_aside) == (2, 1)


def test_a_covered_type_that_gold_never_has_is_a_false_positive():
    covers = frozenset({"problem", "drug"})
    counted = entities(doc(("problem", 0, 4)), doc(("drug", 5, 9)), covers=covers)
    assert counted.micro("strict") == Counts(0, 1, 1)


def test_covers_of_the_document_and_of_the_cohort_restrict_together():
    gold = doc(("problem", 0, 4), ("drug", 5, 9), covers=frozenset({"problem", "severity"}))
    assert entities(gold, gold).types == ("problem",)
    assert entities(gold, gold, covers=frozenset({"drug"})).types == ()
    of_prediction = doc(("problem", 0, 4), covers=frozenset())
    assert entities(gold, of_prediction).micro("strict") == Counts(1, 1, 1)


def test_a_relation_needs_both_its_types_covered():
    gold = doc(("problem", 0, 4), ("severity", 5, 9), relations=[(0, 1)])
    for covers in ({"problem"}, {"severity"}):
        counted = tally([gold], [gold], covers=frozenset(covers)).tasks["relations"]
        assert counted.micro("strict") == Counts(0, 0, 0)
        assert (counted.set_aside, counted.gold_set_aside) == (1, 1)


# --- tasks ----------------------------------------------------------------------------------------


def test_mains_are_entities_and_modifiers_are_scored_by_themselves():
    gold = doc(("problem", 0, 4), ("severity", 5, 9), relations=[(0, 1)])
    predicted = doc(("problem", 0, 4), ("severity", 5, 8), relations=[(0, 1)])
    tasks = tally([gold], [predicted]).tasks
    assert tasks["entities"].micro("strict") == Counts(1, 1, 1)
    assert tasks["modifiers"].micro("strict") == Counts(0, 1, 1)
    assert tasks["modifiers"].micro("lenient") == Counts(1, 1, 1)
    assert tasks["relations"].micro("strict") == Counts(0, 1, 1)
    assert tasks["relations"].micro("lenient") == Counts(1, 1, 1)


def test_a_modifier_given_to_the_wrong_head_is_right_as_a_span_and_wrong_as_a_relation():
    both = (("problem", 0, 4), ("problem", 20, 24), ("severity", 5, 9))
    tasks = tally([doc(*both, relations=[(0, 2)])], [doc(*both, relations=[(1, 2)])]).tasks
    for matching in MATCHINGS:
        assert tasks["modifiers"].micro(matching) == Counts(1, 1, 1)
        assert tasks["relations"].micro(matching) == Counts(0, 1, 1)


def test_the_type_of_a_head_does_not_matter_to_its_relation():
    gold = doc(("problem", 0, 4), ("severity", 5, 9), relations=[(0, 1)])
    predicted = doc(("drug", 0, 4), ("severity", 5, 9), relations=[(0, 1)])
    assert tally([gold], [predicted]).tasks["relations"].micro("strict") == Counts(1, 1, 1)


def test_relations_match_as_many_as_can_be():
    # Gold 0-1 overlaps both predictions, gold 0-2 only the first.
    gold = doc(
        ("problem", 0, 4), ("severity", 5, 20), ("severity", 5, 9), relations=[(0, 1), (0, 2)]
    )
    predicted = doc(
        ("problem", 0, 4), ("severity", 6, 8), ("severity", 12, 14), relations=[(0, 1), (0, 2)]
    )
    assert tally([gold], [predicted]).tasks["relations"].micro("lenient") == Counts(2, 2, 2)


def test_relations_are_not_scored_where_gold_has_modifiers_but_no_relation():
    predicted = doc(("problem", 0, 4), ("severity", 5, 9), relations=[(0, 1)])
    found = tally([doc(("problem", 0, 4), ("severity", 5, 9))], [predicted])
    assert "relations" not in found.tasks
    assert found.unscored == 1
    found = tally([doc(("problem", 0, 4))], [predicted])
    assert found.tasks["relations"].micro("strict") == Counts(0, 1, 0)


def test_only_the_tasks_asked_for_are_scored():
    assert list(tally([doc()], [doc()], tasks=("relations", "modifiers")).tasks) == [
        "modifiers",
        "relations",
    ]


def test_a_type_outside_the_scheme_is_an_entity_unless_a_relation_ends_in_it():
    gold = doc(("device", 0, 4), ("colour", 5, 9), relations=[(0, 1)])
    tasks = tally([gold], [gold]).tasks
    assert tasks["entities"].types == ("device",)
    assert tasks["modifiers"].types == ("colour",)


def test_types_stand_in_the_order_of_the_scheme():
    gold = doc(("zebra", 0, 1), ("device", 0, 1), ("drug", 0, 1), ("problem", 0, 1))
    assert entities(gold, gold).types == ("problem", "drug", "device", "zebra")


# --- documents ------------------------------------------------------------------------------------


def test_a_document_without_a_prediction_counts_as_predicting_nothing():
    gold = [doc(("drug", 0, 4), name="a"), doc(("drug", 0, 4), ("drug", 5, 9), name="b")]
    found = tally(gold, [gold[0]])
    assert found.tasks["entities"].micro("strict") == Counts(1, 1, 3)
    assert found.missing == 1


def test_a_prediction_for_an_unknown_document_is_refused():
    with pytest.raises(DataError, match="'b' that gold does not have"):
        tally([doc(name="a")], [doc(name="b")])


def test_a_prediction_for_another_text_is_refused_without_showing_the_text():
    other = doc(name="a", text="x" * 10 + "secret")
    with pytest.raises(DataError, match=r"'a'.*16 against 40.*character 10") as caught:
        tally([doc(name="a")], [other])
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("gold", [True, False])
def test_a_document_id_twice_is_refused(gold):
    once, twice = [doc(name="a")], [doc(name="a"), doc(name="a")]
    with pytest.raises(DataError, match="two documents with the id 'a'"):
        tally(twice if gold else once, once if gold else twice)


def test_a_type_named_like_a_mean_is_refused():
    with pytest.raises(DataError, match="'micro'"):
        tally([doc(("micro", 0, 4))], [])


def test_no_documents_at_all_give_counts_of_zero():
    found = tally([], [])
    assert found.tasks["entities"].micro("lenient") == Counts(0, 0, 0)


# --- properties -----------------------------------------------------------------------------------


def every_count(found):
    return {
        (task, matching, name): (
            counted.micro(matching, agnostic=name == "agnostic")
            if name in ("micro", "agnostic")
            else counted.counts(matching, name)
        )
        for task, counted in found.tasks.items()
        for matching in MATCHINGS
        for name in (*counted.types, "micro", "agnostic")
    }


@settings(max_examples=40, deadline=None)
@given(cohorts())
def test_counts_keep_their_bounds(pair):
    for counted in tally(*pair).tasks.values():
        for agnostic in (False, True):
            strict = counted.micro("strict", agnostic=agnostic)
            lenient = counted.micro("lenient", agnostic=agnostic)
            assert strict.tp <= lenient.tp <= min(strict.predicted, strict.gold)
        for matching in MATCHINGS:
            assert counted.micro(matching).tp <= counted.micro(matching, agnostic=True).tp
            by_type = sum((counted.counts(matching, n) for n in counted.types), Counts())
            assert by_type == counted.micro(matching)


@settings(max_examples=40, deadline=None)
@given(cohorts(), st.randoms())
def test_no_count_depends_on_the_order_of_documents_or_annotations(pair, rng):
    def shuffle(documents):
        return [
            Document(
                d.id,
                d.text,
                tuple(rng.sample(d.entities, len(d.entities))),
                tuple(rng.sample(d.relations, len(d.relations))),
            )
            for d in rng.sample(documents, len(documents))
        ]

    gold, predicted = pair
    assert every_count(tally(shuffle(gold), shuffle(predicted))) == every_count(
        tally(gold, predicted)
    )


@settings(max_examples=40, deadline=None)
@given(cohorts())
def test_swapping_gold_and_prediction_swaps_precision_and_recall(pair):
    gold, predicted = pair
    predicted += [doc(name=d.id) for d in gold if d.id not in {p.id for p in predicted}]
    there, back = (every_count(tally(a, b)) for a, b in ((gold, predicted), (predicted, gold)))
    assume(there.keys() == back.keys())
    for key, counts in there.items():
        assert (counts.precision, counts.recall) == (back[key].recall, back[key].precision)


@settings(max_examples=40, deadline=None)
@given(cohorts())
def test_a_perfect_prediction_scores_one(pair):
    gold, _ = pair
    for counts in every_count(tally(gold, gold)).values():
        assert counts.f1 == (1 if counts.gold else None)


@settings(max_examples=40, deadline=None)
@given(cohorts("a"), cohorts("b"), cohorts("a"))
def test_the_counts_of_cohorts_add_up_to_those_of_the_pool(first, second, third):
    found = [tally(*pair) for pair in (first, second, third)]
    pooled = pool_tallies(found, scheme=SCHEME)
    for (task, matching, name), counts in every_count(pooled).items():
        parts = [every_count(part).get((task, matching, name), Counts()) for part in found]
        assert counts == sum(parts, Counts())
    assert set(pooled.tasks) <= set(TASKS)
