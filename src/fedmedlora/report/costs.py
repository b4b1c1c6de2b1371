"""What methods cost, as sections: bytes that travelled, time, memory, and money of services."""

from __future__ import annotations

from collections.abc import Sequence

from fedmedlora.report.blocks import NONE, Cell, Figures, Group, Row, Section, Table, Text
from fedmedlora.report.charts import Series, line_chart, marker_sample
from fedmedlora.report.records import Done, Method
from fedmedlora.report.run import Run
from fedmedlora.report.scores import by_kind

_MB = 1e6
#: Bytes of a parameter in bf16, the precision that a full model would travel in.
_BYTES = 2


def traffic_section(run: Run) -> Section | None:
    """Bytes by round beside those of the whole model, for methods whose adapters travel."""
    methods = [
        (method, run.done[method.label])
        for method in run.methods
        if method.kind in ("federated", "personal")
        and method.label in run.done
        and run.done[method.label].rounds
    ]
    if not methods:
        return None
    rows = tuple(_traffic_row(method, done) for method, done in methods)
    styles = {method.label: place for place, (method, _) in enumerate(methods)}
    names = {**styles, **{line.name: line.style for line in _whole_line(methods, len(styles))}}
    charts = [
        line_chart(
            title,
            [
                *(
                    Series(method.label, _by_round(done, up=up), styles[method.label])
                    for method, done in methods
                ),
                *_whole_line(methods, len(styles)),
            ],
            x_label="round",
            y_label="MB a site",
            from_zero=True,
        )
        for title, up in (("From the server to one site", False), ("From one site", True))
    ]
    return Section(
        id="traffic",
        title="What travels",
        short="Traffic",
        blocks=(
            Text(
                (
                    "MB (10⁶ bytes) of the messages of one site in one round, as serialised, mean "
                    "over sites and rounds; beside it the whole model in bf16, which would travel "
                    "both ways if no adapter was used.",
                )
            ),
            Table(
                caption="One site, one round",
                head=("Method", "down, MB", "up, MB", "whole model, MB", "up / whole", "run, MB"),
                groups=(Group("", rows),),
            ),
            Figures(
                tuple(charts),
                tuple((marker_sample(place), label) for label, place in names.items()),
            ),
            Text(("The last column is all of it: all sites, all rounds, both ways.",), small=True),
        ),
    )


def _by_round(done: Done, *, up: bool) -> tuple[tuple[float, float], ...]:
    """(round, mean MB of a site)."""
    points = []
    for record in done.rounds:
        sizes = [site.bytes_up if up else site.bytes_down for site in record.sites.values()]
        if sizes:
            points.append((float(record.round), sum(sizes) / len(sizes) / _MB))
    return tuple(points)


def _whole_line(methods: Sequence[tuple[Method, Done]], style: int) -> list[Series]:
    """The backbone's size over all rounds, if the run says it; an encoder's is another."""
    sizes = {size for _, done in methods if not done.encoder and (size := _whole(done)) is not None}
    if len(sizes) != 1:
        return []
    last = max(record.round for _, done in methods for record in done.rounds)
    megabytes = sizes.pop() / _MB
    points = ((1.0, megabytes), (float(last), megabytes))
    return [Series("the whole model, bf16", points, style)]


def _whole(done: Done) -> int | None:
    """Bytes of the backbone; a language model's count of parameters is with its adapter on."""
    if done.backbone_parameters is None:
        return None
    beside = 0 if done.encoder else done.adapter_parameters or 0
    return _BYTES * (done.backbone_parameters - beside)


def _traffic_row(method: Method, done: Done) -> Row:
    sites = [site for record in done.rounds for site in record.sites.values()]
    down = sum(site.bytes_down for site in sites) / max(1, len(sites))
    up = sum(site.bytes_up for site in sites) / max(1, len(sites))
    whole = _whole(done)
    share = up / whole if whole else None
    total = sum(site.bytes_down + site.bytes_up for site in sites)
    return Row(
        method.label,
        (
            Cell(_mb(down)),
            Cell(_mb(up)),
            Cell(NONE if whole is None else _mb(whole)),
            Cell(
                NONE if share is None else f"{share:.1%}",
                bar=None if share is None else min(1.0, share),
                number=False,
            ),
            Cell(_mb(total)),
        ),
    )


def _mb(size: float) -> str:
    return f"{size / _MB:,.3f}" if size < 100 * _MB else f"{size / _MB:,.0f}"


def cost_section(run: Run) -> Section | None:
    """Wall time, memory and sizes by method, and what services cost."""
    timed = [m for m in run.methods if m.label in run.done]
    if not any(run.done[m.label].seconds is not None for m in timed):
        return None
    longest = max(run.done[m.label].seconds or 0.0 for m in timed) or 1.0
    memory = any(run.done[m.label].peak_memory_mb is not None for m in timed)
    head = ["Method", "wall time", "trained parameters", "of all"]
    if memory:
        head.append("peak memory, MB")
    groups = []
    for title, methods in by_kind(run):
        rows = tuple(
            _time_row(m, run.done[m.label], longest, memory=memory) for m in methods if m in timed
        )
        if rows:
            groups.append(Group(title, rows))
    tables = [
        Table(caption="Time, size and memory by method", head=tuple(head), groups=tuple(groups))
    ]
    paid = [(m, cost) for m in timed if (cost := run.done[m.label].cost) is not None]
    if paid:
        tables.append(
            Table(
                caption="Services that were asked",
                head=("Method", "requests", "prompt tokens", "answer tokens", "US dollars"),
                groups=(
                    Group(
                        "",
                        tuple(
                            Row(
                                m.label,
                                (
                                    Cell(f"{cost.requests:,}"),
                                    Cell(f"{cost.prompt_tokens:,}"),
                                    Cell(f"{cost.completion_tokens:,}"),
                                    Cell(NONE if cost.usd is None else f"{cost.usd:,.2f}"),
                                ),
                            )
                            for m, cost in paid
                        ),
                    ),
                ),
            )
        )
    return Section(
        id="costs",
        title="Time and memory",
        short="Costs",
        blocks=(
            Text(
                (
                    "Wall time from a method's start to its last answer, training and answering "
                    "together, on the machine of this run; methods may have shared it, and a round "
                    "that several methods begin with is trained once.",
                )
            ),
            *tables,
        ),
    )


def _time_row(method: Method, done: Done, longest: float, *, memory: bool) -> Row:
    trained = done.adapter_parameters if method.kind != "untrained" else None
    whole = done.backbone_parameters
    cells = [
        Cell(
            NONE if done.seconds is None else duration(done.seconds),
            bar=None if done.seconds is None else done.seconds / longest,
            number=False,
        ),
        Cell(NONE if trained is None else f"{trained:,}"),
        Cell(NONE if trained is None or not whole else f"{trained / whole:.1%}"),
    ]
    if memory:
        peak = done.peak_memory_mb
        cells.append(Cell(NONE if peak is None else f"{peak:,.0f}"))
    return Row(method.label, tuple(cells))


def duration(seconds: float) -> str:
    """``14 s``, ``6 min 45 s``, ``2 h 5 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
