"""Sites as sections: what each annotates, what was cut, and how a new one learns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fedmedlora.evaluation.tally import MATCHINGS
from fedmedlora.report.blocks import Cell, Figures, Group, Row, Section, Table, Text, ratio
from fedmedlora.report.charts import Series, line_chart
from fedmedlora.report.records import Method, Part
from fedmedlora.report.run import Run
from fedmedlora.report.scores import MATCHING_CHOICE
from fedmedlora.report.training import legend

_SCRATCH = "from scratch"
_LEVELS = {"exhaustive": "●", "partial": "◐", "none": "–", "annotated": "●"}
#: Counts of data.json in words; what is not here is shown by its own name.
_COUNTED = {
    "unasked": "notes of which nothing could be asked",
    "windows": "windows, once for each task",
    "entity_examples": "examples for entities",
    "modifier_examples": "examples for modifiers",
    "entities": "main entities",
    "entities_cut": "… cut by a window's edge",
    "entities_crossing": "… left out: they cross a longer one",
    "entities_repeated": "… left out: repeated",
    "heads_cut": "heads that no prompt shows whole",
    "heads_crossing": "heads left out: they cross a longer one",
    "relations": "relations",
    "relations_invalid": "… of a pair that the scheme does not allow",
    "relations_cut": "… cut by a window's edge",
    "relations_apart": "… head and modifier in different windows",
    "relations_crossing": "… left out: spans cross",
    "relations_repeated": "… left out: repeated",
    "modifiers_unrelated": "modifiers that belong to no head",
}


def new_site_section(run: Run) -> Section | None:
    """F1 on a new site's test notes by how many of its notes were trained on, a line a start."""
    grown = [m for m in run.methods if m.kind == "new-site" and m.notes is not None and m.site]
    if not grown:
        return None
    starts = list(dict.fromkeys(m.of or _SCRATCH for m in grown))
    figures = []
    for matching in MATCHINGS:
        charts, tables = [], []
        for site in dict.fromkeys(m.site or "" for m in grown):
            for task in run.tasks:
                lines = {
                    start: _by_notes(
                        run, [m for m in grown if m.site == site], start, task, matching
                    )
                    for start in starts
                }
                series = [
                    Series(start, points, starts.index(start))
                    for start, points in lines.items()
                    if points
                ]
                charts.append(
                    line_chart(
                        f"{site}: {task}", series, x_label="local notes", y_label=f"{matching} F1"
                    )
                )
                tables.append(points_table(f"{site}, {task}: {matching} F1", lines, "notes"))
        figures.append(
            Figures(tuple(charts), legend(starts), tuple(tables), {"matching": matching})
        )
    return Section(
        id="new-site",
        title="A new site joins",
        short="New site",
        choices=(MATCHING_CHOICE,),
        blocks=(
            Text(
                (
                    "F1 on the new site's test notes by how many of its own notes were trained on, "
                    "from the federation's adapter and from scratch.",
                )
            ),
            *figures,
        ),
    )


def _by_notes(
    run: Run, methods: Sequence[Method], start: str, task: str, matching: str
) -> tuple[tuple[float, float], ...]:
    points = []
    for method in methods:
        if (method.of or _SCRATCH) != start or method.notes is None:
            continue
        record = run.score(method.label, method.site or "", task, matching=matching)
        if record is not None and record.f1 is not None:
            points.append((float(method.notes), record.f1))
    return tuple(sorted(points))


def points_table(
    caption: str, lines: Mapping[str, tuple[tuple[float, float], ...]], counted: str
) -> Table:
    """The points of lines: a row a line, a column an x, which counts ``counted``."""
    xs = sorted({x for points in lines.values() for x, _ in points})
    rows = tuple(
        Row(name, tuple(Cell(ratio(dict(points).get(x), 3)) for x in xs))
        for name, points in lines.items()
    )
    return Table(caption, ("", *(f"{x:,.0f} {counted}" for x in xs)), (Group("", rows),))


def coverage_section(run: Run) -> Section | None:
    """Which site and cohort annotates which type, and what no training example could hold."""
    parts = {**run.data.cohorts, **run.data.sites}
    order = [*run.data.sites, *(name for name in run.data.cohorts if name not in run.data.sites)]
    if not order:
        return None
    types = (*run.scheme.types, *sorted(_all_types(parts) - set(run.scheme.types)))
    rows = {
        name: Row(name, tuple(_level(run, part, parts[part], name) for part in order))
        for name in types
    }
    mains = tuple(row for name, row in rows.items() if name in run.scheme.mains)
    others = tuple(row for name, row in rows.items() if name not in run.scheme.mains)
    blocks: list[Table | Text] = [
        Text(
            (
                "What annotators looked for. A type that nobody looked for is neither asked nor "
                "scored there: a missing mark would say nothing.",
                "● exhaustive: all of it was to be marked. ◐ partial: some of it. – none.",
            )
        ),
        Table(
            caption="Which site or cohort annotates which type",
            head=("Type", *(_named(run, name) for name in order)),
            groups=(Group("Main entities", mains), Group("Modifiers", others)),
        ),
    ]
    blocks += _cuts(run)
    return Section(
        id="coverage",
        title="What was annotated, and what was cut",
        short="Coverage",
        blocks=tuple(blocks),
    )


def _all_types(parts: Mapping[str, Part]) -> set[str]:
    return {name for part in parts.values() for name in part.covers}


def _named(run: Run, name: str) -> str:
    return f"{name} (site)" if name in run.data.sites else f"{name} (test only)"


def _level(run: Run, name: str, part: Part, type_name: str) -> Cell:
    level = annotated(run, name, part).get(type_name, "none")
    return Cell(_LEVELS.get(level, level), said=level, mark=f"level-{level}", number=False)


def annotated(run: Run, name: str, part: Part) -> Mapping[str, str]:
    """Type -> exhaustive, partial, none; or "annotated" where the study does not say how."""
    if part.annotates is not None:
        return part.annotates
    for group in ("sites", "cohorts"):
        sections = run.study.get(group)
        section = sections.get(name) if isinstance(sections, dict) else None
        stated = section.get("annotates") if isinstance(section, dict) else None
        if isinstance(stated, dict):
            return {str(key): str(value) for key, value in stated.items()}
    return dict.fromkeys(part.covers, "annotated")


def _cuts(run: Run) -> list[Table | Text]:
    sites = {n: part for n, part in run.data.sites.items() if part.training_examples}
    if not sites:
        return []
    names = list(dict.fromkeys(key for part in sites.values() for key in part.training_examples))
    rows = tuple(
        Row(
            _COUNTED.get(key, key),
            tuple(Cell(f"{part.training_examples.get(key, 0):,}") for part in sites.values()),
        )
        for key in names
        if key != "documents" and any(part.training_examples.get(key) for part in sites.values())
    )
    notes = Row("training notes", tuple(Cell(f"{part.train or 0:,}") for part in sites.values()))
    return [
        Table(
            caption="Training notes, the examples made of them, and what no example could hold",
            head=("Counted", *sites),
            groups=(Group("", (notes, *rows)),),
        ),
    ]
