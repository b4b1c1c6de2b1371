"""What the meter found, as it stands in a run's leakage.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from fedmedlora.errors import RunError
from fedmedlora.study.run_folder import RunFolder

FILE = "leakage.json"
FORMAT = 2
#: Of all sites of an adapter.
ALL = "all"
#: loss: the adapter's own. calibrated: how many times lower than the untrained backbone's.
Score = Literal["loss", "calibrated"]
#: What has one loss: a patient, a note without a group, or some of both.
MeasuredUnit = Literal["patient", "note", "unit"]
#: Notes that nothing was trained on: taken from the training notes at random, or the validation and
#: test notes.
Against = Literal["withheld", "held-out"]
Seen = Literal["update", "sum"]
Question = Literal["there", "whose"]


@dataclass(frozen=True)
class Membership:
    """Whether a loss tells a training note from one that was held out.

    Attributes:
        method: the adapter's label.
        site: whose notes, or "all": the sites' AUCs, averaged by pairs.
        against: what they are compared with.
        unit: of which each has one loss; "unit" where some are patients and some notes.
        members, others: how many units.
        score: what is compared.
        auc: 0.5 is chance.
        low, high: its interval.
        tpr: share of the members that are found where at most 5 % of the others are taken for some;
            see ``evaluation.leakage.attack_rate``.
        tpr_low, tpr_high: its interval.
    """

    method: str
    site: str
    against: Against
    unit: MeasuredUnit
    members: int
    others: int
    score: Score
    auc: float
    low: float
    high: float
    tpr: float
    tpr_low: float
    tpr_high: float


@dataclass(frozen=True)
class Exposed:
    """By how many bits planted secrets stand out of random ones.

    Attributes:
        method: the adapter's label.
        kind: of canary; see ``tasks.canaries``.
        repetitions: in so many notes.
        canaries: how many were measured.
        candidates: random secrets that each was ranked among.
        bits: mean exposure; 1.44 is chance.
        low, high: its interval over canaries; None of a single one.
        most: of the most exposed canary.
    """

    method: str
    kind: str
    repetitions: int
    canaries: int
    candidates: int
    bits: float
    low: float | None
    high: float | None
    most: float


@dataclass(frozen=True)
class RareWords:
    """Whether rare words of one site's notes can be told from one round.

    Attributes:
        method: the federation's label.
        site: whose rare words.
        round: which round.
        seen: "update": the adapters that the sites sent; "sum": the global adapter alone, which is
            all that secure aggregation leaves to be seen.
        question: "there": against words that are in nobody's training notes; "whose": against rare
            words of the other sites.
        members, others: how many words.
        auc: 0.5 is chance.
        low, high: its interval.
        precision: share of members among the ``members`` highest scores.
        chance: what it would be by chance.
    """

    method: str
    site: str
    round: int
    seen: Seen
    question: Question
    members: int
    others: int
    auc: float
    low: float
    high: float
    precision: float
    chance: float


@dataclass(frozen=True)
class Leakage:
    """All of it.

    Attributes:
        seed: of samples, candidates and intervals.
        adapters: label -> SHA-256 (hex) of the adapter that was measured.
        missing: what was not measured, and why, one sentence each.
    """

    seed: int
    adapters: Mapping[str, str]
    membership: tuple[Membership, ...]
    exposure: tuple[Exposed, ...]
    words: tuple[RareWords, ...]
    missing: tuple[str, ...]

    def as_record(self) -> dict[str, Any]:
        """As the file has it."""
        return {"format": FORMAT, **asdict(self)}


def read_leakage(folder: RunFolder) -> Leakage | None:
    """What leakage.json says; None if the run was not measured.

    Raises:
        RunError: the file is broken.
    """
    file = folder.path / FILE
    if not file.is_file():
        return None
    content = folder.read_json(FILE)
    try:
        if content.pop("format") != FORMAT:
            raise ValueError
        return TypeAdapter(Leakage).validate_python(content)
    except (ValidationError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise RunError(
            f"{file} is not what the meter writes there; make it again with "
            f"`fedmedlora leakage {folder.path}`"
        ) from error
