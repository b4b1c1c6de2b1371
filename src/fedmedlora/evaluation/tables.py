"""Score records in, tables of text out: headers and rows for a terminal, or plain lines.

Nothing is computed here but the choice and the writing of numbers; 0 / 0 is written "n/a".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap

from fedmedlora.evaluation.intervals import MICRO, Level
from fedmedlora.evaluation.records import ALL, ScoreRecord
from fedmedlora.evaluation.tally import Matching, Task

#: How 0 / 0 is written.
UNDEFINED = "n/a"


#: Characters of a line of a title.
_TITLE_WIDTH = 100


@dataclass(frozen=True, slots=True)
class Table:
    """A table of text.

    Attributes:
        title: what it shows; "" for none.
        headers: one for each column.
        rows: each as long as ``headers``.
        left: number of leading columns that hold words; the others hold numbers.
    """

    title: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    left: int = 1


def score_table(records: Sequence[ScoreRecord], *, title: str = "") -> Table:
    """Every record as one row: what it is about, precision, recall, F1, its interval and counts.

    Tasks of which neither gold nor predictions have anything are left out.
    """
    silent = {
        (record.cohort, record.task)
        for record in records
        if record.type == MICRO and record.predicted == record.gold == 0
    }
    rows = [
        (
            record.task,
            record.matching,
            "micro, any type" if record.level == "agnostic" else record.type,
            format_ratio(record.precision),
            format_ratio(record.recall),
            format_ratio(record.f1),
            format_interval(record.low, record.high),
            str(record.tp),
            str(record.predicted),
            str(record.gold),
        )
        for record in records
        if (record.cohort, record.task) not in silent
    ]
    headers = ("task", "matching", "type", "P", "R", "F1", "F1 interval", "TP", "predicted", "gold")
    return Table(title=title, headers=headers, rows=tuple(rows), left=3)


def cohort_table(
    records: Sequence[ScoreRecord],
    *,
    task: Task,
    matching: Matching,
    level: Level = "typed",
    average: str = MICRO,
) -> Table:
    """F1 of every method (rows) on every cohort (columns, "all" first), from each's last round.

    A cohort on which a method was not scored is left blank.

    Args:
        average: "micro", "macro" or a type.
    """
    chosen = last_rounds(
        [
            record
            for record in records
            if (record.task, record.matching, record.level, record.type)
            == (task, matching, level, average)
            and record.document_class is None
        ]
    )
    cohorts = sorted(dict.fromkeys(record.cohort for record in chosen), key=lambda c: c != ALL)
    values = {(record.method, record.cohort): format_ratio(record.f1) for record in chosen}
    methods = dict.fromkeys(record.method for record in chosen)
    return Table(
        title=f"{task}, {matching} F1, {average}{'' if level == 'typed' else ', any type'}",
        headers=("method", *cohorts),
        rows=tuple(
            (method, *(values.get((method, cohort), "") for cohort in cohorts))
            for method in methods
        ),
    )


def method_table(
    records: Sequence[ScoreRecord], *, cohort: str = ALL, average: str = MICRO
) -> Table:
    """F1 of every method (rows) by task and matching (columns) on one cohort.

    Typed, from each method's last round, each with its interval where there is one.
    """
    chosen = last_rounds(
        [
            record
            for record in records
            if (record.cohort, record.level, record.type) == (cohort, "typed", average)
            and record.document_class is None
        ]
    )
    columns = list(dict.fromkeys((record.task, record.matching) for record in chosen))
    values = {
        (record.method, record.task, record.matching): " ".join(
            part
            for part in (format_ratio(record.f1), format_interval(record.low, record.high))
            if part
        )
        for record in chosen
    }
    return Table(
        title=f"F1, {average}, cohort {cohort}",
        headers=("method", *(f"{task} {matching}" for task, matching in columns)),
        rows=tuple(
            (method, *(values.get((method, *column), "") for column in columns))
            for method in dict.fromkeys(record.method for record in chosen)
        ),
    )


def last_rounds(records: Sequence[ScoreRecord]) -> list[ScoreRecord]:
    """The records of each method's last round; all records of methods without rounds."""
    last: dict[str, int] = {}
    for record in records:
        if record.round is not None:
            last[record.method] = max(record.round, last.get(record.method, record.round))
    return [record for record in records if record.round == last.get(record.method)]


def format_ratio(value: float | None) -> str:
    """Three decimals, or "n/a" for 0 / 0."""
    return UNDEFINED if value is None else f"{value:.3f}"


def format_interval(low: float | None, high: float | None) -> str:
    """``[low, high]`` with three decimals, or nothing where there is none."""
    return "" if low is None or high is None else f"[{low:.3f}, {high:.3f}]"


def render_text(table: Table) -> str:
    """The table as aligned plain lines, without a newline at the end; a long title over several.

    Rows that repeat the first cells of the row above stay whole, so that lines can be searched.
    """
    lines = (table.headers, *table.rows)
    widths = [max(len(line[column]) for line in lines) for column in range(len(table.headers))]
    written = [
        "  ".join(
            cell.ljust(width) if column < table.left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    rule = "  ".join("-" * width for width in widths)
    return "\n".join([*wrap(table.title, _TITLE_WIDTH), written[0], rule, *written[1:]])
