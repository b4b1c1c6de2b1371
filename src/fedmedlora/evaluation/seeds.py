"""Several seeds as one figure: tallies of the same documents in, the mean F1 and its interval out.

A run's F1 varies by what was scored and by the seed that trained it. The interval covers both: a
two-level bootstrap draws seeds with replacement and, once for all of them, documents within each
cohort (Davison and Hinkley, Bootstrap Methods and their Application, 1997, sec. 3.8). Three seeds
say little of how seeds vary: each seed's own F1 stands beside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedmedlora.errors import DataError
from fedmedlora.evaluation.intervals import (
    DEFAULT_BOOTSTRAP,
    Bootstrap,
    percentile_interval,
    resample_micro,
)
from fedmedlora.evaluation.tally import Matching, TaskTally


@dataclass(frozen=True, slots=True)
class SeedsF1:
    """Micro F1 over several seeds.

    Attributes:
        f1: of each seed; ``None`` for 0 / 0.
        mean: over those that exist.
        low, high: interval of the mean; ``None`` where no draw gives one.
    """

    f1: tuple[float | None, ...]
    mean: float | None
    low: float | None
    high: float | None


def pool_over_seeds(
    tallies: Sequence[TaskTally], matching: Matching, bootstrap: Bootstrap = DEFAULT_BOOTSTRAP
) -> SeedsF1:
    """Micro F1 of one method on one cohort over seeds.

    Args:
        tallies: one a seed, of the same documents.
        matching: strict or lenient.
        bootstrap: how the interval is made.

    Raises:
        DataError: the seeds were not scored on the same documents.
    """
    first = tallies[0]
    if any((one.documents, one.strata) != (first.documents, first.strata) for one in tallies):
        raise DataError("seeds can be pooled only where all were scored on the same documents")
    each = [one.micro(matching).f1 for one in tallies]
    kept = [value for value in each if value is not None]
    if not kept:
        return SeedsF1(tuple(each), None, None, None)
    drawn = np.stack([resample_micro(one, matching, bootstrap) for one in tallies], axis=1)
    rng = np.random.default_rng(bootstrap.seed)
    places = rng.integers(len(tallies), size=drawn.shape)
    with np.errstate(invalid="ignore"):
        means = np.take_along_axis(drawn, places, axis=1).mean(axis=1)
    means = means[~np.isnan(means)]
    mean = sum(kept) / len(kept)
    if not len(means):
        return SeedsF1(tuple(each), mean, None, None)
    interval = percentile_interval(means, bootstrap.confidence)
    return SeedsF1(tuple(each), mean, interval.low, interval.high)
