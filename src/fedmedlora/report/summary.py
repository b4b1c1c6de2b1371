"""The numbers of a run in, what they say in plain words out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fedmedlora.evaluation.records import ScoreRecord
from fedmedlora.report.blocks import (
    Card,
    Cards,
    Section,
    Text,
    counted,
    interval,
    listed,
    ratio,
    signed,
    signed_interval,
)
from fedmedlora.report.charts import Estimate, estimate_chart
from fedmedlora.report.joining import decide, find_comparison
from fedmedlora.report.records import Method, MethodKind
from fedmedlora.report.run import Run
from fedmedlora.report.scores import KIND_STYLES, best

#: Kinds that are put beside one another, and what they are called there.
_KINDS: Mapping[MethodKind, str] = {
    "untrained": "untrained",
    "dictionary": "dictionary",
    "single": "one site alone",
    "federated": "federated",
    "centralised": "pooled notes",
}


def summary_section(run: Run) -> Section:
    """What was compared, and what the best federated method scores beside the others."""
    remarks = [
        "Strict, micro, over the test notes of all cohorts together; of each kind the best method."
    ]
    federated = [method for method in run.methods if method.kind == "federated"]
    if len(federated) > 1:
        remarks.append(
            f"The best of {len(federated)} federated methods was chosen on these same notes, "
            "which flatters it a little."
        )
    cards = tuple(card for task in run.tasks if (card := _card(run, task)) is not None)
    return Section(
        id="summary",
        title="In short",
        short="In short",
        blocks=(
            Text((_what(run), *_without(run))),
            *((Cards(cards),) if cards else ()),
            Text((" ".join(remarks),), small=True),
        ),
    )


def _without(run: Run) -> list[str]:
    if not run.unfinished:
        return []
    return [
        f"Not here, because the run has not come that far: {listed(list(run.unfinished))}. Run the "
        "study again on this folder: it goes on where it stopped."
    ]


def _card(run: Run, task: str) -> Card | None:
    lead = best(run, ("federated",), task)
    record = _pooled(run, lead.label, task) if lead else None
    if lead is None or record is None:
        return None
    rows = []
    for kind, name in _KINDS.items():
        found = best(run, (kind,), task)
        one = _pooled(run, found.label, task) if found else None
        if one is not None and one.f1 is not None:
            rows.append(Estimate(name, one.f1, one.low, one.high, KIND_STYLES[kind]))
    between = interval(record.low, record.high)
    return Card(
        title=task.capitalize(),
        value=ratio(record.f1),
        detail=f"F1 of {lead.label}" + (f", 95 % interval {between}" if between else ""),
        chart=estimate_chart(f"{task}, best of each kind", rows, x_label="strict F1"),
        sentences=tuple(_sentences(run, lead, record, task)),
    )


def _what(run: Run) -> str:
    sites, cohorts = run.data.sites, run.data.cohorts
    methods = counted(len(run.methods), "method")
    if not sites:
        return f"{methods} compared on {counted(len(run.cohorts), 'cohort')} of test notes."
    notes = sum(part.train or 0 for part in sites.values())
    tested = sum(part.documents or 0 for part in cohorts.values())
    elsewhere = [name for name in cohorts if name not in sites]
    more = (
        f", {len(elsewhere)} of them from no training site ({listed(elsewhere)})"
        if elsewhere
        else ""
    )
    return (
        f"{counted(len(sites), 'site')} ({listed(list(sites))}) with "
        f"{counted(notes, 'training note')} in all, and {methods} compared on "
        f"{counted(tested, 'test note')} of {counted(len(cohorts), 'cohort')}{more}."
    )


def _pooled(run: Run, label: str, task: str) -> ScoreRecord | None:
    record = run.score(label, "all", task)
    return record if record is not None and record.f1 is not None else None


def _singles(run: Run, task: str) -> list[tuple[Method, ScoreRecord]]:
    return [
        (method, record)
        for method in run.methods
        if method.kind == "single"
        and run.trains(method, task)
        and (record := _pooled(run, method.label, task)) is not None
    ]


def _sentences(run: Run, lead: Method, record: ScoreRecord, task: str) -> list[str]:
    told = []
    if singles := _singles(run, task):
        told.append(_beside_singles(run, lead, record, singles, task))
        told += _better_alone(run, lead, [method for method, _ in singles], task)
    for kind, start in (
        ("centralised", "Training on the pooled notes scores"),
        ("dictionary", "A dictionary of training mentions scores"),
    ):
        other = best(run, (kind,), task)
        beside = _pooled(run, other.label, task) if other else None
        if other is not None and beside is not None:
            compared = _beside(run, (lead, record), (other, beside), task)
            told.append(f"{start} {ratio(beside.f1)}: {compared}.")
    return told


def _beside_singles(
    run: Run,
    lead: Method,
    record: ScoreRecord,
    singles: Sequence[tuple[Method, ScoreRecord]],
    task: str,
) -> str:
    values = sorted(one.f1 or 0.0 for _, one in singles)
    strongest = max(singles, key=lambda pair: pair[1].f1 or 0.0)
    told = _beside(run, (lead, record), strongest, task)
    if len(singles) == 1:
        return f"One site alone scores {ratio(values[0])}: {told}."
    mean = sum(values) / len(values)
    return (
        f"Sites alone score {ratio(values[0])} to {ratio(values[-1])}, {ratio(mean)} in the mean; "
        f"against the best of them, {strongest[0].label}: {told}."
    )


def _better_alone(run: Run, lead: Method, singles: Sequence[Method], task: str) -> list[str]:
    """Sites that would lose, which the sum over all cohorts does not show."""
    found = []
    for method in singles:
        site = method.site or ""
        one = find_comparison(run, lead.label, method.label, cohort=site, task=task)
        if one is not None and one.f1 is not None and decide(one.low, one.high) == "no":
            between = signed_interval(one.low, one.high)
            found.append(f"{site} ({signed(one.f1)}, 95 % interval {between})")
    if not found:
        return []
    return [f"On a site's own test notes, alone is clearly better at: {listed(found)}."]


def _beside(
    run: Run, ours: tuple[Method, ScoreRecord], theirs: tuple[Method, ScoreRecord], task: str
) -> str:
    """How the first stands beside the second: by the paired interval, or else by both intervals."""
    (method, record), (other, beside) = ours, theirs
    paired = find_comparison(run, method.label, other.label, cohort="all", task=task)
    if paired is not None and paired.f1 is not None:
        words = {
            "yes": "federated is clearly above",
            "no": "federated is clearly below",
            "not clear": "no clear difference",
        }
        between = signed_interval(paired.low, paired.high)
        shown = signed(paired.f1) + (f", 95 % interval {between}" if between else "")
        return f"{words[decide(paired.low, paired.high)]} ({shown})"
    difference = (record.f1 or 0.0) - (beside.f1 or 0.0)
    if record.low is None or record.high is None or beside.low is None or beside.high is None:
        return f"federated differs by {signed(difference)}"
    if record.low > beside.high or record.high < beside.low:
        way = "above" if difference > 0 else "below"
        return f"federated is {way} ({signed(difference)}, the intervals do not overlap)"
    return f"federated differs by {signed(difference)}, the intervals overlap"
