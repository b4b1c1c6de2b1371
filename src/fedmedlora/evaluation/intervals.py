"""Bootstrap over documents: tallies in, intervals of F1 and paired differences out.

Documents are drawn with replacement, within each cohort, as often as the cohort has documents
(Efron and Tibshirani, An Introduction to the Bootstrap, 1993, ch. 13: percentile intervals).
F1 is made anew from each draw's summed counts. The draws depend only on the seed and on the sizes
of the cohorts, so two methods on the same documents see the same draws, which pairs them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedmedlora.errors import ConfigError, DataError
from fedmedlora.evaluation.tally import GOLD, MATCHINGS, PREDICTED, Matching, TaskTally

Level = Literal["typed", "agnostic"]
MICRO, MACRO = "micro", "macro"

#: Numbers held at once while drawing; bounds the memory, not the result.
_CHUNK = 1_000_000


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """How intervals are made.

    Attributes:
        resamples: draws, at least 1.
        confidence: in (0, 1); 0.95 leaves 2.5 % on each side.
        seed: at least 0; equal seeds give equal intervals.

    Raises:
        ConfigError: a value outside its range.
    """

    resamples: int = 1000
    confidence: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        if self.resamples < 1:
            raise ConfigError(f"resamples is {self.resamples}; it must be at least 1")
        if not 0 < self.confidence < 1:
            raise ConfigError(f"confidence is {self.confidence}; it must be between 0 and 1")
        if self.seed < 0:
            raise ConfigError(f"the bootstrap's seed is {self.seed}; it must not be negative")


DEFAULT_BOOTSTRAP = Bootstrap()


class Line(NamedTuple):
    """Which F1 of a task: one line of its scores. ``type`` may be "micro" or "macro"."""

    matching: Matching
    level: Level
    type: str


@dataclass(frozen=True, slots=True)
class Interval:
    """A confidence interval, ``low <= high``."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Difference:
    """How much better the first of two methods is on the same documents.

    Attributes:
        f1: F1 of the first minus F1 of the second, in [-1, 1]; ``None`` if either is 0 / 0.
        interval: of the difference; ``None`` if no draw gave both F1.
        p: two-sided: twice the share of draws on the rarer side of zero, at most 1, at least
            2 / (resamples + 1). ``None`` with ``interval``.
    """

    line: Line
    f1: float | None
    interval: Interval | None
    p: float | None


def f1_intervals(
    tally: TaskTally, bootstrap: Bootstrap = DEFAULT_BOOTSTRAP
) -> dict[Line, Interval | None]:
    """The interval of every F1 of a task; ``None`` where no draw gives one.

    A draw in which an F1 is 0 / 0 (a rare type was not drawn) is left out for that F1. Macro is
    the mean over the types that occur in the draw's gold.
    """
    lines, samples = _resample_f1(tally, bootstrap)
    return dict(zip(lines, _percentiles(samples, bootstrap.confidence), strict=True))


def compare_tallies(
    first: TaskTally, second: TaskTally, bootstrap: Bootstrap = DEFAULT_BOOTSTRAP
) -> list[Difference]:
    """Paired differences in F1 between two methods, one for each line that both have.

    Raises:
        DataError: the two were not scored on the same documents with the same gold.
    """
    if first.documents != second.documents or first.strata != second.strata:
        raise DataError("two methods can be compared only on the same documents in the same order")
    golds = [tally.typed[..., GOLD].sum(axis=1) for tally in (first, second)]
    if not np.array_equal(*golds):
        raise DataError("two methods can be compared only on the same gold and the same covers")
    (first_lines, a), (second_lines, b) = (_resample_f1(t, bootstrap) for t in (first, second))
    lines = [line for line in first_lines if line in second_lines]
    drawn = (
        a[:, [first_lines.index(x) for x in lines]] - b[:, [second_lines.index(x) for x in lines]]
    )
    intervals = _percentiles(drawn, bootstrap.confidence)
    observed = []
    for tally, names in ((first, first_lines), (second, second_lines)):
        values = dict(zip(names, _f1(_flat(tally).sum(axis=0)[None], tally)[0], strict=True))
        observed.append(np.array([values[line] for line in lines]))
    found = []
    for place, (line, delta) in enumerate(zip(lines, observed[0] - observed[1], strict=True)):
        interval, p = intervals[place], None
        if interval is not None:
            column = drawn[:, place][~np.isnan(drawn[:, place])]
            rarer = min(int((column <= 0).sum()), int((column >= 0).sum()))
            p = min(1.0, 2 * (rarer + 1) / (len(column) + 1))
        found.append(Difference(line, None if np.isnan(delta) else float(delta), interval, p))
    return found


