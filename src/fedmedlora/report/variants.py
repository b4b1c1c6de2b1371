"""Other runs of the same study as sections: more sites, other settings, other seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fedmedlora.evaluation.tally import MATCHINGS
from fedmedlora.report.blocks import (
    NONE,
    Cell,
    Figures,
    Group,
    Row,
    Section,
    Table,
    Text,
    interval,
    listed,
    one_choice,
    ratio,
    signed,
)
from fedmedlora.report.charts import Estimate, Series, estimate_chart, line_chart
from fedmedlora.report.records import SeedScore
from fedmedlora.report.run import Run, read_variants, unfinished_variants
from fedmedlora.report.scores import MATCHING_CHOICE
from fedmedlora.report.sites import points_table
from fedmedlora.report.training import legend


def scaling_section(run: Run) -> Section | None:
    """F1 over all cohorts by number of sites, for the methods of the runs that vary it."""
    unfinished = unfinished_variants(run, "scaling")
    parts = [
        (variant.sites, one)
        for variant, one in read_variants(run, "scaling")
        if variant.sites is not None
    ]
    if not parts:
        return _only_missing("scaling", "With more sites", "Scaling", unfinished)
    labels = [m.label for m in parts[0][1].methods if all(r.method(m.label) for _, r in parts)]
    parts.sort(key=lambda part: part[0])
    figures = []
    for matching in MATCHINGS:
        charts, tables = [], []
        for task in run.tasks:
            lines = {
                label: tuple(
                    (float(sites), record.f1)
                    for sites, one in parts
                    if (record := one.score(label, "all", task, matching=matching))
                    and record.f1 is not None
                )
                for label in labels
            }
            series = [Series(n, points, labels.index(n)) for n, points in lines.items() if points]
            charts.append(
                line_chart(task, series, x_label="sites", y_label=f"{matching} F1, all cohorts")
            )
            tables.append(points_table(f"{task}: {matching} F1", lines, "sites"))
        figures.append(
            Figures(tuple(charts), legend(labels), tuple(tables), {"matching": matching})
        )
    return Section(
        id="scaling",
        title="With more sites",
        short="Scaling",
        choices=(MATCHING_CHOICE,),
        blocks=(
            Text(("F1 over all test notes by the number of sites.", *_missing(unfinished))),
            *figures,
        ),
    )


def variant_section(run: Run) -> Section | None:
    """Strict F1 over all cohorts of this run beside its variants, for the methods of both."""
    unfinished = unfinished_variants(run, "variant")
    others = [(variant.name, one) for variant, one in read_variants(run, "variant")]
    if not others:
        return _only_missing("variants", "With other settings", "Variants", unfinished)
    tables = []
    for task in run.tasks:
        for matching in MATCHINGS:
            rows = []
            for method in run.methods:
                main = run.score(method.label, "all", task, matching=matching)
                if main is None or not any(one.method(method.label) for _, one in others):
                    continue
                cells = [Cell(ratio(main.f1))]
                for _, one in others:
                    record = one.score(method.label, "all", task, matching=matching)
                    cells.append(_against(main.f1, record.f1 if record else None))
                rows.append(Row(method.label, tuple(cells)))
            tables.append(
                Table(
                    caption=f"{task.capitalize()}: {matching} F1 over all test notes",
                    head=("Method", "this run", *(name for name, _ in others)),
                    groups=(Group("", tuple(rows)),),
                    view={"task": task, "matching": matching},
                )
            )
    return Section(
        id="variants",
        title="With other settings",
        short="Variants",
        choices=(one_choice("task", "Task", run.tasks), MATCHING_CHOICE),
        blocks=(
            Text(("In brackets: the difference from this run.", *_missing(unfinished))),
            *tables,
        ),
    )


def _against(main: float | None, other: float | None) -> Cell:
    if main is None or other is None:
        return Cell(ratio(other))
    return Cell(f"{ratio(other)} ({signed(other - main)})")


def seed_section(run: Run) -> Section | None:
    """F1 of every method over seeds: mean, interval, and every seed's value."""
    unfinished = unfinished_variants(run, "seeds")
    if not run.seeds:
        return _only_missing("seeds", "With other seeds", "Seeds", unfinished or _unpooled(run))
    figures: list[Figures | Table] = []
    tasks = list(dict.fromkeys(one.task for one in run.seeds))
    for matching in MATCHINGS:
        for task in tasks:
            chosen = [
                s for s in run.seeds if (s.task, s.matching, s.cohort) == (task, matching, "all")
            ] or [s for s in run.seeds if (s.task, s.matching) == (task, matching)]
            view = {"matching": matching, "task": task}
            chart = estimate_chart(
                f"{task}, {'all cohorts' if chosen and chosen[0].cohort == 'all' else 'by cohort'}",
                [e for place, s in enumerate(chosen) if (e := _estimate(s, place)) is not None],
                x_label=f"{matching} F1: mean, interval and every seed",
            )
            figures += [
                Figures((chart,), view=view),
                _seed_table(
                    [s for s in run.seeds if (s.task, s.matching) == (task, matching)],
                    caption=f"{task.capitalize()}: {matching} F1 by seed",
                    view=view,
                ),
            ]
    return Section(
        id="seeds",
        title="With other seeds",
        short="Seeds",
        choices=(MATCHING_CHOICE, one_choice("task", "Task", tasks)),
        blocks=(
            Text(
                (
                    "The same study with several seeds: the mean over seeds with its 95 % "
                    "interval; rings are single seeds.",
                    *_missing(unfinished),
                )
            ),
            *figures,
        ),
    )


def _unpooled(run: Run) -> list[str]:
    """Where all seeds have scores, and no mean was made of them: a method is new to some."""
    there = any(variant.kind == "seeds" for variant in run.variants)
    return ["the mean over seeds"] if there else []


def _missing(unfinished: Sequence[str]) -> list[str]:
    if not unfinished:
        return []
    return [
        f"Not finished, and so not here: {listed(list(unfinished))}. Run the study again on this "
        "folder: it goes on where it stopped."
    ]


def _only_missing(id: str, title: str, short: str, unfinished: Sequence[str]) -> Section | None:
    """A section that says what is not finished; None where nothing was asked for."""
    if not unfinished:
        return None
    return Section(id=id, title=title, short=short, blocks=(Text(tuple(_missing(unfinished))),))


def _estimate(score: SeedScore, place: int) -> Estimate | None:
    if score.mean is None:
        return None
    name = score.method if score.cohort == "all" else f"{score.method}, {score.cohort}"
    others = tuple(value for value in score.f1 if value is not None)
    return Estimate(name, score.mean, score.low, score.high, place, others)


def _seed_table(scores: Sequence[SeedScore], *, caption: str, view: Mapping[str, str]) -> Table:
    seeds = list(dict.fromkeys(seed for score in scores for seed in score.seeds))
    groups = []
    for cohort in dict.fromkeys(score.cohort for score in scores):
        rows = []
        for score in (s for s in scores if s.cohort == cohort):
            by_seed = dict(zip(score.seeds, score.f1, strict=False))
            rows.append(
                Row(
                    score.method,
                    (
                        Cell(ratio(score.mean), strong=True),
                        Cell(interval(score.low, score.high) or NONE),
                        *(Cell(ratio(by_seed.get(seed))) for seed in seeds),
                    ),
                )
            )
        groups.append(Group("all cohorts" if cohort == "all" else cohort, tuple(rows)))
    head = ("Method", "mean", "interval", *(f"seed {seed}" for seed in seeds))
    return Table(caption, head, tuple(groups), view)
