"""Was joining worth it? Each site's own test notes, alone against joined: verdicts and tables."""

from __future__ import annotations

from typing import Literal

from fedmedlora.evaluation.tally import MATCHINGS
from fedmedlora.report.blocks import (
    NONE,
    Cell,
    Group,
    Row,
    Section,
    Table,
    Text,
    Verdict,
    Verdicts,
    listed,
    one_choice,
    ratio,
    signed,
    signed_interval,
)
from fedmedlora.report.methods import JOINED
from fedmedlora.report.records import Comparison, Method
from fedmedlora.report.run import Run
from fedmedlora.report.scores import MATCHING_CHOICE, best, score_note

Answer = Literal["yes", "no", "not clear"]
_MARKS = {"yes": "yes", "no": "no", "not clear": "unclear"}


def decide(low: float | None, high: float | None) -> Answer:
    """Whether joining was worth it, from the interval of joined minus alone.

    Yes if all of it is above zero, no if all of it is below, not clear otherwise or without one.
    """
    if low is None or high is None:
        return "not clear"
    return "yes" if low > 0 else "no" if high < 0 else "not clear"


def find_comparison(
    run: Run, first: str, second: str, *, cohort: str, task: str, matching: str = "strict"
) -> Comparison | None:
    """First minus second on a cohort, whichever way round the run compared them."""
    for one in run.comparisons:
        if (one.cohort, one.task, one.matching, one.type) != (cohort, task, matching, "micro"):
            continue
        if (one.first, one.second) == (first, second):
            return one
        if (one.first, one.second) == (second, first):
            return one.model_copy(
                update={
                    "first": first,
                    "second": second,
                    "f1": None if one.f1 is None else -one.f1,
                    "low": None if one.high is None else -one.high,
                    "high": None if one.low is None else -one.low,
                }
            )
    return None


def joining_section(run: Run) -> Section | None:
    """A verdict for each site and the numbers behind it; None without sites or joined methods."""
    alone = [m for m in run.methods if m.kind == "single" and m.site in run.cohorts]
    joined = [method for method in run.methods if method.kind in JOINED]
    if not alone or not joined or not run.tasks:
        return None
    lead = best(run, ("federated",), run.tasks[0]) or joined[0]
    verdicts = []
    if run.comparisons:
        for site in dict.fromkeys(method.site or "" for method in alone):
            verdicts += [v for m in _shown(run, site, lead) if (v := _verdict(run, site, m))]
    tables = [
        _table(run, alone, joined, task=task, matching=matching)
        for task in run.tasks
        for matching in MATCHINGS
    ]
    remarks = [
        "Each site's own test notes. The difference is against the site alone, on the same notes; "
        "its 95 % interval is a paired bootstrap over notes. Yes: the whole interval is above "
        "zero. No: it is below. Not clear: zero is inside, so these notes cannot tell.",
    ]
    if len([m for m in run.methods if m.kind == "federated"]) > 1:
        remarks.append(
            f"Verdicts are for {lead.label}, the federated method with the best strict F1 for "
            f"{run.tasks[0]} over all test notes, and for what is the site's own; all others are "
            "in the tables."
        )
    return Section(
        id="joining",
        title="Was joining worth it?",
        short="Joining",
        choices=(one_choice("task", "Task", run.tasks), MATCHING_CHOICE),
        lead=2 if verdicts else 1,
        blocks=(
            Text(tuple(remarks)),
            *((Verdicts(tuple(verdicts)),) if verdicts else ()),
            *tables,
        ),
    )


def _shown(run: Run, site: str, lead: Method) -> list[Method]:
    own = [m for m in run.methods if m.kind in ("personal", "adapted") and m.site == site]
    return [lead, *own]


def _verdict(run: Run, site: str, method: Method) -> Verdict | None:
    """Over the tasks: yes if any gained and none lost, no the other way round."""
    # A site may have several models of its own; the run says against which it compared.
    alone = [m for m in run.methods if m.kind == "single" and m.site == site]
    found = []
    for task in run.tasks:
        made = (find_comparison(run, method.label, a.label, cohort=site, task=task) for a in alone)
        one = next(filter(None, made), None)
        if one is not None and one.f1 is not None:
            found.append((task, one))
    if not found:
        return None
    answers: dict[Answer, list[str]] = {"yes": [], "no": [], "not clear": []}
    for task, one in found:
        between = signed_interval(one.low, one.high)
        told = f"{task} ({signed(one.f1)}{', ' + between if between else ''})"
        answers[decide(one.low, one.high)].append(told)
    gained, lost = answers["yes"], answers["no"]
    word = "yes and no" if gained and lost else "yes" if gained else "no" if lost else "not clear"
    parts = [
        f"{start} {listed(tasks)}"
        for start, tasks in (
            ("it gained for", gained),
            ("it lost for", lost),
            ("these notes cannot tell for", answers["not clear"]),
        )
        if tasks
    ]
    sentence = f"With {method.label} instead of its own model, {'; '.join(parts)}. Strict F1."
    return Verdict(site, word, _MARKS.get(word, "unclear"), sentence)


def _table(
    run: Run, alone: list[Method], joined: list[Method], *, task: str, matching: str
) -> Table:
    pooled = [method for method in run.methods if method.kind == "centralised"]
    groups = []
    for one in alone:
        others = [m for m in joined if m.site in (None, one.site)] + pooled
        rows = [_alone_row(run, one, task=task, matching=matching)]
        rows += [_row(run, other, one, task=task, matching=matching) for other in others]
        groups.append(Group(one.site or "", tuple(rows)))
    return Table(
        caption=f"{task.capitalize()}: {matching} F1 on each site's own test notes",
        head=("Method", "F1", "against alone", "95 % interval", "worth it?"),
        groups=tuple(groups),
        view={"task": task, "matching": matching},
        walk=True,
    )


def _value(run: Run, method: Method, site: str, *, task: str, matching: str) -> Cell:
    record = run.score(method.label, site, task, matching=matching)
    return Cell(NONE) if record is None else Cell(ratio(record.f1), note=score_note(record))


def _alone_row(run: Run, alone: Method, *, task: str, matching: str) -> Row:
    value = _value(run, alone, alone.site or "", task=task, matching=matching)
    return Row(f"{alone.label} (alone)", (value, Cell(""), Cell(""), Cell("", number=False)))


def _row(run: Run, method: Method, alone: Method, *, task: str, matching: str) -> Row:
    site = alone.site or ""
    value = _value(run, method, site, task=task, matching=matching)
    one = find_comparison(run, method.label, alone.label, cohort=site, task=task, matching=matching)
    if one is None:
        missing = Cell(NONE, said="not compared")
        return Row(method.label, (value, missing, missing, Cell(NONE, number=False)))
    answer = decide(one.low, one.high)
    verdict = (
        Cell(answer, mark=_MARKS[answer], number=False)
        if method.kind in JOINED
        else Cell("", number=False)
    )
    between = signed_interval(one.low, one.high) or NONE
    return Row(method.label, (value, Cell(signed(one.f1)), Cell(between), verdict))
