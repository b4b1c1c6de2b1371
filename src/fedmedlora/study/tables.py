"""Scores and round records in, the tables that a run ends with out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fedmedlora.evaluation.records import ALL, ScoreRecord
from fedmedlora.evaluation.tables import Table, last_rounds

_NONE = "–"


def run_tables(
    records: Sequence[ScoreRecord], done: Mapping[str, Mapping[str, Any] | None]
) -> list[Table]:
    """F1 of every method on every cohort, and what travelled for it.

    Args:
        records: of all methods.
        done: method -> what was noted when it ended, or None.
    """
    return [_scores(records), *_traffic(done)]


def _two_decimals(value: float | None) -> str:
    if value is None:
        return _NONE
    return f"{value:.2f}".replace("0.", ".", 1) if value < 1 else "1.0"


def _scores(records: Sequence[ScoreRecord]) -> Table:
    chosen = [
        record
        for record in last_rounds(records)
        if (record.level, record.type) == ("typed", "micro") and record.document_class is None
    ]
    f1 = {(r.task, r.method, r.cohort, r.matching): r.f1 for r in chosen}
    gold = {(r.task, r.cohort): r.gold for r in chosen}
    cohorts = [ALL, *(c for c in dict.fromkeys(r.cohort for r in chosen) if c != ALL)]
    rows: list[tuple[str, ...]] = []
    for task in dict.fromkeys(record.task for record in chosen):
        for method in dict.fromkeys(record.method for record in chosen if record.task == task):
            cells = []
            for cohort in cohorts:
                strict = f1.get((task, method, cohort, "strict"))
                lenient = f1.get((task, method, cohort, "lenient"))
                none = not gold.get((task, cohort))
                cells.append(
                    _NONE if none else f"{_two_decimals(strict)} / {_two_decimals(lenient)}"
                )
            rows.append((task, method, *cells))
    return Table(
        title="F1 strict / lenient, micro, on test notes",
        headers=("task", "method", *cohorts),
        rows=tuple(rows),
        left=2,
    )


def _traffic(done: Mapping[str, Mapping[str, Any] | None]) -> list[Table]:
    rows = []
    for label, note in done.items():
        if note is None or not note["rounds"] or label.split("/")[0] == "single-site":
            continue
        if label == "centralised":
            continue
        sites = [site for record in note["rounds"] for site in record["sites"].values()]
        down = sum(site["bytes_down"] for site in sites) / len(sites)
        up = sum(site["bytes_up"] for site in sites) / len(sites)
        whole = 2 * (note["backbone_parameters"] - note["adapter_parameters"])
        rows.append(
            (
                label,
                f"{down / 1e6:.3f}",
                f"{up / 1e6:.3f}",
                f"{whole / 1e6:.3f}",
                f"{up / whole:.1%}",
            )
        )
    if not rows:
        return []
    return [
        Table(
            title="Sent and received by one site in one round, MB (10^6 bytes, as serialised)",
            headers=("method", "down", "up", "whole model, bf16", "up / whole"),
            rows=tuple(rows),
            left=1,
        )
    ]
