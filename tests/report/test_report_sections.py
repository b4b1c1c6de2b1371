"""What the sections say, by numbers that were worked out by hand."""

import json

import pytest
from report_notes import FED, HOSTILE
from report_toys import full_run, plain_run, write_json

from fedmedlora.report.blocks import Table, Verdicts, interval, ratio, signed
from fedmedlora.report.charts import Estimate, Series, estimate_chart, line_chart
from fedmedlora.report.costs import duration, traffic_section
from fedmedlora.report.joining import decide, find_comparison, joining_section
from fedmedlora.report.leakage import leakage_section
from fedmedlora.report.run import read_run
from fedmedlora.report.scores import best, score_section
from fedmedlora.report.sites import coverage_section, new_site_section
from fedmedlora.report.summary import summary_section
from fedmedlora.report.variants import scaling_section, seed_section, variant_section


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return full_run(tmp_path_factory.mktemp("full"))


@pytest.fixture(scope="module")
def run(folder):
    return read_run(folder)


def rows_of(table):
    return {row.header: [c.text for c in row.cells] for g in table.groups for row in g.rows}


def tables_of(section, **view):
    return [
        block
        for block in section.blocks
        if isinstance(block, Table) and view.items() <= dict(block.view).items()
    ]


@pytest.mark.parametrize(
    ("low", "high", "answer"),
    [
        (0.01, 0.2, "yes"),
        (-0.2, -0.01, "no"),
        (-0.1, 0.1, "not clear"),
        (0.0, 0.1, "not clear"),
        (-0.1, 0.0, "not clear"),
        (None, None, "not clear"),
    ],
)
def test_whether_joining_was_worth_it_is_read_off_the_interval(low, high, answer):
    assert decide(low, high) == answer


def test_a_comparison_is_found_whichever_way_round_it_was_made(run):
    one = find_comparison(run, "single-site/north", FED, cohort="north", task="entities")
    assert (one.f1, one.low, one.high) == (-0.1, -0.2, -0.02)
    other = find_comparison(run, FED, "single-site/north", cohort="north", task="entities")
    assert (other.f1, other.low, other.high) == (0.1, 0.02, 0.2)
    assert find_comparison(run, FED, "centralised", cohort="north", task="entities") is None


def test_a_sites_verdict_is_of_the_federated_method_that_leads_and_of_what_is_its_own(folder):
    # Without the other federated method, fed-medlora leads.
    run = read_run(folder)
    methods = tuple(method for method in run.methods if method.label != HOSTILE)
    section = joining_section(type(run)(**{**vars(run), "methods": methods}))
    [verdicts] = [block for block in section.blocks if isinstance(block, Verdicts)]
    assert [(v.subject, v.word) for v in verdicts.items] == [
        ("north", "yes"),
        ("north", "not clear"),
        ("south", "no"),
    ]
    told = verdicts.items[0].sentence.replace("\u00a0", " ")
    assert told == (
        "With fed-medlora instead of its own model, it gained for entities (+0.10, +0.02 to "
        "+0.20) and relations (+0.10, +0.02 to +0.20). Strict F1."
    )
    assert "lost for entities" in verdicts.items[2].sentence


def test_the_joining_table_puts_each_method_beside_the_site_alone(run):
    [table] = tables_of(joining_section(run), task="entities", matching="strict")
    assert [group.title for group in table.groups] == ["north", "south"]
    north = {row.header: [c.text for c in row.cells] for row in table.groups[0].rows}
    assert north["single-site/north (alone)"][1:] == ["", "", ""]
    assert north[FED][1:] == ["+0.10", "+0.02\u00a0to\u00a0+0.20", "yes"]
    assert north["adapted/north"][3] == "not clear"
    assert north[HOSTILE][1:] == ["–", "–", "–"]
    south = [row.header for row in table.groups[1].rows]
    assert "adapted/north" not in south


def test_scores_stand_by_kind_and_the_best_of_a_column_is_strong(run):
    [table] = tables_of(score_section(run), task="entities", matching="strict", average="micro")
    assert [group.title for group in table.groups][:3] == [
        "Untrained", "One site alone", "Federated",
    ]  # fmt: skip
    rows = rows_of(table)
    # North has 5 entities; fed-medlora predicts 6 and gets 3: 6 / 11.
    assert rows[FED][1] == ratio(6 / 11) == "0.55"
    assert rows["zero-shot"][:2] == ["0.00", "0.00"]
    strong = {
        row.header: [cell.strong for cell in row.cells] for g in table.groups for row in g.rows
    }
    assert strong["centralised"] == [True] * 4
    assert not strong[FED][1]
    marks = {row.header: [c.mark for c in row.cells] for g in table.groups for row in g.rows}
    assert marks["single-site/north"] == ["", "home", "", ""]


def test_a_cohort_without_gold_of_a_task_is_a_dash(run):
    [table] = tables_of(score_section(run), task="modifiers", matching="strict", average="micro")
    assert table.head[-1] == "abroad (1)"
    assert rows_of(table)[FED][-1] == "–"


