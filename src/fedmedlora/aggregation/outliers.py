"""Which replies of a round look like no honest training: products of updates in, findings out.

An update is a reply minus what its site was sent. One that is much longer than the round's median
could ruin the model. One that points away from the others', where these agree, may be turned round,
or noise, or that of a site unlike the others: honest all the same. A free rider does not train: it
sends back what it got, the global model's last step, or another site's update. Of two updates of
one round that are one, neither can be told to be the copy: both are suspect. One that another site
had in an earlier round is a copy.

Fewer than three replies say nothing of one another.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fedmedlora.errors import ConfigError

Array = NDArray[np.float64]
Action = Literal["refuse", "flag", "off"]
ACTIONS: tuple[Action, ...] = ("refuse", "flag", "off")
#: So many replies are needed to compare them.
LEAST_REPLIES = 3


@dataclass(frozen=True, slots=True)
class ScreeningOptions:
    """Limits of what is taken for honest, and what becomes of the rest.

    Attributes:
        norms: what becomes of an update that is too long.
        directions: of one that points away.
        riders: of one that nobody trained.
        largest_norm: times the round's median norm, > 1.
        smallest_norm: times the median norm, in [0, 1); at most so much is nothing.
        least_agreement: mean cosine between the others' updates, in (0, 1), from which on they are
            said to agree.
        least_share: in [-1, 1]; where the others agree, an update's mean cosine to them must be
            above this share of theirs.
        same: cosine from which on two updates are one, in (0, 1].

    Raises:
        ConfigError: a value out of range.
    """

    norms: Action = "refuse"
    directions: Action = "flag"
    riders: Action = "flag"
    largest_norm: float = 10.0
    smallest_norm: float = 0.01
    least_agreement: float = 0.03
    least_share: float = 0.1
    same: float = 0.9

    def __post_init__(self) -> None:
        good = {
            "norms": self.norms in ACTIONS,
            "directions": self.directions in ACTIONS,
            "riders": self.riders in ACTIONS,
            "largest_norm": self.largest_norm > 1,
            "smallest_norm": 0 <= self.smallest_norm < 1,
            "least_agreement": 0 < self.least_agreement < 1,
            "least_share": -1 <= self.least_share <= 1,
            "same": 0 < self.same <= 1,
        }
        for name, holds in good.items():
            if not holds:
                value = getattr(self, name)
                raise ConfigError(f"federation.screening.{name}: {value!r} is out of range")

    @property
    def is_off(self) -> bool:
        """Whether nothing would come of a finding."""
        return self.norms == self.directions == self.riders == "off"


@dataclass(frozen=True)
class Finding:
    """What one update looks like beside the others of its round.

    Attributes:
        norm: Euclidean, of the update.
        times_median: its norm over the round's median; ``None`` where that is 0.
        cosine: to the sum of the others' unit vectors; ``None`` with fewer than two others.
        agreement: mean cosine to the others.
        others: mean cosine between the others.
        last_step: cosine to the global model's last step.
        nearest: highest cosine to another update.
        earlier: highest cosine to an update that another site had in an earlier round.
        norm_fault: why it is too long; "" if it is not.
        direction_fault: why it points away, likewise.
        rider_fault: why nobody trained it, likewise.
    """

    norm: float
    times_median: float | None = None
    cosine: float | None = None
    agreement: float | None = None
    others: float | None = None
    last_step: float | None = None
    nearest: float | None = None
    earlier: float | None = None
    norm_fault: str = ""
    direction_fault: str = ""
    rider_fault: str = ""

    @property
    def numbers(self) -> dict[str, float]:
        """Those that are known, by name."""
        told = {one.name: getattr(self, one.name) for one in fields(self)}
        return {name: value for name, value in told.items() if isinstance(value, float)}


@dataclass(frozen=True)
class Remembered:
    """The earlier update of another site that an update is most like.

    Attributes:
        cosine: between the two.
        whose: site and round, in words.
    """

    cosine: float
    whose: str


def find_outliers(
    gram: Array,
    options: ScreeningOptions,
    *,
    sites: Sequence[str],
    last_step: bool,
    earlier: Mapping[str, Remembered] | None = None,
) -> list[Finding]:
    """Judge the updates of a round.

    Args:
        gram: products of the K updates with one another, (K, K); with ``last_step``, one row and
            column more: the step that the global model made in the round before.
        options: limits.
        sites: K names, for the reasons.
        last_step: whether there is one.
        earlier: what is remembered of earlier rounds, by site.

    Returns:
        K findings.
    """
    known = dict(earlier or {})

    def judged(k: int, found: Finding, *, twin: str = "") -> Finding:
        copied = known.get(sites[k]) if found.norm > 0 else None
        if copied is None:
            return _judged(found, options, twin=twin, copied="")
        found = replace(found, earlier=copied.cosine)
        return _judged(found, options, twin=twin, copied=copied.whose)

    count = len(sites)
    norms = np.sqrt(np.diag(gram))
    updates = norms[:count]
    if count < LEAST_REPLIES:
        return [judged(k, Finding(float(norm))) for k, norm in enumerate(updates)]
    median = float(np.median(updates))
    times = updates / median if median > 0 else np.full(count, np.nan)
    # Nothing has no direction, and what is far too long should not speak for the others.
    speaks = (updates > 0) & ~(times <= options.smallest_norm) & ~(times > options.largest_norm)
    safe = np.where(norms > 0, norms, 1.0)
    cosines = gram / np.outer(safe, safe)
    findings = []
    for k in range(count):
        others = [j for j in range(count) if j != k and speaks[j]]
        found = Finding(
            norm=float(updates[k]), times_median=None if median == 0 else float(times[k])
        )
        twin = ""
        if updates[k] > 0 and len(others) >= LEAST_REPLIES - 1:
            found = _directed(found, cosines[:count, :count], k, others)
            twin = sites[max(others, key=lambda j: float(cosines[k, j]))]
        if updates[k] > 0 and last_step and norms[-1] > 0:
            found = replace(found, last_step=float(cosines[k, -1]))
        findings.append(judged(k, found, twin=twin))
    return findings


def _directed(found: Finding, cosines: Array, k: int, others: Sequence[int]) -> Finding:
    """With what its direction is beside the others'."""
    own = cosines[k, others]
    among = cosines[np.ix_(others, others)]
    number = len(others)
    pairs = number * (number - 1)
    return replace(
        found,
        cosine=float(own.sum() / max(math.sqrt(max(among.sum(), 0.0)), 1e-12)),
        agreement=float(own.mean()),
        others=float((among.sum() - np.trace(among)) / pairs),
        nearest=float(own.max()),
    )


