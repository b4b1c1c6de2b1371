"""What happened round by round, as sections: losses, validation F1, weights and their losses."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from markupsafe import Markup

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
    one_choice,
)
from fedmedlora.report.charts import Series, line_chart, marker_sample
from fedmedlora.report.records import Round, SiteRound
from fedmedlora.report.run import Run
from fedmedlora.report.scores import MATCHING_CHOICE

_Number = Callable[[SiteRound], float | None]


def training_section(run: Run) -> Section | None:
    """Training loss by round and site, and F1 on validation notes by round."""
    losses = _loss_figures(run)
    scores = [figure for matching in MATCHINGS if (figure := _validation(run, matching))]
    if losses is None and not scores:
        return None
    said = []
    if losses is not None:
        said.append(
            "Mean training loss of the last steps of each round, on each site's own notes. Losses "
            "of different sites are of different notes; only their course compares."
        )
    if scores:
        said.append("F1 on validation notes after rounds, micro.")
    return Section(
        id="rounds",
        title="How training went, round by round",
        short="Rounds",
        choices=(MATCHING_CHOICE,) if scores else (),
        blocks=(Text(tuple(said)), *((losses,) if losses else ()), *scores),
    )


def weight_section(run: Run) -> Section | None:
    """Weights p_k of the average by round, with the validation losses L_k where they were made."""
    methods = [name for name in _methods(run) if _many_sites(_of(run, name))]
    # Those with losses have more to show.
    methods.sort(key=lambda name: not _scored(_of(run, name)))
    figures = [_weights(run, name) for name in methods]
    if not figures:
        return None
    options = [(str(place), name) for place, name in enumerate(methods)]
    views = [{"method": option} for option, _ in options]
    shown = [
        Figures(f.charts, f.legend, f.numbers, view) for f, view in zip(figures, views, strict=True)
    ]
    return Section(
        id="weights",
        title="How much each site counted",
        short="Weights",
        choices=(one_choice("method", "Method", options),),
        blocks=(
            Text(
                (
                    "p is a site's share in each round's average; a round's shares sum to 1. "
                    "L is the loss of its adapter on validation notes, where the method weighs "
                    "by it: a lower loss earns a larger share.",
                )
            ),
            *shown,
        ),
    )


def _methods(run: Run) -> list[str]:
    return list(dict.fromkeys(record.method for record in run.rounds))


def _of(run: Run, method: str) -> list[Round]:
    return sorted((r for r in run.rounds if r.method == method), key=lambda r: r.round)


def _many_sites(rounds: Sequence[Round]) -> bool:
    return any(len(record.sites) > 1 for record in rounds)


def _scored(rounds: Sequence[Round]) -> bool:
    return any(s.validation_loss is not None for r in rounds for s in r.sites.values())


def _sites(rounds: Sequence[Round]) -> list[str]:
    return list(dict.fromkeys(name for record in rounds for name in record.sites))


def _series(rounds: Sequence[Round], number: _Number, styles: Sequence[str]) -> list[Series]:
    made = []
    for site in _sites(rounds):
        points = [
            (float(record.round), value)
            for record in rounds
            if site in record.sites and (value := number(record.sites[site])) is not None
        ]
        if points:
            made.append(Series(site, tuple(points), styles.index(site)))
    return made


def _numbers(caption: str, rounds: Sequence[Round], number: _Number) -> Table:
    rows = []
    for site in _sites(rounds):
        values = [number(r.sites[site]) if site in r.sites else None for r in rounds]
        if any(value is not None for value in values):
            cells = tuple(Cell(NONE if v is None else f"{v:.3f}") for v in values)
            rows.append(Row(site, cells))
    return Table(
        caption=caption,
        head=("Site", *(f"round {record.round}" for record in rounds)),
        groups=(Group("", tuple(rows)),),
    )


def _loss_figures(run: Run) -> Figures | None:
    names = list(dict.fromkeys(_sites(run.rounds)))
    charts, tables = [], []
    for method in _methods(run):
        rounds = _of(run, method)
        if len(rounds) == 1:
            continue  # a point is no curve: adaptation has one round alone
        series = _series(rounds, _loss, names)
        if not series:
            continue
        charts.append(
            line_chart(method, series, x_label="round", y_label="training loss", from_zero=True)
        )
        tables.append(_numbers(f"{method}: training loss", rounds, _loss))
    if not charts:
        return None
    return Figures(tuple(charts), legend(names), tuple(tables))


def _loss(site: SiteRound) -> float | None:
    return site.loss_last if site.status == "ok" else None


def _weights(run: Run, method: str) -> Figures:
    rounds = _of(run, method)
    names = _sites(rounds)
    parts: list[tuple[str, str, _Number]] = [
        ("Share in the average", "p", lambda site: site.weight),
        ("Loss on validation notes", "L", lambda site: site.validation_loss),
    ]
    charts, tables = [], []
    for title, letter, number in parts:
        series = _series(rounds, number, names)
        if series:
            charts.append(
                line_chart(
                    f"{title}, {method}",
                    series,
                    x_label="round",
                    y_label=letter,
                    from_zero=letter == "p",
                )
            )
            tables.append(_numbers(f"{method}: {letter}", rounds, number))
    return Figures(tuple(charts), legend(names), tuple(tables))


def legend(names: Sequence[str]) -> tuple[tuple[Markup, str], ...]:
    """Markers of series that are styled by their place."""
    return tuple((marker_sample(place), name) for place, name in enumerate(names))


def _validation(run: Run, matching: str) -> Figures | None:
    chosen = [v for v in run.validation if v.matching == matching and v.f1 is not None]
    methods = list(dict.fromkeys(v.method for v in chosen))
    charts, tables = [], []
    for task in dict.fromkeys(v.task for v in chosen):
        by_method = {
            method: sorted(
                (float(v.round), v.f1)
                for v in chosen
                if (v.method, v.task) == (method, task) and v.f1 is not None
            )
            for method in methods
        }
        series = [
            Series(method, tuple(points), methods.index(method))
            for method, points in by_method.items()
            if points
        ]
        charts.append(
            line_chart(
                f"{task}, validation notes", series, x_label="round", y_label=f"{matching} F1"
            )
        )
        rounds = sorted({x for points in by_method.values() for x, _ in points})
        rows = tuple(
            Row(m, tuple(_of_round(points, x) for x in rounds)) for m, points in by_method.items()
        )
        head = ("Method", *(f"round {x:.0f}" for x in rounds))
        tables.append(Table(f"{task}: {matching} F1", head, (Group("", rows),)))
    if not charts:
        return None
    return Figures(tuple(charts), legend(methods), tuple(tables), {"matching": matching})


def _of_round(points: Sequence[tuple[float, float]], round: float) -> Cell:
    value = dict(points).get(round)
    return Cell(NONE if value is None else f"{value:.3f}")
