"""Scores as sections: every method on every cohort, and every type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fedmedlora.evaluation.records import ScoreRecord
from fedmedlora.evaluation.tally import MATCHINGS
from fedmedlora.report.blocks import (
    NONE,
    Cell,
    Choice,
    Figures,
    Group,
    Row,
    Section,
    Table,
    Text,
    interval,
    one_choice,
    ratio,
)
from fedmedlora.report.charts import Estimate, estimate_chart
from fedmedlora.report.methods import KIND_TITLES
from fedmedlora.report.records import Method, MethodKind
from fedmedlora.report.run import Run

MATCHING_CHOICE = one_choice("matching", "Matching", MATCHINGS)
_AVERAGES = (("micro", "micro"), ("macro", "macro"))
#: Style of a kind's marker in figures.
KIND_STYLES: Mapping[MethodKind, int] = {
    "untrained": 4,
    "dictionary": 7,
    "single": 1,
    "federated": 0,
    "personal": 2,
    "adapted": 3,
    "new-site": 6,
    "centralised": 5,
}


def score_section(run: Run) -> Section:
    """F1 of every method on every cohort."""
    figures = [_figure(run, matching) for matching in MATCHINGS]
    tables = [
        _table(run, task, matching, average)
        for task in run.tasks
        for matching in MATCHINGS
        for average, _ in _AVERAGES
    ]
    return Section(
        id="scores",
        title="How well each method finds what is in the notes",
        short="Scores",
        choices=(
            MATCHING_CHOICE,
            one_choice("task", "Task", run.tasks),
            one_choice("average", "Average", _AVERAGES),
        ),
        intervals=True,
        blocks=(
            Text(
                (
                    "F1 is 1 if all and only the annotated spans were found, 0 if none was. Strict "
                    "asks for the exact characters and the type; lenient for the type and some "
                    "overlap. Micro counts every annotation alike, macro every type. Lines and "
                    "ranges are 95 % bootstrap intervals over notes: what would vary with other "
                    "notes of the same kind, not with another training.",
                ),
            ),
            *figures,
            *tables,
            Text(
                (
                    "Bold is the best of a column. A dotted line marks what is one site's own, on "
                    "that site's test notes; a dash that there is no gold, or that the site's own "
                    "model was not trained for the task. Move over a number, or "
                    "walk through the table with the arrow keys, for its interval and counts.",
                ),
                small=True,
            ),
        ),
    )


def type_section(run: Run) -> Section:
    """F1 of every type over all cohorts."""
    tables = [_types(run, task, matching) for task in run.tasks for matching in MATCHINGS]
    return Section(
        id="types",
        title="Type by type",
        short="Types",
        choices=(
            one_choice("task", "Task", run.tasks),
            MATCHING_CHOICE,
            Choice(
                "method",
                "Methods",
                tuple((method.label, method.label) for method in run.methods),
                _first_shown(run),
                several=True,
            ),
        ),
        intervals=True,
        blocks=(Text(("F1 over all test notes, by type.",)), *tables),
    )


def by_kind(run: Run) -> list[tuple[str, list[Method]]]:
    """The methods in groups, in the order of the kinds, then of the study."""
    groups = [(title, [m for m in run.methods if m.kind == k]) for k, title in KIND_TITLES.items()]
    return [(title, methods) for title, methods in groups if methods]


def best(run: Run, kinds: Sequence[str], task: str, *, matching: str = "strict") -> Method | None:
    """The method of these kinds with the best micro F1 over all cohorts; the first among equals."""
    scored = [
        (record.f1, method)
        for method in run.methods
        if method.kind in kinds
        and run.trains(method, task)
        and (record := run.score(method.label, "all", task, matching=matching)) is not None
        and record.f1 is not None
    ]
    return max(scored, key=lambda pair: pair[0])[1] if scored else None


def _first_shown(run: Run) -> tuple[str, ...]:
    found = [
        best(run, kinds, run.tasks[0]) if run.tasks else None
        for kinds in (("federated",), ("single",), ("centralised",))
    ]
    labels = [method.label for method in found if method is not None]
    return tuple(labels) or tuple(method.label for method in run.methods[:2])


def _figure(run: Run, matching: str) -> Figures:
    charts = []
    for task in run.tasks:
        rows = []
        for _, methods in by_kind(run):
            for method in methods:
                record = run.score(method.label, "all", task, matching=matching)
                if record is not None and record.f1 is not None:
                    style = KIND_STYLES[method.kind]
                    rows.append(Estimate(method.label, record.f1, record.low, record.high, style))
        charts.append(estimate_chart(f"{task}, all cohorts", rows, x_label=f"{matching} F1, micro"))
    return Figures(tuple(charts), view={"matching": matching})


def _table(run: Run, task: str, matching: str, average: str) -> Table:
    cohorts = ("all", *run.cohorts)

    def record(method: Method, cohort: str) -> ScoreRecord | None:
        if not run.trains(method, task):
            return None
        return run.score(method.label, cohort, task, matching=matching, type=average)

    top = {
        cohort: max(
            (r.f1 for m in run.methods if (r := record(m, cohort)) and r.f1 is not None),
            default=None,
        )
        for cohort in cohorts
    }
    groups = []
    for title, methods in by_kind(run):
        rows = []
        for method in methods:
            cells = []
            for cohort in cohorts:
                cells.append(
                    _cell(
                        record(method, cohort),
                        top[cohort],
                        home=method.site == cohort and method.kind != "new-site",
                    )
                )
            rows.append(Row(_row_name(method), tuple(cells)))
        groups.append(Group(title, tuple(rows)))
    return Table(
        caption=f"{task.capitalize()}: {matching} F1, {average}, on test notes",
        head=("Method", *(_cohort_name(run, cohort) for cohort in cohorts)),
        groups=tuple(groups),
        view={"task": task, "matching": matching, "average": average},
        walk=True,
    )


def _row_name(method: Method) -> str:
    if method.kind != "new-site" or method.notes is None:
        return method.label
    return f"{method.label} ({method.notes} notes)"


def _cohort_name(run: Run, cohort: str) -> str:
    if cohort == "all":
        return "all cohorts"
    part = run.data.cohorts.get(cohort)
    return cohort if part is None or part.documents is None else f"{cohort} ({part.documents})"


def _cell(record: ScoreRecord | None, top: float | None, *, home: bool = False) -> Cell:
    if record is None or record.f1 is None:
        return Cell(NONE, said="no score")
    strong = record.f1 == top
    notes = ("best", "own notes")
    said = [note for note, holds in zip(notes, (strong, home), strict=True) if holds]
    return Cell(
        ratio(record.f1),
        note=score_note(record),
        said=", ".join([ratio(record.f1), *said]),
        strong=strong,
        mark="home" if home else "",
    )


def score_note(record: ScoreRecord) -> str:
    """The interval of a score and what it was counted from."""
    between = interval(record.low, record.high)
    counts = f"{record.tp:,} right, {record.gold:,} in gold, {record.predicted:,} predicted"
    return f"{between}; {counts}" if between else counts


def _types(run: Run, task: str, matching: str) -> Table:
    scheme = [*run.scheme.types]
    found = {r.type for r in run.scores if r.task == task and r.gold} - {"micro", "macro"}
    types = [t for t in scheme if t in found] + sorted(found - set(scheme))
    groups = []
    for name in types:
        rows = []
        gold = 0
        for method in run.methods:
            record = run.score(method.label, "all", task, matching=matching, type=name)
            if record is None:
                continue
            gold = record.gold
            rows.append(
                Row(
                    method.label,
                    (
                        Cell(
                            ratio(record.f1),
                            note=interval(record.low, record.high),
                            bar=record.f1 or 0.0,
                            style=KIND_STYLES[method.kind],
                            number=False,
                        ),
                        Cell(ratio(record.precision)),
                        Cell(ratio(record.recall)),
                    ),
                    pick=method.label,
                )
            )
        groups.append(Group(f"{name} ({gold:,} in gold)", tuple(rows)))
    return Table(
        caption=f"{task.capitalize()} by type: {matching} F1 over all test notes",
        head=("Method", "F1", "Precision", "Recall"),
        groups=tuple(groups),
        view={"task": task, "matching": matching},
    )
