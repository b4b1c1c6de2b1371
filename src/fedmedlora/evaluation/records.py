"""Scores as records: tallies or documents in, the rows of scores.json out.

A record is one line of a table: counts, the ratios that they give and the interval of F1, for one
method, round, cohort, task, matching, level and type.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from fedmedlora.errors import DataError
from fedmedlora.evaluation.counts import Counts
from fedmedlora.evaluation.intervals import (
    DEFAULT_BOOTSTRAP,
    MACRO,
    MICRO,
    Bootstrap,
    Interval,
    Level,
    Line,
    f1_intervals,
    score_lines,
)
from fedmedlora.evaluation.tally import (
    TASKS,
    Matching,
    Tally,
    Task,
    TaskTally,
    pool_tallies,
    tally_documents,
)
from fedmedlora.schema import Document, Scheme

#: The cohort that pools all cohorts.
ALL = "all"
#: What a model is asked for -> the tasks that its answers are scored on.
SCORED_OF: Mapping[str, tuple[Task, ...]] = {
    "entities": ("entities",),
    "modifiers": ("modifiers", "relations"),
}


@dataclass(frozen=True, slots=True)
class ScoreRecord:
    """One line of scores.

    Attributes:
        method: the method's name.
        round: 1-based, or ``None`` where there are no rounds.
        cohort: the cohort's name, or "all".
        task: entities, modifiers (the spans alone) or relations.
        matching: strict or lenient.
        level: typed, or agnostic (types ignored; micro only).
        type: a type, "micro" or "macro" (the mean over the types that occur in gold).
        tp: true positives; for macro these three are sums over the types in the mean.
        predicted: predictions.
        gold: gold annotations.
        precision: in [0, 1], or ``None`` for 0 / 0. Macro: the mean over types in gold that have
            one.
        recall: likewise.
        f1: ``2 tp / (predicted + gold)``, or ``None`` for 0 / 0. Macro: the mean of the types'.
        low: lower end of the interval of ``f1``, if one was asked for and can be made.
        high: its upper end.
        set_aside: of typed micro only: predictions outside what the annotators covered.
        document_class: the class of documents that this is about, if not all.
    """

    method: str
    round: int | None
    cohort: str
    task: Task
    matching: Matching
    level: Level
    type: str
    tp: int
    predicted: int
    gold: int
    precision: float | None
    recall: float | None
    f1: float | None
    low: float | None = None
    high: float | None = None
    set_aside: int | None = None
    document_class: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The record as it stands in scores.json: optional keys only where they say something."""
        names = self.__slots__
        row = {name: getattr(self, name) for name in names}
        return {name: row[name] for name in names if name not in _OPTIONAL or row[name] is not None}


_OPTIONAL = frozenset({"low", "high", "set_aside", "document_class"})


class Cohort(NamedTuple):
    """One cohort to be scored: gold, predictions, and the types that its annotators covered."""

    gold: Sequence[Document]
    predicted: Sequence[Document]
    covers: frozenset[str] | None = None


def score_documents(
    gold: Sequence[Document],
    predicted: Sequence[Document],
    *,
    scheme: Scheme,
    covers: frozenset[str] | None = None,
    method: str,
    round: int | None,
    cohort: str,
    tasks: Sequence[Task] = TASKS,
    bootstrap: Bootstrap | None = DEFAULT_BOOTSTRAP,
) -> list[ScoreRecord]:
    """Score one method on one cohort; see ``tally_documents`` for the rules and errors.

    Args:
        bootstrap: how to make intervals, or ``None`` for none.
    """
    tally = tally_documents(gold, predicted, scheme=scheme, covers=covers, tasks=tasks)
    return make_records(tally, method=method, round=round, cohort=cohort, bootstrap=bootstrap)


