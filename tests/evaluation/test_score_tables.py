"""Tables of scores: what stands in which cell, and how numbers are written."""

from scoring_documents import SCHEME, doc

from fedmedlora.evaluation.records import Cohort, score_cohorts, score_documents
from fedmedlora.evaluation.tables import (
    Table,
    cohort_table,
    format_interval,
    format_ratio,
    last_rounds,
    method_table,
    render_text,
    score_table,
)

GOLD = [doc(("problem", 0, 4), ("drug", 10, 14))]
HALF = [doc(("problem", 0, 4))]


def scored(method, round, predicted, **cohorts):
    cohorts = cohorts or {"north": Cohort(GOLD, predicted), "south": Cohort(GOLD, GOLD)}
    return score_cohorts(cohorts, scheme=SCHEME, method=method, round=round, bootstrap=None)


def test_a_row_of_scores_gives_ratios_interval_and_counts():
    records = score_documents(GOLD, HALF, scheme=SCHEME, method="m", round=None, cohort="c")
    table = score_table(records)
    assert table.rows[2] == (
        *("entities", "strict", "micro"),
        *("1.000", "0.500", "0.667", "[0.667, 0.667]", "1", "1", "2"),
    )
    assert table.rows[1][2:6] == ("drug", "n/a", "0.000", "0.000")
    assert table.rows[4][2] == "micro, any type"


def test_a_task_without_gold_and_predictions_is_left_out_of_the_table():
    records = score_documents(GOLD, HALF, scheme=SCHEME, method="m", round=None, cohort="c")
    assert {row[0] for row in score_table(records).rows} == {"entities"}


def test_cohorts_stand_in_columns_with_the_pool_first_and_the_last_round_alone():
    records = [
        *scored("zero-shot", None, []),
        *scored("fed-medlora", 1, []),
        *scored("fed-medlora", 2, HALF),
        *scored("single-site/north", None, GOLD, north=Cohort(GOLD, GOLD)),
    ]
    table = cohort_table(records, task="entities", matching="strict")
    assert table.headers == ("method", "all", "north", "south")
    assert table.rows == (
        ("zero-shot", "0.667", "0.000", "1.000"),
        ("fed-medlora", "0.857", "0.667", "1.000"),
        ("single-site/north", "1.000", "1.000", ""),
    )


def test_methods_stand_in_rows_with_their_tasks_and_matchings():
    records = scored("m", None, HALF)
    table = method_table(records)
    assert table.headers[:3] == ("method", "entities strict", "entities lenient")
    assert table.rows[0][:4] == ("m", "0.857", "0.857", "n/a")


def test_the_last_round_is_each_methods_own():
    records = [*scored("a", 1, HALF), *scored("a", 2, HALF), *scored("b", 1, HALF)]
    kept = {(record.method, record.round) for record in last_rounds(records)}
    assert kept == {("a", 2), ("b", 1)}


def test_numbers_are_written_alike():
    assert (format_ratio(None), format_ratio(2 / 3)) == ("n/a", "0.667")
    assert (format_interval(0.1, 0.25), format_interval(None, None)) == ("[0.100, 0.250]", "")


def test_plain_text_lines_up_words_left_and_numbers_right():
    table = Table("t", ("method", "F1"), (("a", "0.5"), ("longer", "1")), left=1)
    assert render_text(table).split("\n") == [
        "t",
        "method   F1",
        "------  ---",
        "a       0.5",
        "longer    1",
    ]


def test_a_long_title_is_wrapped_to_lines_that_a_terminal_shows():
    title = "what it is about " * 20
    lines = render_text(Table(title.strip(), ("method",), (("one",),))).split("\n")
    assert " ".join(lines[:-3]) == title.strip()
    assert len(lines) > 5
    assert max(map(len, lines)) <= 100