def test_the_summary_says_what_was_compared_and_how_the_best_federated_method_stands(run):
    section = summary_section(run)
    assert section.blocks[0].paragraphs == (
        "2 sites (north and south) with 40 training notes in all, and 11 methods compared on "
        "5 test notes of 3 cohorts, 1 of them from no training site (abroad).",
    )
    entities = section.blocks[1].items[0]
    assert best(run, ("federated",), "entities").label == HOSTILE
    assert entities.value == "1.00"
    # 10 entities in all; north's own model answers as fed-medlora does: 11 predicted, 8 right.
    assert entities.sentences[0].startswith(
        f"Sites alone score 0.00 to {16 / 21:.2f}, {8 / 21:.2f} in the mean; against the best of "
        "them, single-site/north: federated "
    )
    assert entities.sentences[1].replace("\u00a0", " ") == (
        "Training on the pooled notes scores 1.00: no clear difference (0.00, 95 % interval "
        "−0.05 to +0.05)."
    )


def test_the_summary_names_sites_where_alone_is_clearly_better(run, tmp_path):
    assert not [s for card in summary_section(run).blocks[1].items for s in card.sentences
                if "alone is clearly better" in s]  # fmt: skip
    folder = full_run(tmp_path / "run")
    file = folder / "comparisons.json"
    rows = json.loads(file.read_text())
    best_at = {"north": (-0.1, -0.2, 0.01), "south": (-0.3, -0.4, -0.1)}
    for row in rows:
        if row["first"] == FED:
            f1, low, high = best_at[row["site"]]
            row.update({"first": HOSTILE, "f1": f1, "low": low, "high": high})
    write_json(folder, "comparisons.json", rows)
    [told] = [s for s in summary_section(read_run(folder)).blocks[1].items[0].sentences
              if "alone is clearly better" in s]  # fmt: skip
    assert told.replace("\u00a0", " ") == (
        "On a site's own test notes, alone is clearly better at: south (−0.30, 95 % interval "
        "−0.40 to −0.10)."
    )


def test_a_site_that_does_not_train_a_task_counts_for_none_of_its_sums(tmp_path):
    folder = full_run(tmp_path / "run")
    data = json.loads((folder / "data.json").read_text())
    data["sites"]["north"]["tasks"] = ["entities", "modifiers"]
    data["sites"]["south"]["tasks"] = ["entities"]
    write_json(folder, "data.json", data)
    run = read_run(folder)
    cards = {card.title: card.sentences[0] for card in summary_section(run).blocks[1].items}
    assert cards["Entities"].startswith("Sites alone score")
    assert cards["Modifiers"].startswith("One site alone scores")
    assert cards["Relations"].startswith("One site alone scores")
    for task, dashed in (("entities", False), ("relations", True)):
        view = {"task": task, "matching": "strict", "average": "micro"}
        [table] = tables_of(score_section(run), **view)
        south = rows_of(table)["single-site/south"]
        assert (set(south) == {"–"}) == dashed


def test_traffic_stands_beside_the_whole_model(run):
    [table] = tables_of(traffic_section(run))
    # 10 million parameters of the backbone itself, two bytes each; 1 MB up of 20.
    assert rows_of(table)[FED] == ["2.000", "1.000", "20.000", "5.0%", "18.000"]


def test_a_new_sites_curve_has_a_line_for_each_start(run):
    section = new_site_section(run)
    numbers = section.blocks[1].numbers[0]
    assert numbers.head == ("", "5 notes", "20 notes")
    assert rows_of(numbers) == {FED: ["1.000", "1.000"], "from scratch": ["0.000", "1.000"]}


def test_scaling_shows_even_partitions_alone_and_not_this_runs_own_sites(run):
    numbers = scaling_section(run).blocks[1].numbers[0]
    assert numbers.head == ("", "1 sites")
    assert "adapted/north" not in rows_of(numbers)
    assert rows_of(numbers)["centralised"] == ["1.000"]


def test_variants_show_the_methods_of_both_runs(run):
    [table] = tables_of(variant_section(run), task="entities", matching="strict")
    assert table.head == ("Method", "this run", "other")
    assert rows_of(table)["centralised"] == ["1.00", "1.00 (0.00)"]
    assert "adapted/north" not in rows_of(table)


def test_seeds_show_every_seed(run):
    [table] = tables_of(seed_section(run), matching="strict")
    assert table.head == ("Method", "mean", "interval", "seed 1", "seed 2")
    assert rows_of(table)[FED] == ["0.52", "0.48\u00a0to\u00a00.56", "0.51", "0.53"]