def resample_micro(
    tally: TaskTally, matching: Matching, bootstrap: Bootstrap = DEFAULT_BOOTSTRAP
) -> NDArray[np.float64]:
    """Typed micro F1 in every draw: (resamples,), NaN for 0 / 0.

    Equal bootstraps draw the same documents for every method and seed.
    """
    lines, samples = _resample_f1(tally, bootstrap)
    drawn: NDArray[np.float64] = samples[:, lines.index(Line(matching, "typed", MICRO))]
    return drawn


def score_lines(tally: TaskTally) -> list[Line]:
    """The lines of a task's scores: typed types, micro and macro, then type-agnostic micro."""
    typed = (*tally.types, MICRO, MACRO)
    return [
        line
        for matching in MATCHINGS
        for line in (
            *(Line(matching, "typed", name) for name in typed),
            Line(matching, "agnostic", MICRO),
        )
    ]


def draw_weights(strata: tuple[int, ...], bootstrap: Bootstrap) -> Iterator[NDArray[np.float64]]:
    """How often each draw holds each document: arrays (draws, documents), whole numbers.

    Together they have ``resamples`` rows. Each row sums to ``strata[i]`` over cohort i.
    """
    rng = np.random.default_rng(bootstrap.seed)
    size = sum(strata)
    rows = max(1, _CHUNK // max(1, size))
    for first in range(0, bootstrap.resamples, rows):
        count = min(rows, bootstrap.resamples - first)
        places = [
            before + rng.integers(documents, size=(count, documents))
            for before, documents in zip(np.cumsum((0, *strata)), strata, strict=False)
            if documents
        ]
        if not places:
            yield np.zeros((count, 0))
            continue
        flat = np.concatenate(places, axis=1) + size * np.arange(count)[:, None]
        yield np.bincount(flat.ravel(), minlength=count * size).reshape(count, size).astype(float)


# A method is compared with many others, one after the other: its own draws are made once. Few are
# kept, for they are a thousand times what a tally is.
@lru_cache(maxsize=16)
def _resample_f1(tally: TaskTally, bootstrap: Bootstrap) -> tuple[list[Line], NDArray[np.float64]]:
    """Every line's F1 in every draw: (draws, lines), NaN for 0 / 0."""
    flat = _flat(tally)
    sums = [weights @ flat for weights in draw_weights(tally.strata, bootstrap)]
    return score_lines(tally), _f1(np.concatenate(sums), tally)


def _flat(tally: TaskTally) -> NDArray[np.float64]:
    """(documents, 4 x types + 2): ``typed`` and ``agnostic`` side by side."""
    typed = tally.typed.reshape(len(tally.documents), 4 * len(tally.types))
    # Whole numbers below 2**53: the sums are exact in float64, in whatever order BLAS adds them.
    return np.concatenate([typed, tally.agnostic], axis=1).astype(float)


def _f1(sums: NDArray[np.float64], tally: TaskTally) -> NDArray[np.float64]:
    """F1 of every line from summed counts (draws, 4 x types + 2): (draws, lines)."""
    typed = sums[:, : 4 * len(tally.types)].reshape(len(sums), len(tally.types), 4)
    totals = typed[..., PREDICTED] + typed[..., GOLD]
    in_gold = typed[..., GOLD] > 0
    columns = []
    with np.errstate(invalid="ignore", divide="ignore"):
        for place in range(len(MATCHINGS)):
            by_type = 2 * typed[..., place] / totals
            micro = 2 * typed[..., place].sum(axis=1) / totals.sum(axis=1)
            macro = np.where(in_gold, by_type, 0).sum(axis=1) / in_gold.sum(axis=1)
            unified = 2 * sums[:, 4 * len(tally.types) + place] / totals.sum(axis=1)
            columns += [by_type, micro[:, None], macro[:, None], unified[:, None]]
    return np.concatenate(columns, axis=1)


def _percentiles(samples: NDArray[np.float64], confidence: float) -> list[Interval | None]:
    """The percentile interval of each column, leaving out NaN."""
    columns = (column[~np.isnan(column)] for column in samples.T)
    return [percentile_interval(kept, confidence) if len(kept) else None for kept in columns]


def percentile_interval(samples: NDArray[np.float64], confidence: float) -> Interval:
    """What a share ``confidence`` of draws lies within, as much left out at either end.

    Args:
        samples: a number of each draw: (draws,), at least one, none of them NaN.
        confidence: in (0, 1).
    """
    tail = 50 * (1 - confidence)
    low, high = np.percentile(samples, (tail, 100 - tail))
    return Interval(float(low), float(high))
