"""How well an attacker does: scores of what was trained on and of what was not in, AUC out.

Arithmetic alone: whose losses these are, and of what, ``fedmedlora.leakage`` says.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import beta

from fedmedlora.errors import DataError
from fedmedlora.evaluation.intervals import (
    DEFAULT_BOOTSTRAP,
    Bootstrap,
    Interval,
    draw_weights,
    percentile_interval,
)

#: Mean exposure, in bits, of a secret that was never seen: of -log2 of a uniform number.
CHANCE_BITS = 1 / math.log(2)
#: Of what is no member, the share that an attacker may take for one: see ``attack_rate``.
FALSE_ALARMS = 0.05


@dataclass(frozen=True, slots=True)
class Estimated:
    """A value with its interval, ``low <= high``."""

    value: float
    low: float
    high: float


def attack_auc(
    strata: Sequence[tuple[ArrayLike, ArrayLike]], bootstrap: Bootstrap = DEFAULT_BOOTSTRAP
) -> Estimated:
    """Chance that a member scores above one that is none, ties half; with a bootstrap interval.

    The area under the curve of the attack that says "member" above a threshold (Yeom et al., CSF
    2018, with score = minus loss). Only members and others of one stratum (a site) are compared;
    of several, their AUCs are averaged by numbers of pairs. All are drawn with replacement. Where
    no draw differs (every pair is won), the interval is the exact one of as many trials as there
    are pairs without a unit in common: four patients above four others are .40 to 1, not 1 to 1.

    Args:
        strata: of each, scores of what was trained on, the higher the more like a member, one a
            unit; and of what was not.

    Raises:
        DataError: there is nothing to compare, or a score is not finite.
    """
    if not strata:
        raise DataError("members: there is nothing to compare")
    values, drawn, pairs, apart = [], [], [], 0
    for place, (members, others) in enumerate(strata):
        inside, outside = _finite("members", members), _finite("others", others)
        above = (inside[:, None] > outside) + 0.5 * (inside[:, None] == outside)
        own = replace(bootstrap, seed=bootstrap.seed + place)
        weights = np.concatenate(list(draw_weights((len(inside), len(outside)), own)))
        first, second = weights[:, : len(inside)], weights[:, len(inside) :]
        drawn.append(((first @ above) * second).sum(axis=1) / above.size)
        values.append(float(above.mean()))
        pairs.append(above.size)
        apart += min(above.shape)
    value = float(np.average(values, weights=pairs))
    averages = np.average(drawn, axis=0, weights=pairs)
    interval = percentile_interval(averages, bootstrap.confidence)
    if interval.low == interval.high:
        interval = _exact_interval(value * apart, apart, confidence=bootstrap.confidence)
    return Estimated(value, interval.low, interval.high)


def attack_rate(
    strata: Sequence[tuple[ArrayLike, ArrayLike]],
    bootstrap: Bootstrap = DEFAULT_BOOTSTRAP,
    *,
    false_alarms: float = FALSE_ALARMS,
) -> Estimated:
    """Share of members found with few false alarms: a true positive rate at a false one.

    A mean over all notes hides the few that are exposed (Carlini et al., S&P 2022, arXiv
    2112.03570). Of each stratum's n others, k = floor(``false_alarms`` n) may be taken for members:
    found are the members above the (k + 1)th highest of the others; ties are not found. By chance
    that is (k + 1) / (n + 1): more than ``false_alarms`` where others are few. Strata are averaged
    by numbers of members.

    The interval is the wider, at each end, of a bootstrap over members and others and of the exact
    one of a share (Clopper and Pearson 1934): none found of three is not "none for certain".

    Args:
        strata: as of ``attack_auc``.
        bootstrap: gives draws and confidence.
        false_alarms: in [0, 1).

    Raises:
        DataError: there is nothing to compare, a score is not finite, or ``false_alarms`` is out of
            range.
    """
    if not strata:
        raise DataError("members: there is nothing to compare")
    if not 0 <= false_alarms < 1:
        raise DataError(f"a false positive rate of {false_alarms} is not in [0, 1)")
    found, members, drawn = 0, 0, []
    for place, (inside, outside) in enumerate(strata):
        own, others = _finite("members", inside), np.sort(_finite("others", outside))[::-1]
        allowed = math.floor(false_alarms * len(others) + 1e-9)
        seeded = replace(bootstrap, seed=bootstrap.seed + place)
        weights = np.concatenate(list(draw_weights((len(own), len(others)), seeded)))
        last = (weights[:, len(own) :].cumsum(axis=1) > allowed).argmax(axis=1)
        hits = weights[:, : len(own)] * (own > others[last][:, None])
        drawn.append(hits.sum(axis=1))
        found += int((own > others[allowed]).sum())
        members += len(own)
    sampled = percentile_interval(np.sum(drawn, axis=0) / members, bootstrap.confidence)
    exact = _exact_interval(found, members, confidence=bootstrap.confidence)
    low, high = min(sampled.low, exact.low), max(sampled.high, exact.high)
    return Estimated(found / members, low, high)


def _exact_interval(found: float, of: int, *, confidence: float) -> Interval:
    """Of a share (Clopper and Pearson 1934); ties may count half."""
    tail = (1 - confidence) / 2
    low = float(beta.ppf(tail, found, of - found + 1)) if found else 0.0
    high = float(beta.ppf(1 - tail, found + 1, of - found)) if found < of else 1.0
    return Interval(low, high)


def precision_at(members: ArrayLike, others: ArrayLike, *, count: int) -> float:
    """Share of members among the ``count`` highest scores; ties count as their mean would.

    Raises:
        DataError: fewer scores than ``count``, none at all, or one is not finite.
    """
    inside, outside = _finite("members", members), _finite("others", others)
    scores = np.concatenate([inside, outside])
    if not 1 <= count <= len(scores):
        raise DataError(f"precision at {count} of {len(scores)} scores")
    last = np.sort(scores)[-count]
    is_member = np.arange(len(scores)) < len(inside)
    sure, tied = scores > last, scores == last
    room = count - int(sure.sum())
    hits = float(is_member[sure].sum()) + room * float(is_member[tied].mean())
    return hits / count


def exposure(secret: float, candidates: ArrayLike) -> float:
    """Bits by which a secret stands out: log2 |R| - log2 rank (Carlini et al., USENIX 2019, eq. 2).

    R is the candidates and the secret; rank 1 is the lowest loss, and among equal losses the secret
    takes the middle. At most log2 |R|: 10 bits for 1,023 candidates.

    Args:
        secret: its loss.
        candidates: losses of secrets of the same form, drawn at random and never seen.

    Raises:
        DataError: there are no candidates, or a loss is not finite.
    """
    others = _finite("candidates", candidates)
    own = float(_finite("secret", [secret])[0])
    rank = 1 + float((others < own).sum()) + 0.5 * float((others == own).sum())
    return math.log2(len(others) + 1) - math.log2(rank)


def mean_with_interval(
    values: Sequence[float], bootstrap: Bootstrap = DEFAULT_BOOTSTRAP
) -> tuple[float, Interval | None]:
    """The mean, with a bootstrap interval over the values; none of a single one.

    Raises:
        DataError: there are no values, or one is not finite.
    """
    found = _finite("values", values)
    if len(found) == 1:
        return float(found[0]), None
    weights = np.concatenate(list(draw_weights((len(found),), bootstrap)))
    means = weights @ found / len(found)
    return float(found.mean()), percentile_interval(means, bootstrap.confidence)


def _finite(name: str, values: ArrayLike) -> NDArray[np.float64]:
    found = np.asarray(values, dtype=np.float64)
    if found.ndim != 1 or not len(found):
        raise DataError(f"{name}: there is nothing to compare")
    if not np.isfinite(found).all():
        raise DataError(f"{name}: a score is not finite")
    return found
