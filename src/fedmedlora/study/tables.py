"""Scores and round records in, the tables that a run ends with out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedmedlora.errors import RunError
from fedmedlora.evaluation.records import ALL, ScoreRecord
from fedmedlora.evaluation.tables import Table, last_rounds
from fedmedlora.study.arms import study_arms
from fedmedlora.study.run_folder import RunFolder

_NONE = "–"


def study_tables(out: Path) -> list[Table]:
    """The tables of a finished run: scores of every row, and traffic.

    Raises:
        RunError: the folder is no run, or the run is not finished.
    """
    folder = RunFolder(out)
    content = folder.read_json("scores.json")
    done = {arm.label: folder.done(arm.label) for arm in study_arms(folder.study())}
    try:
        records = [ScoreRecord(**record) for record in content]
        if not records:
            raise RunError(f"{out} has no scores")
        return run_tables(records, done)
    except (TypeError, KeyError, ValueError, AttributeError, ZeroDivisionError) as error:
        raise RunError(
            f"{out}: scores.json or a done.json is not what a run writes there; make the scores "
            "again with rescore"
        ) from error


def run_tables(
    records: Sequence[ScoreRecord], done: Mapping[str, Mapping[str, Any] | None]
) -> list[Table]:
    """F1 of every method on every cohort, and what travelled for it.

    Args:
        records: of all methods.
        done: method -> what was noted when it ended, or None.
    """
    return [_scores(records), *_privacy(done), *_traffic(done)]


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
                known = gold.get((task, cohort)) and (task, method, cohort, "strict") in f1
                written = f"{_two_decimals(strict)} / {_two_decimals(lenient)}"
                cells.append(written if known else _NONE)
            rows.append((task, method, *cells))
    return Table(
        title="F1 strict / lenient, micro, on test notes",
        headers=("task", "method", *cohorts),
        rows=tuple(rows),
        left=2,
    )


def _privacy(done: Mapping[str, Mapping[str, Any] | None]) -> list[Table]:
    rows = []
    notes = {label: note["privacy"] for label, note in done.items() if note and "privacy" in note}
    for label, told in notes.items():
        # A site without a ledger that knows of the run has promised nothing.
        most: Mapping[str, Any] = max(told["sites"].values(), key=_epsilon, default={})
        rows.append(
            (
                label,
                told["unit"],
                "not told" if told["epsilon"] is None else f"{told['epsilon']:.2f}",
                f"{told['delta']:g}",
                format(most.get("noise", 0), ".2f"),
                format(most.get("rate", 0), ".3g"),
                format(most.get("steps", 0), ".0f"),
                told["accountant"],
                told["covers"],
            )
        )
    if not rows:
        return []
    terms = next(iter(notes.values()))
    return [
        Table(
            title="Privacy at the site that has spent most. Epsilon bounds what one unit of the "
            f"training notes can change (neighbours: {terms['neighbours']}). The adversary "
            f"{terms['adversary']}. {terms['sampling']} sampling: rate is batch / units.",
            headers=(
                "method", "unit", "epsilon", "delta", "noise", "rate", "steps", "accountant",
                "covers",
            ),
            rows=tuple(rows),
            left=2,
        )
    ]  # fmt: skip


def _epsilon(site: Mapping[str, Any]) -> float:
    told = site.get("epsilon")
    return math.inf if told is None else float(told)


def _traffic(done: Mapping[str, Mapping[str, Any] | None]) -> list[Table]:
    rows = []
    for label, note in done.items():
        if note is None or not note["rounds"] or len(note["rounds"][0]["sites"]) == 1:
            continue  # nothing travels to a single site
        sites = [site for record in note["rounds"] for site in record["sites"].values()]
        down = sum(site["bytes_down"] for site in sites) / len(sites)
        up = sum(site["bytes_up"] for site in sites) / len(sites)
        whole = 2 * note["backbone_parameters"]
        if "encoder" not in note:  # a LoRA backbone was counted with its adapter on
            whole -= 2 * note["adapter_parameters"]
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
