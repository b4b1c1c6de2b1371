"""Numbers in, figures as inline SVG out: lines over rounds, and values with their intervals.

A chart is about 340 units wide, so that a phone shows it at its own size. Colours come from the
page's style sheet (classes ``s0`` to ``s7``); every series has a marker and a dash of its own as
well, so that no reader depends on colour. All names are escaped here.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

#: Colours and markers repeat after so many series.
STYLES = 8
_WIDTH, _HEIGHT = 340, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 14, 10, 38
_DASHES = ("", "6 3", "2 3", "8 3 2 3", "12 4", "4 2", "1 3", "10 2 2 2")
_LABEL = 29


@dataclass(frozen=True)
class Series:
    """A line: its name and its points (x, y), by x."""

    name: str
    points: tuple[tuple[float, float], ...]
    style: int = 0


@dataclass(frozen=True)
class Estimate:
    """A value with its interval, in a row of its own; further values as small rings."""

    name: str
    value: float
    low: float | None
    high: float | None
    style: int = 0
    others: tuple[float, ...] = ()


def line_chart(
    title: str,
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str,
    from_zero: bool = False,
    x_names: Mapping[float, str] | None = None,
) -> Markup:
    """Lines with markers, one a series; empty if there is no point.

    Args:
        series: their x counts something (rounds, notes, sites), or is a place.
        from_zero: whether the y axis begins at 0.
        x_names: where x is a place: place -> what stands there.
    """
    points = [point for one in series for point in one.points]
    if not points:
        return Markup("")
    xs, ys = [x for x, _ in points], [y for _, y in points]
    y_ticks = _ticks(0.0 if from_zero else min(ys), max(ys))
    x_ticks: Sequence[float] = list(x_names) if x_names else _whole_ticks(min(xs), max(xs))
    name_of = (x_names or {}).get
    x = _Scale(min(*xs, *x_ticks), max(*xs, *x_ticks), _LEFT + 8, _WIDTH - _RIGHT)
    y = _Scale(y_ticks[0], y_ticks[-1], _HEIGHT - _BOTTOM, _TOP)
    named = {tick: name_of(tick, _number(tick)) for tick in x_ticks}
    drawn = [_grid(named, y_ticks, x, y), _axis_names(x_label, y_label)]
    for one in series:
        path = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in one.points)
        style = one.style % STYLES
        line = Markup('<polyline class="line" points="{}" stroke-dasharray="{}"/>').format(
            path, _DASHES[style]
        )
        drawn.append(Markup('<g class="s{}">{}{}</g>').format(style, line, _markers(one, x, y)))
    said = "; ".join(
        f"{one.name}: " + ", ".join(f"{name_of(a, _number(a))}: {b:.3g}" for a, b in one.points)
        for one in series
    )
    return _figure(title, f"{y_label} by {x_label}. {said}.", drawn, height=_HEIGHT)


def estimate_chart(title: str, rows: Sequence[Estimate], *, x_label: str) -> Markup:
    """Values as dots with their intervals as whiskers, one a row; empty if there is no row."""
    if not rows:
        return Markup("")
    values = [v for r in rows for v in (r.value, r.low, r.high, *r.others) if v is not None]
    ticks = _ticks(min(0.0, *values), max(values))
    left = min(182, 18 + 6 * max(len(row.name) for row in rows))
    # Room for long names without squeezing the values.
    width = max(_WIDTH, left + 218)
    step, top = 20, 8
    height = top + step * len(rows) + _BOTTOM
    x = _Scale(ticks[0], ticks[-1], left, width - _RIGHT)
    bottom = height - _BOTTOM + 2
    drawn = [
        Markup('<line class="grid" x1="{0:.1f}" x2="{0:.1f}" y1="{1}" y2="{2}"/>'
               '<text class="tick" x="{0:.1f}" y="{3}" text-anchor="middle">{4}</text>')
        .format(x(t), top, bottom, bottom + 14, _number(t))
        for t in ticks
    ]  # fmt: skip
    drawn.append(
        Markup('<text class="axis" x="{:.0f}" y="{}" text-anchor="middle">{}</text>').format(
            (left + width - _RIGHT) / 2, height - 4, x_label
        )
    )
    for place, row in enumerate(rows):
        middle = top + step * (place + 0.5)
        drawn.append(_estimate(row, middle, x, left=left))
    said = "; ".join(
        f"{r.name}: {r.value:.2f}"
        + ("" if r.low is None or r.high is None else f", interval {r.low:.2f} to {r.high:.2f}")
        for r in rows
    )
    return _figure(title, f"{x_label}. {said}.", drawn, height=height, width=width)


def marker_sample(style: int) -> Markup:
    """A piece of a series' line with its marker, for a legend."""
    style %= STYLES
    drawn = Markup(
        '<line class="line" x1="1" x2="27" y1="7" y2="7" stroke-dasharray="{}"/>'
    ).format(_DASHES[style])
    return Markup(
        '<svg class="sample" viewBox="0 0 28 14" width="28" height="14" aria-hidden="true">'
        '<g class="s{}">{}{}</g></svg>'
    ).format(style, drawn, _marker(style, 14, 7))