def _judged(found: Finding, options: ScreeningOptions, *, twin: str, copied: str) -> Finding:
    """With what is wrong with it."""
    norm = direction = rider = ""
    times, last, nearest = found.times_median, found.last_step, found.nearest
    if times is not None and times > options.largest_norm:
        norm = (
            f"its update's norm is {times:.4g} times the round's median, above "
            f"{options.largest_norm:g}"
        )
    elif found.agreement is not None and found.others is not None:
        least = options.least_share * found.others
        if found.others >= options.least_agreement and found.agreement < least:
            direction = (
                f"its update points away from the others': mean cosine {found.agreement:.3f} to "
                f"them, {found.others:.3f} between them"
            )
    if found.norm == 0 or (times is not None and times <= options.smallest_norm):
        share = "" if times is None else f", {times:.2g} times the round's median"
        rider = f"it sent back what it got: its update's norm is {found.norm:.2g}{share}"
    elif last is not None and last >= options.same:
        rider = f"its update is the global model's last step: cosine {last:.4f}"
    elif found.earlier is not None and found.earlier >= options.same:
        rider = f"its update is one that {copied} had before: cosine {found.earlier:.4f}"
    elif nearest is not None and nearest >= options.same:
        rider = f"its update is that of {twin}: cosine {nearest:.4f}"
    return replace(found, norm_fault=norm, direction_fault=direction, rider_fault=rider)
