"""A model card: evidence in, README.md out. Counts, scores, names of sites; no text of any note."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from fedmedlora import __version__
from fedmedlora.evaluation.records import ScoreRecord
from fedmedlora.release.evidence import Evidence
from fedmedlora.release.policy import Policy

_WITHOUT = (
    "Trained without differential privacy: nothing bounds what can be found out about a patient "
    "from the adapter. What attacks found is below."
)
_NOT_COVERED = (
    " Not covered by it: the scores above, made of test notes, and the attacks below, made with "
    "the training notes themselves and without noise."
)
_HOW = {
    "federated": "federated by {method}",
    "single": "on the notes of one site alone",
    "centralised": "on the pooled notes of all sites",
    "adapted": "adapted to one site",
    "new-site": "adapted to a new site",
}


def write_card(evidence: Evidence, policy: Policy) -> str:
    """The card of an adapter that may leave."""
    environment = Environment(
        loader=PackageLoader("fedmedlora.release"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # it is Markdown
    )
    study, arm = evidence.study, evidence.arm
    assert policy.backbone is not None
    return environment.get_template("card.md.j2").render(
        study=study.name,
        method=arm.label,
        types=[*study.make_scheme().mains, *study.make_scheme().modifiers],
        version=__version__,
        adapter_sha256=evidence.adapter_sha256,
        policy=policy.name,
        intended_use=policy.intended_use,
        limits=[*policy.limits, *_limits(evidence)],
        rounds=len(evidence.done["rounds"]),
        how=_HOW[arm.kind].format(method=arm.method),
        sites=list(_sites(evidence)),
        scores=list(_scores(evidence)),
        privacy=evidence.privacy.sentence() + _NOT_COVERED if evidence.privacy else _WITHOUT,
        leakage=list(_leakage(evidence)),
        backbone=study.backbone.name,
        licence=policy.backbone.licence,
    )


def _limits(evidence: Evidence) -> Iterator[str]:
    if any(site.synthetic for site in evidence.study.sites.values()):
        yield (
            "Some of its training notes are synthetic: scores on such notes show nothing about "
            "patients' notes."
        )
    yield "Scores are of the cohorts below; notes of another kind, or another hospital, may differ."
    yield "An adapter is made from notes and can carry something of them; see Privacy."


def _sites(evidence: Evidence) -> Iterator[dict[str, str]]:
    told = evidence.data.get("sites", {})
    last = evidence.rounds[-1]["contributions"] if evidence.rounds else []
    shares = {
        # With secure aggregation nobody else knows it.
        one["signed"]["site"]: "its own secret" if one["weight"] is None else f"{one['weight']:.3f}"
        for one in last
    }
    for name in evidence.sites:
        # The pooled site has the notes of all.
        whose = [told[name]] if name in told else list(told.values())
        counts = [int(site["train"]) for site in whose if "train" in site]
        # Of a private row the number of units is told, and no other.
        notes = str(sum(counts)) if counts or evidence.privacy is None else "not told"
        yield {"name": name, "notes": notes, "share": shares.get(name, "none")}


def _scores(evidence: Evidence) -> Iterator[dict[str, str]]:
    by_line = {
        (one.task, one.cohort, one.matching): one
        for one in evidence.scores
        if (one.level, one.type, one.document_class) == ("typed", "micro", None)
    }
    for task, cohort in dict.fromkeys((task, cohort) for task, cohort, _ in by_line):
        yield {
            "task": task,
            "cohort": cohort,
            **{name: _shown(by_line.get((task, cohort, name))) for name in ("strict", "lenient")},
        }


def _shown(record: ScoreRecord | None) -> str:
    if record is None or record.f1 is None:
        return "not measured"
    if record.low is None or record.high is None:
        return f"{record.f1:.3f}"
    return f"{record.f1:.3f} ({record.low:.3f} to {record.high:.3f})"


def _leakage(evidence: Evidence) -> Iterator[str]:
    """What attacks found, in words; lower bounds, all of them."""
    found, label = evidence.leakage, evidence.arm.label
    current = found is not None and found.adapters.get(label) == evidence.adapter_sha256
    if found is None or not current:
        yield "Membership of training notes was not measured."
    else:
        for one in found.membership:
            if one.method == label:
                yield (
                    f"Membership AUC at {one.site}, {one.members} training {one.unit}s against "
                    f"{one.others} {one.against}, by {one.score}: {one.auc:.3f} ({one.low:.3f} to "
                    f"{one.high:.3f}); .5 is chance. Found at 5 % false positives: {one.tpr:.3f} "
                    f"({one.tpr_low:.3f} to {one.tpr_high:.3f})."
                )
    run: Any = evidence.canaries
    if run is None or run.leakage is None:
        yield "Exposure of planted secrets was not measured."
        return
    for one in run.leakage.exposure:
        if one.method == label:
            ends = "" if one.low is None else f" ({one.low:.2f} to {one.high:.2f})"
            yield (
                f"Exposure of {one.canaries} invented secrets {one.kind} annotated spans, planted "
                f"in {one.repetitions} notes each in another run of this study: {one.bits:.2f} "
                f"bits{ends}; 1.44 is chance, 10 the most."
            )
