"""What noise costs, and what it promises: F1 against epsilon, and each number with its terms."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from fedmedlora.evaluation.tally import MATCHINGS
from fedmedlora.report.blocks import NONE, Cell, Figures, Group, Row, Section, Table, Text, ratio
from fedmedlora.report.charts import Series, line_chart
from fedmedlora.report.records import Method, Privacy, PrivateSite
from fedmedlora.report.run import Run
from fedmedlora.report.scores import MATCHING_CHOICE
from fedmedlora.report.training import legend

#: Training without noise.
_NO_NOISE = "∞"


def privacy_section(run: Run) -> Section | None:
    """F1 by epsilon for every method that was trained with noise; None if none was."""
    private = [
        (method, privacy)
        for method in run.methods
        if (done := run.done.get(method.label)) is not None
        and (privacy := done.privacy) is not None
    ]
    if not private:
        return None
    lines = _lines(run, private)
    figures: list[Figures] = []
    for matching in MATCHINGS:
        parts = [_chart(run, lines, task=task, matching=matching) for task in run.tasks if lines]
        charts, tables = [chart for chart, _ in parts], [table for _, table in parts]
        view = {"matching": matching}
        figures.append(Figures(tuple(charts), legend(list(lines)), tuple(tables), view))
    seeds = " Of several seeds, the mean." if run.seeds else ""
    return Section(
        id="privacy",
        title="With privacy",
        short="Privacy",
        choices=(MATCHING_CHOICE,),
        blocks=(
            Text((_terms(private[0][1]),)),
            *(figures if lines else ()),
            _table(private),
            Text(
                (
                    f"F1 over all test notes; {_NO_NOISE} is the same method without noise.{seeds} "
                    "Test notes are not part of the promise, nor are validation notes.",
                ),
                small=True,
            ),
        ),
    )


def _terms(privacy: Privacy) -> str:
    return (
        "Epsilon bounds what one unit of a site's training notes can change of all that the "
        f"adversary sees (neighbours: {privacy.neighbours}). The adversary {privacy.adversary}. "
        f"Units are drawn by {privacy.sampling} sampling, at a rate of batch / units, and each is "
        "clipped as one. It is a promise about each site by itself: for who is at several sites, "
        "the sums of their epsilons and of their deltas."
    )


def _lines(
    run: Run, private: Sequence[tuple[Method, Privacy]]
) -> dict[str, list[tuple[float | None, str]]]:
    """Method -> (epsilon, label) of its rows over all sites; None is without noise, and last."""
    lines: dict[str, list[tuple[float | None, str]]] = {}
    for method, privacy in private:
        if method.kind in ("federated", "centralised") and privacy.budget is not None:
            lines.setdefault(method.method or method.label, []).append(
                (privacy.budget, method.label)
            )
    labels = {method.label for method, _ in private}
    for name, points in lines.items():
        points.sort(key=lambda point: point[0] or 0.0)
        plain = [m.label for m in run.methods if m.method == name and m.label not in labels]
        points += [(None, label) for label in plain[:1]]
    return lines


def _chart(
    run: Run,
    lines: Mapping[str, Sequence[tuple[float | None, str]]],
    *,
    task: str,
    matching: str,
) -> tuple[Markup, Table]:
    """F1 by epsilon, as a chart and as a table."""
    known = {epsilon for points in lines.values() for epsilon, _ in points}
    order: list[float | None] = [*sorted(one for one in known if one is not None)]
    order += [None] if None in known else []
    place = {epsilon: float(number) for number, epsilon in enumerate(order)}
    names = {place[one]: _NO_NOISE if one is None else f"{one:g}" for one in order}
    series, rows = [], []
    for number, (name, points) in enumerate(lines.items()):
        found = {
            place[epsilon]: f1
            for epsilon, label in points
            if (f1 := _f1(run, label, task=task, matching=matching)) is not None
        }
        if found:
            series.append(Series(name, tuple(found.items()), number))
            rows.append(Row(name, tuple(Cell(ratio(found.get(at))) for at in names)))
    chart = line_chart(
        task, series, x_label="epsilon", y_label=f"{matching} F1, all cohorts", x_names=names
    )
    head = ("Method", *(f"epsilon {name}" for name in names.values()))
    return chart, Table(f"{task}: {matching} F1", head, (Group("", tuple(rows)),))


def _f1(run: Run, label: str, *, task: str, matching: str) -> float | None:
    wanted = (label, "all", task, matching)
    for one in run.seeds:
        if (one.method, one.cohort, one.task, one.matching) == wanted and one.type == "micro":
            return one.mean
    record = run.score(label, "all", task, matching=matching)
    return None if record is None else record.f1


def _epsilon(site: PrivateSite) -> float:
    """Of a site that did not say, more than any."""
    return math.inf if site.epsilon is None else site.epsilon


def _table(private: Sequence[tuple[Method, Privacy]]) -> Table:
    rows = []
    for method, privacy in private:
        most = max(privacy.sites.values(), key=_epsilon, default=PrivateSite())
        cells = (
            f"{privacy.epsilon:.2f}" if privacy.epsilon is not None else NONE,
            f"{privacy.delta:g}" if privacy.delta is not None else NONE,
            privacy.unit,
            f"{most.noise:.2f}" if most.noise is not None else NONE,
            f"{most.rate:.3g}" if most.rate is not None else NONE,
            str(most.steps),
            privacy.accountant,
            privacy.covers,
        )
        rows.append(Row(method.label, tuple(Cell(cell) for cell in cells)))
    return Table(
        caption="What was spent, at the site that spent most",
        head=(
            "Method", "epsilon", "delta", "unit", "noise", "sampling rate", "steps", "accountant",
            "covers",
        ),
        groups=(Group("", tuple(rows)),),
    )  # fmt: skip
