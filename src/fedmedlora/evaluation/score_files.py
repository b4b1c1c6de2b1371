"""Two files or folders in, gold and predictions; records, table and remarks out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedmedlora.corpus.read import read_documents
from fedmedlora.evaluation.intervals import DEFAULT_BOOTSTRAP, Bootstrap
from fedmedlora.evaluation.records import ScoreRecord, make_records
from fedmedlora.evaluation.tables import Table, score_table
from fedmedlora.evaluation.tally import TASKS, Task, tally_documents
from fedmedlora.schema import DEFAULT_SCHEME, Scheme


@dataclass(frozen=True, slots=True)
class FileScores:
    """The scores of one file of predictions.

    Attributes:
        records: as in scores.json; the cohort is "all".
        documents: gold documents, all of which were scored.
        missing: those without a prediction, which count as predicting nothing.
        set_aside: predictions outside what the annotators covered, neither right nor wrong.
        unscored: predicted relations, where gold has modifiers but no relations.
        given: entities that were scored, if predictions are gold's, exactly and all; else 0.
    """

    records: tuple[ScoreRecord, ...]
    documents: int
    missing: int
    set_aside: int
    unscored: int
    given: int

    def as_dicts(self) -> list[dict[str, Any]]:
        """The records for ``--json``."""
        return [record.as_dict() for record in self.records]

    def table(self) -> Table:
        """Every record as a row."""
        return score_table(self.records)

    def remarks(self) -> list[str]:
        """What a reader of the table must know: counts only, never text."""
        remarks = [f"{self.documents} gold documents"]
        if self.missing:
            remarks.append(
                f"{self.missing} of them have no prediction and count as predicting nothing"
            )
        if self.set_aside:
            remarks.append(
                f"{self.set_aside} predictions of types that the annotators did not cover were "
                "set aside: neither right nor wrong"
            )
        if self.unscored:
            remarks.append(
                f"{self.unscored} predicted relations were not scored: gold has modifiers but no "
                "relation"
            )
        if self.given:
            remarks.append(
                f"all {self.given} entities are gold's own: if they were given, not found (as in "
                "a run's predictions/METHOD/modifiers), take --tasks modifiers,relations"
            )
        return remarks


def score_files(
    gold_path: Path | str,
    pred_path: Path | str,
    *,
    scheme: Scheme = DEFAULT_SCHEME,
    covers: frozenset[str] | None = None,
    method: str = "predictions",
    tasks: Sequence[Task] = TASKS,
    bootstrap: Bootstrap | None = DEFAULT_BOOTSTRAP,
) -> FileScores:
    """Score predictions against gold, each in any format that ``corpus.read`` reads.

    What the annotators covered is what gold's documents say, restricted by ``covers`` if
    that is given; the predictions' own ``covers`` are not looked at.

    Args:
        covers: score these types only.

    Raises:
        DataError: a file cannot be read, or as ``tally_documents``.
        SchemaError: a document breaks a rule of the data model.
    """
    gold, predicted = read_documents(gold_path), read_documents(pred_path)
    tally = tally_documents(gold, predicted, scheme=scheme, covers=covers, tasks=tasks)
    records = make_records(tally, method=method, round=None, cohort="all", bootstrap=bootstrap)
    return FileScores(
        records=tuple(records),
        documents=len(gold),
        missing=tally.missing,
        set_aside=sum(counted.set_aside for counted in tally.tasks.values()),
        unscored=tally.unscored,
        given=sum(_all_right(record) for record in records),
    )


def _all_right(record: ScoreRecord) -> int:
    """How many entities there are, of their strict typed sum; 0 unless gold's are predicted."""
    kind = (record.task, record.matching, record.level, record.type)
    if kind != ("entities", "strict", "typed", "micro") or record.document_class is not None:
        return 0
    return record.gold if record.tp == record.predicted == record.gold else 0