def score_cohorts(
    cohorts: Mapping[str, Cohort],
    *,
    scheme: Scheme,
    method: str,
    round: int | None,
    tasks: Sequence[Task] = TASKS,
    bootstrap: Bootstrap | None = DEFAULT_BOOTSTRAP,
) -> list[ScoreRecord]:
    """Score one method on every cohort, and on "all" of them pooled.

    In the pool each cohort keeps its own covers; counts add, and macro is the mean over the types
    that occur in the pool's gold. Documents of different cohorts may share an id.

    Args:
        cohorts: name -> (gold, predicted, covers).

    Raises:
        DataError: a cohort is named "all", or as ``tally_documents``.
    """
    if ALL in cohorts:
        raise DataError(f"a cohort is named {ALL!r}, which is the pool of all cohorts: rename it")
    tallies = {
        name: tally_documents(gold, predicted, scheme=scheme, covers=covers, tasks=tasks)
        for name, (gold, predicted, covers) in cohorts.items()
    }
    tallies[ALL] = pool_tallies(list(tallies.values()), scheme=scheme)
    return [
        record
        for name, tally in tallies.items()
        for record in make_records(
            tally, method=method, round=round, cohort=name, bootstrap=bootstrap
        )
    ]


def score_classes(
    gold: Sequence[Document],
    predicted: Sequence[Document],
    *,
    classes: Mapping[str, str],
    scheme: Scheme,
    covers: frozenset[str] | None = None,
    method: str,
    round: int | None,
    cohort: str,
    tasks: Sequence[Task] = TASKS,
    bootstrap: Bootstrap | None = DEFAULT_BOOTSTRAP,
) -> list[ScoreRecord]:
    """Score one method on each document class of one cohort, in order of the classes' names.

    Args:
        classes: document id -> class, for every gold document.

    Raises:
        DataError: a gold document has no class, or as ``tally_documents``.
    """
    for document in gold:
        if document.id not in classes:
            raise DataError(f"document {document.id!r} has no class: give every document one")
    records: list[ScoreRecord] = []
    known = {document.id for document in gold}
    for name in sorted({classes[document.id] for document in gold}):
        tally = tally_documents(
            [document for document in gold if classes[document.id] == name],
            # A prediction for no gold document stays in, so that it is refused and not lost.
            [d for d in predicted if d.id not in known or classes[d.id] == name],
            scheme=scheme,
            covers=covers,
            tasks=tasks,
        )
        records += make_records(
            tally,
            method=method,
            round=round,
            cohort=cohort,
            bootstrap=bootstrap,
            document_class=name,
        )
    return records


def make_records(
    tally: Tally,
    *,
    method: str,
    round: int | None,
    cohort: str,
    bootstrap: Bootstrap | None = DEFAULT_BOOTSTRAP,
    document_class: str | None = None,
) -> list[ScoreRecord]:
    """The records of a tally: for each task and matching its types, micro, macro and agnostic."""
    records = []
    for task, counted in tally.tasks.items():
        intervals = f1_intervals(counted, bootstrap) if bootstrap else {}
        for line in score_lines(counted):
            counts, ratios = _score(counted, line)
            interval: Interval | None = intervals.get(line)
            aside = counted.set_aside if line.level == "typed" and line.type == MICRO else None
            records.append(
                ScoreRecord(
                    method=method,
                    round=round,
                    cohort=cohort,
                    task=task,
                    matching=line.matching,
                    level=line.level,
                    type=line.type,
                    tp=counts.tp,
                    predicted=counts.predicted,
                    gold=counts.gold,
                    precision=ratios[0],
                    recall=ratios[1],
                    f1=ratios[2],
                    low=interval.low if interval else None,
                    high=interval.high if interval else None,
                    set_aside=aside or None,
                    document_class=document_class,
                )
            )
    return records


Ratios = tuple[float | None, float | None, float | None]


def _score(tally: TaskTally, line: Line) -> tuple[Counts, Ratios]:
    """The counts of a line, and its precision, recall and F1."""
    if line.type == MACRO:
        by_type = [tally.counts(line.matching, name) for name in tally.types]
        in_gold = [counts for counts in by_type if counts.gold]
        return sum(in_gold, Counts()), (
            _mean([counts.precision for counts in in_gold]),
            _mean([counts.recall for counts in in_gold]),
            _mean([counts.f1 for counts in in_gold]),
        )
    if line.type == MICRO:
        counts = tally.micro(line.matching, agnostic=line.level == "agnostic")
    else:
        counts = tally.counts(line.matching, line.type)
    return counts, (counts.precision, counts.recall, counts.f1)


def _mean(values: Sequence[float | None]) -> float | None:
    """The mean of those that exist; ``None`` if none does."""
    kept = [value for value in values if value is not None]
    return sum(kept) / len(kept) if kept else None
