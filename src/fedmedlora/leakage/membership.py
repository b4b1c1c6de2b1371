"""Membership: the losses of a site's training notes beside those of its notes that were held out.

Enters: a bench and an arm. Leaves: an AUC and a true positive rate at 5 % false positives, with
their intervals, for each site and for all of them, by the adapter's loss and by how many times
lower that is than the untrained backbone's.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedmedlora.evaluation.intervals import Bootstrap
from fedmedlora.evaluation.leakage import attack_auc, attack_rate
from fedmedlora.leakage.bench import LeakageBench, NoteLosses
from fedmedlora.leakage.records import ALL, Against, MeasuredUnit, Membership, Score
from fedmedlora.model.adapter import Adapter
from fedmedlora.schema import Document
from fedmedlora.seeds import derive_seed
from fedmedlora.study.arms import Arm
from fedmedlora.study.data import SiteData
from fedmedlora.tasks.canaries import is_planted

#: Notes of a site and split that are looked at, drawn by the seed: the smaller side decides how
#: wide an interval is, and held-out notes are few.
MOST_NOTES = 60
#: A loss of nothing, in nats a token.
_TINY = 1e-6
_SCORES: tuple[Score, ...] = ("loss", "calibrated")


@dataclass(frozen=True)
class _Side:
    """One loss a unit, by score: (units,). And what units there are."""

    scores: dict[Score, NDArray[np.float64]]
    units: frozenset[MeasuredUnit]


def measure_membership(
    bench: LeakageBench, arm: Arm, *, bootstrap: Bootstrap
) -> tuple[list[Membership], list[str]]:
    """An arm's AUCs; and what could not be compared, one sentence each."""
    found: list[Membership] = []
    missing: list[str] = []
    strata: dict[Against, list[tuple[_Side, _Side]]] = {}
    for site in bench.sites(arm):
        adapter = bench.adapter(arm, site.name)
        clean = [one for one in site.train if not is_planted(one)]
        against, notes = _held_out(bench, site)
        members = _measured(bench, arm, adapter, site, clean, split="train")
        others = _measured(bench, arm, adapter, site, notes, split=against)
        if members is None or others is None:
            lacking = "training" if members is None else "held-out"
            missing.append(
                f"{arm.label}: membership at {site.name}: no {lacking} note (without a canary) "
                "to compare"
            )
            continue
        found += _records(arm.label, site.name, against, [(members, others)], bootstrap)
        strata.setdefault(against, []).append((members, others))
    for against, pairs in strata.items():
        if len(pairs) > 1:
            found += _records(arm.label, ALL, against, pairs, bootstrap)
    return found, missing


def _held_out(bench: LeakageBench, site: SiteData) -> tuple[Against, Sequence[Document]]:
    """Notes of the site that nothing was trained on; withheld ones, if there are any."""
    if site.withheld:
        return "withheld", site.withheld
    test = [one for cohort in bench.data.cohorts if cohort.name == site.name
            for one in cohort.documents]  # fmt: skip
    return "held-out", (*site.validation, *test)


def _measured(
    bench: LeakageBench,
    arm: Arm,
    adapter: Adapter,
    site: SiteData,
    documents: Sequence[Document],
    *,
    split: str,
) -> _Side | None:
    """The losses of some of a split's notes; None if nothing can be asked about any."""
    seed = derive_seed(bench.study.seed, "membership", site.name, split)
    chosen = _some(documents, seed=seed)
    if not chosen:
        return None
    found = bench.losses(arm, adapter, site, chosen)
    return _side(chosen, found, bench.before(arm, site, chosen, split=split))


def _some(documents: Sequence[Document], *, seed: int) -> list[Document]:
    """Whole patients, until there are notes enough."""
    units = list(dict.fromkeys(_unit(one, place) for place, one in enumerate(documents)))
    random.Random(seed).shuffle(units)
    sizes = dict.fromkeys(units, 0)
    for place, one in enumerate(documents):
        sizes[_unit(one, place)] += 1
    kept: set[str] = set()
    while units and sum(sizes[unit] for unit in kept) < MOST_NOTES:
        kept.add(units.pop())
    return [one for place, one in enumerate(documents) if _unit(one, place) in kept]


def _unit(document: Document, place: int) -> str:
    return f"note {place}" if document.group is None else f"patient {document.group}"


def _side(documents: Sequence[Document], found: NoteLosses, zero: NoteLosses) -> _Side | None:
    """One mean loss per token for each patient, or note where there are no groups."""
    names = [_unit(one, place) for place, one in enumerate(documents)]
    units = {name: number for number, name in enumerate(dict.fromkeys(names))}
    place = np.array([units[name] for name in names])
    losses, before, targets = (
        np.bincount(place, values, len(units))
        for values in (found.losses, zero.losses, found.targets)
    )
    asked = targets > 0
    if not asked.any():
        return None
    own, untrained = losses[asked] / targets[asked], before[asked] / targets[asked]
    return _Side(
        {"loss": -own, "calibrated": np.log((untrained + _TINY) / (own + _TINY))},
        frozenset("note" if one.group is None else "patient" for one in documents),
    )


def _records(
    label: str,
    site: str,
    against: Against,
    pairs: Sequence[tuple[_Side, _Side]],
    bootstrap: Bootstrap,
) -> list[Membership]:
    records = []
    kinds = frozenset[MeasuredUnit]().union(*(side.units for pair in pairs for side in pair))
    unit: MeasuredUnit = next(iter(kinds)) if len(kinds) == 1 else "unit"
    for score in _SCORES:
        compared = [(a.scores[score], b.scores[score]) for a, b in pairs]
        auc, rate = attack_auc(compared, bootstrap), attack_rate(compared, bootstrap)
        records.append(
            Membership(
                method=label,
                site=site,
                against=against,
                unit=unit,
                members=sum(len(a.scores[score]) for a, _ in pairs),
                others=sum(len(b.scores[score]) for _, b in pairs),
                score=score,
                auc=auc.value,
                low=auc.low,
                high=auc.high,
                tpr=rate.value,
                tpr_low=rate.low,
                tpr_high=rate.high,
            )
        )
    return records
