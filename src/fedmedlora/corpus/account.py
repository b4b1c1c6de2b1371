"""The account of a reading: what was read, what became of it, and what was left out and why.

Counts only, exact: everything read is either mapped or skipped with a reason, per source type.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields

#: A heading and rows of cells, ready to print.
Table = tuple[str, list[tuple[str, ...]]]


@dataclass(frozen=True, slots=True)
class Tally:
    """What became of the things of one kind (spans, or relations).

    Attributes:
        read: source type -> how many were read.
        mapped: (source type, type in the document) -> how many are in the documents.
        skipped: (reason, source type) -> how many are not.
    """

    read: Mapping[str, int] = field(default_factory=dict)
    mapped: Mapping[tuple[str, str], int] = field(default_factory=dict)
    skipped: Mapping[tuple[str, str], int] = field(default_factory=dict)

    @property
    def balanced(self) -> bool:
        """Whether, for every source type, read = mapped + skipped."""
        left = Counter(self.read)
        for (source, _), count in self.mapped.items():
            left[source] -= count
        for (_, source), count in self.skipped.items():
            left[source] -= count
        return not any(left.values())

    def totals(self) -> tuple[int, int, int]:
        """(read, mapped, skipped) over all types."""
        return sum(self.read.values()), sum(self.mapped.values()), sum(self.skipped.values())


@dataclass(frozen=True, slots=True)
class ReadReport:
    """Exact counts of one reading.

    Attributes:
        documents: how many were read; every one is returned.
        spans: text-bound annotations.
        relations: annotated relations between spans.
        attributes: attribute name -> how many; read and skipped, as are the next three.
        notes: note type -> how many.
        equivalences: name of an equivalence or group relation -> how many.
        normalizations: knowledge base -> how many.
        events: event type -> how many; each is read as its trigger span.
        event_arguments: role -> how many; read and skipped.
        discontinuous: what was done with spans of several fragments -> how many.
        overlaps: "duplicate", "same place", "nested", "crossing" -> how many pairs of kept spans.
        invalid_pairs: (head's type, modifier's type) -> relations skipped as "invalid pair".
        repairs: what a reader had to set right, by its stated rule -> how many times.
    """

    documents: int = 0
    spans: Tally = field(default_factory=Tally)
    relations: Tally = field(default_factory=Tally)
    attributes: Mapping[str, int] = field(default_factory=dict)
    notes: Mapping[str, int] = field(default_factory=dict)
    equivalences: Mapping[str, int] = field(default_factory=dict)
    normalizations: Mapping[str, int] = field(default_factory=dict)
    events: Mapping[str, int] = field(default_factory=dict)
    event_arguments: Mapping[str, int] = field(default_factory=dict)
    discontinuous: Mapping[str, int] = field(default_factory=dict)
    overlaps: Mapping[str, int] = field(default_factory=dict)
    invalid_pairs: Mapping[tuple[str, str], int] = field(default_factory=dict)
    repairs: Mapping[str, int] = field(default_factory=dict)

    @property
    def balanced(self) -> bool:
        """Whether everything read is accounted for."""
        return self.spans.balanced and self.relations.balanced


def total_report(reports: Iterable[ReadReport]) -> ReadReport:
    """The sum of several accounts."""
    documents = 0
    sums: dict[str, Counter[str]] = {}
    tallies = {
        name: (Counter[str](), Counter[tuple[str, str]](), Counter[tuple[str, str]]())
        for name in ("spans", "relations")
    }
    pairs: Counter[tuple[str, str]] = Counter()
    plain = [
        f.name for f in fields(ReadReport) if f.name not in ("documents", "invalid_pairs", *tallies)
    ]
    for report in reports:
        documents += report.documents
        pairs.update(report.invalid_pairs)
        for name, (read, mapped, skipped) in tallies.items():
            tally: Tally = getattr(report, name)
            read.update(tally.read)
            mapped.update(tally.mapped)
            skipped.update(tally.skipped)
        for name in plain:
            sums.setdefault(name, Counter()).update(getattr(report, name))
    return ReadReport(
        documents=documents,
        spans=Tally(*tallies["spans"]),
        relations=Tally(*tallies["relations"]),
        invalid_pairs=dict(pairs),
        **{name: dict(counts) for name, counts in sums.items()},
    )


def as_rows(report: ReadReport) -> list[Table]:
    """The account as tables of cells; empty ones are left out.

    Each table's rows are (what, count), (from, to, count) or (reason, type, count), the largest
    count first; the first table holds the totals.
    """
    totals: list[tuple[str, ...]] = [("documents", str(report.documents), "", "")]
    for name, tally in (("spans", report.spans), ("relations", report.relations)):
        read, mapped, skipped = tally.totals()
        totals.append((name, f"{read} read", f"{mapped} mapped", f"{skipped} skipped"))
    tables: list[Table] = [("read", totals)]
    for name, tally in (("spans", report.spans), ("relations", report.relations)):
        tables.append((f"{name} mapped", count_rows(tally.mapped)))
        tables.append((f"{name} skipped", count_rows(tally.skipped)))
    tables.append(("invalid pairs (head, modifier)", count_rows(report.invalid_pairs)))
    for heading, counts in (
        ("discontinuous spans", report.discontinuous),
        ("overlapping spans kept (pairs)", report.overlaps),
        ("events, read as their trigger", report.events),
        ("event arguments skipped", report.event_arguments),
        ("attributes skipped", report.attributes),
        ("notes skipped", report.notes),
        ("equivalences skipped", report.equivalences),
        ("normalizations skipped", report.normalizations),
        ("repairs", report.repairs),
    ):
        tables.append((heading, count_rows(counts)))
    return [(heading, rows) for heading, rows in tables if rows]


def count_rows(
    counts: Mapping[str, int] | Mapping[tuple[str, str], int],
) -> list[tuple[str, ...]]:
    """Rows of cells, the count last, the largest count first, ties by name."""
    keyed = [
        ((key,) if isinstance(key, str) else tuple(key), count) for key, count in counts.items()
    ]
    return [(*key, str(count)) for key, count in sorted(keyed, key=lambda kc: (-kc[1], kc[0]))]


def render_text(tables: Iterable[Table]) -> str:
    """Tables of cells as text: the heading, then the rows indented, their columns aligned."""
    blocks = []
    for heading, rows in tables:
        widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
        lines = [
            f"  {'  '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))}"
            for row in rows
        ]
        blocks.append("\n".join([heading, *(line.rstrip() for line in lines)]))
    return "\n\n".join(blocks)
