"""What a promise costs before anything is trained: noise by epsilon, batch, steps and units.

No note is read: how many units a site has is known of synthetic and sampled notes, else a few
numbers stand for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from fedmedlora.config import Study
from fedmedlora.errors import PrivacyError
from fedmedlora.evaluation.tables import Table
from fedmedlora.privacy.accounting import Mechanism, epsilon_of, find_noise
from fedmedlora.study.arms import Arm

_EPSILONS = (1.0, 3.0, 8.0)
_UNITS = (100, 1000, 10_000)
_NEVER = "–"


def privacy_tables(arms: Sequence[Arm]) -> list[Table]:
    """Noise by epsilon for the first private arm of a study; empty if it has none."""
    private = next((arm.study for arm in arms if arm.study.privacy.epsilon is not None), None)
    return [] if private is None else [_table(private)]


def _table(study: Study) -> Table:
    privacy, rounds = study.privacy, study.federation.rounds
    assert privacy.epsilon is not None
    assert privacy.delta is not None
    wanted = sorted({*_EPSILONS, privacy.epsilon})
    batch = privacy.batch or study.training.batch
    rows = []
    known = _sizes(study)
    own_row = "this study" if known else "this study's batch"
    for units in known or _UNITS:
        for expected in dict.fromkeys((max(1, batch // 4), batch, 4 * batch)):
            if expected > units:
                continue
            steps = study.training.steps or ceil(units / expected * study.training.epochs)
            cells = [
                _noise(one, delta=privacy.delta, rate=expected / units, steps=steps * rounds)
                for one in wanted
            ]
            own = cells[wanted.index(privacy.epsilon)]
            rows.append(
                (
                    f"{units:,}",
                    str(expected),
                    own_row if expected == batch else "",
                    f"{expected / units:.3g}",
                    str(steps * rounds),
                    *(_NEVER if noise is None else f"{noise:.2f}" for noise in cells),
                    _NEVER if own is None else f"{own / expected:.3f}",
                    *_given(study, rate=expected / units, steps=steps * rounds),
                )
            )
    given = (
        () if privacy.noise_multiplier is None else (f"epsilon of {privacy.noise_multiplier:g}",)
    )
    examples = (
        "Units are examples of numbers: the study file does not say how many a site has, and no "
        "notes are read. "
    )
    return Table(
        title=("" if known else examples)
        + f"Noise for a budget at delta {privacy.delta:g}, unit: {privacy.unit}, over {rounds} "
        "rounds, nothing spent before (Renyi bound; PRV needs a little less). Noise / batch is "
        "what stays of it in a step, in clipping norms: training suffers from this number",
        headers=(
            "units of a site", "batch", "", "rate", "steps",
            *(f"epsilon {epsilon:g}" for epsilon in wanted),
            f"noise / batch at {privacy.epsilon:g}", *given,
        ),
        rows=tuple(rows),
        left=3,
    )  # fmt: skip


def _noise(epsilon: float, *, delta: float, rate: float, steps: int) -> float | None:
    try:
        return find_noise(epsilon, delta=delta, rate=rate, steps=steps, accountant="rdp")
    except PrivacyError:
        return None


def _given(study: Study, *, rate: float, steps: int) -> tuple[str, ...]:
    """Epsilon of the noise that the study sets itself."""
    privacy = study.privacy
    if privacy.noise_multiplier is None or privacy.delta is None:
        return ()
    spent = [Mechanism(privacy.noise_multiplier, rate, steps)]
    return (f"{epsilon_of(spent, delta=privacy.delta, accountant='rdp'):.2f}",)


def _sizes(study: Study) -> list[int]:
    """How many units the sites have, where the study file says it; else none."""
    if study.privacy.unit != "note" or study.partition is not None:
        return []
    told = [
        site.sample.train or (None if site.synthetic is None else site.synthetic.train)
        for site in study.sites.values()
    ]
    return sorted({count for count in told if count is not None})
