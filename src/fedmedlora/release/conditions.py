"""A policy held against a run's evidence: conditions out, each with what was found and the bound.

What is not shown does not hold: missing evidence is a failure, never a pass.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedmedlora.config_privacy import PER_ROW
from fedmedlora.errors import FedMedLoRAError
from fedmedlora.evaluation.records import ScoreRecord
from fedmedlora.release.evidence import Evidence
from fedmedlora.release.policy import LeastScore, Policy

_UNITS = ("example", "note", "patient")
#: Nothing was shown.
MISSING = "missing"


@dataclass(frozen=True)
class Condition:
    """One condition of a policy.

    Attributes:
        name: of it.
        holds: whether it does.
        value: what was found, or why nothing was.
        bound: what was asked for.
    """

    name: str
    holds: bool
    value: str
    bound: str


def hold_against(evidence: Evidence, policy: Policy, *, at: Path) -> list[Condition]:
    """Every condition of a policy, and those that every release has.

    Args:
        at: folder from which the policy's paths start.
    """
    found = [_no_canaries(evidence), _licence(policy)]
    found += [_score(evidence, wanted) for wanted in policy.scores]
    found += _membership(evidence, policy)
    found += _exposure(evidence, policy)
    if evidence.privacy is not None or evidence.ledgers:
        bound = "know of the run, and are as they were written"
        found.append(Condition("ledgers", not evidence.ledgers, evidence.ledgers or "yes", bound))
    found += _privacy(evidence, policy)
    if policy.sites is not None:
        found.append(_sites(evidence, policy.sites))
    if policy.verified:
        found.append(
            _told_by(_verified, "verified", "every round is what its replies make", evidence)
        )
    for place in policy.audit:
        found.append(_told_by(_log_is_whole, f"audit {place}", "as it was written", at / place))
    if policy.audit:
        logs = [at / place for place in policy.audit]
        found.append(
            _told_by(_logs_are_complete, "audit", "every contribution is in a log", evidence, logs)
        )
    return found


def _told_by(check: Callable[..., str], name: str, bound: str, *arguments: Any) -> Condition:
    """A condition that holds if a check finds nothing to say against it."""
    try:
        against = check(*arguments)
    except FedMedLoRAError as error:
        against = f"{MISSING}: {error}"
    return Condition(name, not against, against or "yes", bound)


def _no_canaries(evidence: Evidence) -> Condition:
    planted = evidence.planted
    return Condition("no canaries", planted == 0, f"{planted} planted", "0 planted")


def _licence(policy: Policy) -> Condition:
    named = policy.backbone.licence if policy.backbone else ""
    return Condition("licence of the backbone", bool(named), named or MISSING, "named")


def _score(evidence: Evidence, wanted: LeastScore) -> Condition:
    name = f"{wanted.matching} F1 of {wanted.task}, {wanted.cohort}"
    bound = f"at least {wanted.least:.3f}" + (" (lower end)" if wanted.end == "low" else "")
    record = next((one for one in evidence.scores if _is(one, wanted)), None)
    value = None if record is None else record.f1 if wanted.end == "value" else record.low
    if value is None:
        return Condition(name, False, MISSING, bound)
    return Condition(name, value >= wanted.least, f"{value:.3f}", bound)


def _is(one: ScoreRecord, wanted: LeastScore) -> bool:
    return (one.task, one.matching, one.cohort, one.level, one.type, one.document_class) == (
        wanted.task, wanted.matching, wanted.cohort, "typed", "micro", None,
    )  # fmt: skip


def _membership(evidence: Evidence, policy: Policy) -> Iterator[Condition]:
    wanted = policy.membership
    if wanted is None:
        return
    end = " (upper end)" if wanted.end == "high" else ""
    bound = f"at most {wanted.auc:.3f}{end}"
    fault = _stale(evidence)
    records = [
        one
        for one in (evidence.leakage.membership if evidence.leakage else ())
        if one.method == evidence.arm.label
        and wanted.score in (None, one.score)
        and wanted.against in (None, one.against)
        and wanted.site in (None, one.site)
    ]
    if fault or not records:
        yield Condition("membership AUC", False, fault or f"{MISSING}: nothing was compared", bound)
        return
    measured = {one.site for one in records}
    pooled = evidence.arm.kind == "centralised"
    expected = evidence.study.site_names if pooled else evidence.sites
    for site in expected if wanted.site is None else ():
        if site not in measured:
            yield Condition(f"membership AUC, {site}", False, MISSING, bound)
    for one in records:
        value = one.high if wanted.end == "high" else one.auc
        name = f"membership AUC, {one.site}, {one.against}, by {one.score}"
        yield Condition(name, value <= wanted.auc, f"{value:.3f}", bound)
        if wanted.tpr is not None:
            rate = one.tpr_high if wanted.end == "high" else one.tpr
            name = f"membership TPR at 5 % FPR, {one.site}, {one.against}, by {one.score}"
            most = f"at most {wanted.tpr:.3f}{end}"
            yield Condition(name, rate <= wanted.tpr, f"{rate:.3f}", most)


def _stale(evidence: Evidence) -> str:
    """Why leakage.json says nothing about the adapter; "" if it does."""
    if evidence.leakage is None:
        return f"{MISSING}: run `fedmedlora leakage {evidence.folder.path}`"
    measured = evidence.leakage.adapters.get(evidence.arm.label)
    if measured is None:
        return f"{MISSING}: {evidence.arm.label} was not measured"
    return "" if measured == evidence.adapter_sha256 else "of another adapter: measure again"


def _exposure(evidence: Evidence, policy: Policy) -> Iterator[Condition]:
    wanted, run = policy.exposure, evidence.canaries
    if wanted is None or run is None:
        return
    name = f"exposure at {wanted.repetitions} repetitions"
    end = " (upper end)" if wanted.end == "high" else ""
    bound = f"at most {wanted.bits:g} bits{end}"
    records = [
        one
        for one in (run.leakage.exposure if run.leakage else ())
        if one.method == evidence.arm.label and one.repetitions == wanted.repetitions
    ]
    if run.faults or not records:
        why = "; ".join(run.faults) or f"{MISSING}: no canary of so many repetitions was measured"
        yield Condition(name, False, why, bound)
        return
    for one in records:
        value = one.bits if wanted.end == "value" else one.high
        shown = MISSING if value is None else f"{value:.2f} bits"
        holds = value is not None and value <= wanted.bits
        yield Condition(f"{name}, {one.kind}", holds, shown, bound)


def _privacy(evidence: Evidence, policy: Policy) -> Iterator[Condition]:
    wanted, promise = policy.privacy, evidence.privacy
    if wanted is None:
        return
    bounds = {
        "epsilon": f"at most {wanted.epsilon:g}",
        "delta": f"at most {wanted.delta:g}",
        "unit of privacy": f"{wanted.unit} or larger",
        "what epsilon covers": "one row, or more" if wanted.per_row else "more than one row",
        "promise of every site": "every site that contributed",
    }
    if promise is None:
        for name, bound in bounds.items():
            yield Condition(name, False, f"{MISSING}: trained without noise", bound)
        return
    unit = promise.unit
    without = [site for site in evidence.sites if site not in promise.sites]
    told = {
        "epsilon": (promise.most <= wanted.epsilon, f"{promise.most:.4g}"),
        "delta": (promise.delta <= wanted.delta, f"{promise.delta:g}"),
        "unit of privacy": (
            unit in _UNITS and _UNITS.index(unit) >= _UNITS.index(wanted.unit),
            unit,
        ),
        "what epsilon covers": (wanted.per_row or promise.covers != PER_ROW, promise.covers),
        "promise of every site": (
            bool(evidence.sites) and not without,
            f"{MISSING}: {', '.join(without) or 'no site is known'}"
            if without or not evidence.sites
            else "yes",
        ),
    }
    for name, (holds, value) in told.items():
        yield Condition(name, holds, value, bounds[name])


def _sites(evidence: Evidence, least: int) -> Condition:
    bound = f"at least {least} in every round"
    counts = [len(one["contributions"]) for one in evidence.rounds]
    if not counts:
        return Condition("sites", False, MISSING, bound)
    return Condition("sites", min(counts) >= least, str(min(counts)), bound)


def _verified(evidence: Evidence) -> str:
    from fedmedlora.federation.contributions import lineage
    from fedmedlora.federation.delivered import verify_delivered
    from fedmedlora.federation.verify import verify_federation

    federation = evidence.folder.path / "federation" / evidence.arm.label
    verdicts = verify_federation(federation)
    for verdict in verdicts:
        if not verdict.same:
            return f"round {verdict.round}: " + ("; ".join(verdict.faults) or "another adapter")
    if len(verdicts) != len(evidence.rounds):
        return f"{len(verdicts)} rounds there, and the adapter names {len(evidence.rounds)}"
    faults = [*verify_delivered(federation).faults]
    # Sites are counted, and looked for in logs and promises, by what lies beside the adapter.
    if json.loads(json.dumps(lineage(federation))) != list(evidence.rounds):
        faults.append("its contributions.json tells of other contributions than the rounds do")
    return "; ".join(faults)


def _log_is_whole(place: Path) -> str:
    from fedmedlora.federation.audit_check import check_log

    return "; ".join(check_log(place).faults)


def _logs_are_complete(evidence: Evidence, logs: list[Path]) -> str:
    from fedmedlora.federation.audit_check import check_log

    known = {entry.get("sha256") for place in logs for entry in check_log(place).entries}
    statements = [
        (told["round"], one["signed"]["site"], one["signed"]["statement"])
        for told in evidence.rounds
        for one in told["contributions"]
    ]
    if not statements:
        return f"{MISSING}: the adapter names no contribution"
    for number, site, statement in statements:
        if statement not in known:
            return f"the contribution of {site} to round {number} is in none of them"
    return ""
