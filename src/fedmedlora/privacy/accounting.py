"""Mechanisms in, epsilon out; and the noise that keeps a budget. Arithmetic alone, by Opacus.

A mechanism is the Poisson-subsampled Gaussian: every unit of privacy (an example, a note, a
patient) enters a step with probability ``rate``, by itself; the sum of the units' clipped
gradients gets Gaussian noise of ``noise`` times the clipping norm. Neighbours differ by one unit
that adds nothing in one of them. Composition is that of the privacy loss ("prv": Gopi et al., arXiv
2106.02848) or of Renyi divergences ("rdp": Mironov et al., arXiv 1908.10530).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from fedmedlora.errors import ConfigError, PrivacyError

Accountant = Literal["prv", "rdp"]
#: What counts as one in the guarantee; the larger, the later.
Unit = Literal["example", "note", "patient"]

#: Orders of Renyi divergence, dense where the best one usually is; every order takes time.
_ORDERS = [*(1 + x / 5 for x in range(1, 20)), *(x / 2 for x in range(10, 24)), *range(12, 33),
           *range(34, 65, 2), 80, 96, 128, 192, 256, 512, 1024]  # fmt: skip
#: Of epsilon: what the PRV accountant may be off, and how far below a budget the noise may end.
_PRV_ERROR, _SLACK = 0.002, 0.004
#: With less than the rest of a budget, training would be noise alone.
_SPENT = 0.99
_LEAST_NOISE, _MOST_NOISE = 0.05, 1e5


@dataclass(frozen=True, order=True)
class Mechanism:
    """Equal steps.

    Attributes:
        noise: standard deviation of the noise, in clipping norms; > 0.
        rate: with which each unit is drawn, in (0, 1].
        steps: how many, >= 0.
    """

    noise: float
    rate: float
    steps: int


def merged(mechanisms: Iterable[Mechanism]) -> tuple[Mechanism, ...]:
    """The same mechanisms with equal ones as one: accountants take time by entries, not by steps.

    The order of composition does not matter.
    """
    steps: dict[tuple[float, float], int] = {}
    for one in mechanisms:
        key = (one.noise, one.rate)
        steps[key] = steps.get(key, 0) + one.steps
    return tuple(sorted(Mechanism(*key, count) for key, count in steps.items() if count))


def epsilon_of(
    mechanisms: Iterable[Mechanism], *, delta: float, accountant: Accountant = "prv"
) -> float:
    """Epsilon of all of them together: an upper bound.

    Args:
        mechanisms: in any order; of one kind of unit.
        delta: in (0, 1).
        accountant: "prv" is tight, "rdp" fast and a little larger.

    Raises:
        PrivacyError: the accountant cannot say (next to no noise, or a delta that is too small).
        ConfigError: Opacus is not installed.
    """
    return _epsilon(merged(mechanisms), delta, accountant)


@lru_cache(maxsize=512)
def _epsilon(history: tuple[Mechanism, ...], delta: float, accountant: Accountant) -> float:
    if not history:
        return 0.0
    rough = _by_rdp(history, delta)
    if accountant == "rdp" or not math.isfinite(rough):
        return rough
    return min(rough, _by_prv(history, delta, error=_PRV_ERROR * rough))


def _by_rdp(history: tuple[Mechanism, ...], delta: float) -> float:
    one = _opacus().RDPAccountant()
    one.history = [(step.noise, step.rate, step.steps) for step in history]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the ends of the orders, which are wide
        try:
            # Of much noise, an order's bound may be below 0.
            return max(0.0, float(one.get_epsilon(delta=delta, alphas=_ORDERS)))
        except (OverflowError, ValueError, ZeroDivisionError):
            return math.inf


def _by_prv(history: tuple[Mechanism, ...], delta: float, *, error: float) -> float:
    one = _opacus().PRVAccountant()
    one.history = [(step.noise, step.rate, step.steps) for step in history]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = float(one.get_epsilon(delta=delta, eps_error=min(0.01, max(1e-4, error))))
        except (RuntimeError, ValueError, OverflowError, FloatingPointError) as problem:
            raise PrivacyError(
                f"the PRV accountant cannot bound epsilon at delta {delta:g} here; "
                "set privacy.accountant to rdp"
            ) from problem
    return found if math.isfinite(found) else math.inf


def check_left(
    epsilon: float, *, delta: float, spent: Iterable[Mechanism], accountant: Accountant = "prv"
) -> float:
    """What was spent of a budget.

    Args:
        epsilon, delta: of the budget.
        spent: on the same data.
        accountant: see ``epsilon_of``.

    Raises:
        PrivacyError: that leaves nothing to train with.
    """
    gone = epsilon_of(spent, delta=delta, accountant=accountant)
    if gone >= _SPENT * epsilon:
        raise PrivacyError(
            f"the budget is spent: epsilon {gone:.3f} of {epsilon:g} at delta {delta:g}; not a "
            "hundredth of it is left for further training on these data"
        )
    return gone


def find_noise(
    epsilon: float,
    *,
    delta: float,
    rate: float,
    steps: int,
    spent: Iterable[Mechanism] = (),
    accountant: Accountant = "prv",
) -> float:
    """The least noise with which ``steps`` more stay within a budget.

    Args:
        epsilon, delta: of the budget, over what was spent and these steps.
        rate, steps: see ``Mechanism``.
        spent: on the same data before.
        accountant: see ``epsilon_of``.

    Returns:
        a multiplier, by which epsilon is used up to at most 0.4 % of it.

    Raises:
        PrivacyError: what was spent leaves nothing, or no noise is enough.
    """
    before = merged(spent)
    gone = check_left(epsilon, delta=delta, spent=before, accountant=accountant)

    def used(noise: float) -> float:
        try:
            return epsilon_of(
                (*before, Mechanism(noise, rate, steps)), delta=delta, accountant=accountant
            )
        except PrivacyError:
            return math.inf

    high = 1.0
    if accountant == "prv":
        # Fast, and enough: the bound by Renyi divergence is never the lower one.
        with suppress(PrivacyError):
            high = find_noise(
                epsilon, delta=delta, rate=rate, steps=steps, spent=before, accountant="rdp"
            )
    while used(high) > epsilon:
        high *= 2
        if high > _MOST_NOISE:
            raise PrivacyError(
                f"no noise keeps {steps} steps at a sampling rate of {rate:.3g} within epsilon "
                f"{epsilon:g} at delta {delta:g}, of which {gone:.3f} is spent: set a larger "
                "privacy.epsilon"
            )
    return _least(high, epsilon, used)


def _least(high: float, epsilon: float, used: Callable[[float], float]) -> float:
    """Go down from a noise that is enough to the least that is."""
    low = 0.7 * high
    while used(low) <= epsilon:
        high, low = low, 0.7 * low
        if low < _LEAST_NOISE:
            return high
    while high / low > 1.001 and used(high) < (1 - _SLACK) * epsilon:
        middle = math.sqrt(low * high)
        if used(middle) <= epsilon:
            high = middle
        else:
            low = middle
    return high


def _opacus() -> Any:
    try:
        from opacus import accountants
    except ImportError as error:
        raise ConfigError('privacy needs Opacus: pip install "opacus>=1.6"') from error
    return accountants