def test_coverage_is_in_words_for_who_hears_it(run):
    table, cuts = tables_of(coverage_section(run))
    assert table.head == ("Type", "north (site)", "south (site)", "abroad (test only)")
    said = {row.header: [cell.said for cell in row.cells] for g in table.groups for row in g.rows}
    assert said["strength"] == ["exhaustive", "none", "none"]
    assert said["course"] == ["partial", "partial", "none"]
    assert said["drug"] == ["exhaustive", "exhaustive", "annotated"]
    # What is 0 at every site is not told.
    assert rows_of(cuts) == {
        "training notes": ["20", "20"],
        "main entities": ["30", "30"],
        "… cut by a window's edge": ["2", "2"],
        "relations": ["12", "12"],
    }


def test_levels_come_from_the_study_where_the_data_do_not_say_them(folder):
    run = read_run(folder)
    parts = {
        name: part.model_copy(update={"annotates": None}) for name, part in run.data.sites.items()
    }
    data = run.data.model_copy(update={"sites": parts})
    study = {"sites": {"north": {"annotates": {"drug": "partial"}}}}
    section = coverage_section(type(run)(**{**vars(run), "data": data, "study": study}))
    said = {
        row.header: [cell.said for cell in row.cells]
        for group in tables_of(section)[0].groups
        for row in group.rows
    }
    assert said["drug"][:2] == ["partial", "annotated"]
    assert said["problem"][0] == "none"


def test_numbers_are_written_with_a_true_minus_and_no_signed_zero():
    assert [signed(v) for v in (0.1234, -0.1, 0.0, -0.001, None)] == [
        "+0.12", "−0.10", "0.00", "0.00", "–",
    ]  # fmt: skip
    assert interval(0.4, None) == ""
    assert [duration(s) for s in (14.2, 404.7, 7500)] == ["14 s", "6 min 45 s", "2 h 5 min"]


def test_charts_tell_their_numbers_in_words_and_escape_names():
    lines = line_chart(
        "a <b>", [Series("x<y", ((1, 0.5), (2, 0.25)))], x_label="round", y_label="loss"
    )
    assert "loss by round. x&lt;y: 1: 0.5, 2: 0.25." in lines
    assert "<b>" not in lines
    dots = estimate_chart("t", [Estimate("x<y", 0.5, 0.4, 0.6)], x_label="F1")
    assert "F1. x&lt;y: 0.50, interval 0.40 to 0.60." in dots
    assert line_chart("t", [], x_label="", y_label="") == estimate_chart("t", [], x_label="") == ""


def test_the_points_of_a_line_lie_where_their_numbers_say():
    chart = line_chart("t", [Series("s", ((1, 0.0), (2, 0.5), (3, 1.0)))], x_label="", y_label="")
    points = chart.split('points="')[1].split('"')[0]
    places = [tuple(map(float, point.split(","))) for point in points.split()]
    (left, bottom), (middle, half), (right, top) = places
    assert middle == pytest.approx((left + right) / 2, abs=0.1)
    assert half == pytest.approx((bottom + top) / 2, abs=0.1)
    assert left < right
    assert top < bottom


def test_attacks_stand_with_their_intervals_and_what_was_not_measured(run):
    section = leakage_section(run)
    members, secrets, words = tables_of(section)
    north = members.groups[0].rows[0]
    assert [cell.text for cell in north.cells] == [
        "held out", "its loss", "30 / 17 patients", "0.61", "0.51\u00a0to\u00a00.71",
        "0.20", "0.05\u00a0to\u00a00.40",
    ]  # fmt: skip
    assert [
        (row.header, *(cell.text for cell in row.cells[:2])) for row in secrets.groups[0].rows
    ] == [("inside, in 1 note", "6", "1.50"), ("inside, in 16 notes", "6", "7.05")]
    assert [row.cells[4].text for row in words.groups[0].rows] == ["0.80", "0.50"]
    assert "Not measured: south: no held-out note <b>." in section.blocks[-1].paragraphs


def test_of_several_adapters_the_reader_sees_one_row_each_and_one_in_detail(run):
    found = run.leakage
    again = [one.model_copy(update={"method": "other", "auc": 0.52}) for one in found.membership]
    found = found.model_copy(update={"membership": (*found.membership, *again)})
    section = leakage_section(type(run)(**{**vars(run), "leakage": found}))
    overview, *details = tables_of(section)
    assert {row.header: [cell.text for cell in row.cells] for row in overview.groups[0].rows} == {
        "fed-medlora": ["0.55", "0.20", "7.05", "0.80", "0.50"],
        "other": ["0.52", "0.20", "–", "–", "–"],
    }
    assert [section.shown(table.view) for table in details] == [True, True, True, False]


def test_a_run_that_was_not_attacked_has_no_such_section_unless_canaries_were_planted(tmp_path):
    folder = plain_run(tmp_path / "plain")
    assert leakage_section(read_run(folder)) is None
    write_json(folder, "data.json", {"sites": {"north": {"train": 9, "canaries": 3}}})
    [text] = leakage_section(read_run(folder)).blocks
    assert "3 invented secrets were planted" in text.paragraphs[0]
    assert "none of its adapters is to be released" in text.paragraphs[0]