def _estimate(row: Estimate, middle: float, x: _Scale, *, left: int) -> Markup:
    whisker = Markup("")
    if row.low is not None and row.high is not None:
        whisker = Markup(
            '<line class="whisker" x1="{:.1f}" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}"/>'
        ).format(x(row.low), x(row.high), middle, middle)
    rings = Markup("").join(
        Markup('<circle class="ring" cx="{:.1f}" cy="{:.1f}" r="2.5"/>').format(
            x(value), middle + 7
        )
        for value in row.others
    )
    shown = row.name if len(row.name) <= _LABEL else row.name[: _LABEL - 1] + "…"
    return Markup(
        '<g class="s{}"><title>{}</title><text class="label" x="{}" y="{:.1f}" text-anchor="end">'
        "{}</text>{}{}{}</g>"
    ).format(
        row.style % STYLES,
        row.name,
        left - 10,
        middle + 3.5,
        shown,
        whisker,
        rings,
        _marker(row.style % STYLES, x(row.value), middle),
    )


class _Scale:
    """Numbers to units of the drawing, linear."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        self._low, self._span = low, (high - low) or 1.0
        self._start, self._end = start, end
        self._middle = high == low

    def __call__(self, value: float) -> float:
        share = 0.5 if self._middle else (value - self._low) / self._span
        return self._start + share * (self._end - self._start)


def _ticks(low: float, high: float) -> list[float]:
    """Three to seven round numbers from below ``low`` to above ``high``."""
    span = (high - low) or abs(high) or 1.0
    rough = span / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(n * step, 12) for n in range(first, max(last, first + 1) + 1)]


def _whole_ticks(low: float, high: float) -> list[float]:
    rough = max(1.0, (high - low) / 6)
    power = 10 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough)
    first = math.ceil(low / step) * step
    return list(range(first, math.floor(high) + 1, step)) or [low]


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) and abs(value) >= 1 else f"{value:g}"


def _grid(x_ticks: Mapping[float, str], y_ticks: Sequence[float], x: _Scale, y: _Scale) -> Markup:
    lines = [
        Markup(
            '<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>'
            '<text class="tick" x="{}" y="{:.1f}" text-anchor="end">{}</text>'
        ).format(_LEFT, _WIDTH - _RIGHT + 6, y(t), y(t), _LEFT - 6, y(t) + 3.5, _number(t))
        for t in y_ticks
    ]
    lines += [
        Markup('<text class="tick" x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(
            x(t), _HEIGHT - _BOTTOM + 15, name
        )
        for t, name in x_ticks.items()
    ]
    return Markup("").join(lines)


def _axis_names(x_label: str, y_label: str) -> Markup:
    return Markup(
        '<text class="axis" x="{}" y="{}" text-anchor="middle">{}</text>'
        '<text class="axis" transform="rotate(-90)" x="{}" y="11" text-anchor="middle">{}</text>'
    ).format(
        (_LEFT + _WIDTH - _RIGHT) / 2,
        _HEIGHT - 5,
        x_label,
        -(_TOP + _HEIGHT - _BOTTOM) / 2,
        y_label,
    )


def _markers(series: Series, x: _Scale, y: _Scale) -> Markup:
    return Markup("").join(_marker(series.style % STYLES, x(a), y(b)) for a, b in series.points)


def _marker(style: int, x: float, y: float) -> Markup:
    """One of eight shapes around a point."""
    r = 3.6
    corners = {
        1: [(-r, -r), (r, -r), (r, r), (-r, r)],
        2: [(0, -r * 1.3), (r * 1.15, r * 0.9), (-r * 1.15, r * 0.9)],
        3: [(0, -r * 1.4), (r * 1.4, 0), (0, r * 1.4), (-r * 1.4, 0)],
        4: [(0, r * 1.3), (r * 1.15, -r * 0.9), (-r * 1.15, -r * 0.9)],
        6: [(-r, -1.3), (r, -1.3), (r, 1.3), (-r, 1.3)],
        7: [(-1.3, -r), (1.3, -r), (1.3, r), (-1.3, r)],
    }
    if style in corners:
        points = " ".join(f"{x + a:.1f},{y + b:.1f}" for a, b in corners[style])
        return Markup('<polygon class="mark" points="{}"/>').format(points)
    kind = "mark" if style == 0 else "mark hollow"
    return Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="{}"/>').format(kind, x, y, r)


def _figure(
    title: str, said: str, drawn: Sequence[Markup], *, height: int, width: int = _WIDTH
) -> Markup:
    name = "chart-" + hashlib.sha256(f"{title}\n{said}".encode()).hexdigest()[:10]
    return Markup(
        '<figure class="chart"><figcaption>{title}</figcaption>'
        '<svg viewBox="0 0 {width} {height}" role="img" aria-labelledby="{name}-t {name}-d">'
        '<title id="{name}-t">{title}</title><desc id="{name}-d">{said}</desc>{drawn}'
        "</svg></figure>"
    ).format(
        title=escape(title),
        said=said,
        drawn=Markup("").join(drawn),
        name=name,
        height=height,
        width=width,
    )
