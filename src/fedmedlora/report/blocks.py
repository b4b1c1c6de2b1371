"""What a section is made of: paragraphs, tables and figures, as plain data for the template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

#: How 0 / 0, and what was not scored, is shown.
NONE = "–"


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: what is shown.
        note: shown below when intervals are switched on, and in a box on hover and focus.
        said: what is read aloud instead of ``text``, where the text alone would not say it.
        strong: the best of its column.
        mark: a class of its own ("home", "yes", "no", "unclear", "level-...").
        bar: a share in [0, 1] that is drawn as a bar before the text, in the colour ``style``.
        number: whether it is aligned as a number.
    """

    text: str
    note: str = ""
    said: str = ""
    strong: bool = False
    mark: str = ""
    bar: float | None = None
    style: int = 0
    number: bool = True


@dataclass(frozen=True)
class Row:
    """A row: its header, its cells, and the option of a choice that it belongs to, if any."""

    header: str
    cells: tuple[Cell, ...]
    pick: str = ""


@dataclass(frozen=True)
class Group:
    """Rows under a heading of their own; no heading if it is empty."""

    title: str
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        caption: says what it shows; always there.
        head: column headers, that of the row headers first.
        view: choice -> option under which it is shown; always if empty.
        walk: whether its cells are visited with the arrow keys (they have notes).
    """

    caption: str
    head: tuple[str, ...]
    groups: tuple[Group, ...]
    view: Mapping[str, str] = field(default_factory=dict)
    walk: bool = False
    name: str = "table"

    def words(self, column: int) -> bool:
        """Whether a column (0 is the row headers) holds words, and so begins at the left."""
        rows = [row for group in self.groups for row in group.rows]
        return column == 0 or (bool(rows) and not rows[0].cells[column - 1].number)


@dataclass(frozen=True)
class Text:
    """Paragraphs, each a sentence or more; ``small`` for remarks below a table."""

    paragraphs: tuple[str, ...]
    small: bool = False
    name: str = "text"


@dataclass(frozen=True)
class Verdict:
    """An answer in one word about one site, with the sentence that explains it."""

    subject: str
    word: str
    mark: str
    sentence: str


@dataclass(frozen=True)
class Verdicts:
    """Answers, one a site."""

    items: tuple[Verdict, ...]
    name: str = "verdicts"


@dataclass(frozen=True)
class Card:
    """A number that stands for a task, a chart that puts it beside others, and what they say."""

    title: str
    value: str
    detail: str
    chart: Markup
    sentences: tuple[str, ...]


@dataclass(frozen=True)
class Cards:
    """Cards side by side."""

    items: tuple[Card, ...]
    name: str = "cards"


@dataclass(frozen=True)
class Figures:
    """Charts side by side with a legend below and their numbers in a table that opens.

    Attributes:
        charts: SVG elements.
        legend: (marker as SVG, name).
        numbers: the same numbers as tables.
        view: as of a table.
    """

    charts: tuple[Markup, ...]
    legend: tuple[tuple[Markup, str], ...] = ()
    numbers: tuple[Table, ...] = ()
    view: Mapping[str, str] = field(default_factory=dict)
    name: str = "figures"


@dataclass(frozen=True)
class Source:
    """A text file, shown as it is, closed at first."""

    title: str
    content: str
    name: str = "source"


Block = Table | Text | Verdicts | Cards | Figures | Source


@dataclass(frozen=True)
class Choice:
    """What the reader can choose in a section: one of the options, or some if ``several``."""

    name: str
    label: str
    options: tuple[tuple[str, str], ...]
    chosen: tuple[str, ...]
    several: bool = False


@dataclass(frozen=True)
class Section:
    """A section of the page.

    Attributes:
        id: of its heading, for the navigation.
        title: its heading; ``short`` in the navigation.
        choices: shown after its first ``lead`` blocks.
        intervals: whether the reader can switch intervals on.
    """

    id: str
    title: str
    short: str
    blocks: tuple[Block, ...]
    choices: tuple[Choice, ...] = ()
    intervals: bool = False
    lead: int = 1

    def shown(self, view: Mapping[str, str]) -> bool:
        """Whether a block of this view is shown before the reader chooses anything."""
        start = {choice.name: choice.chosen[0] for choice in self.choices if choice.chosen}
        return all(start.get(name, option) == option for name, option in view.items())

    def picked(self, option: str) -> bool:
        """Whether a row of this option is shown before the reader chooses anything."""
        several = [choice for choice in self.choices if choice.several]
        return not option or any(option in choice.chosen for choice in several)


def one_choice(name: str, label: str, options: Sequence[str | tuple[str, str]]) -> Choice:
    """One of ``options``, the first chosen; no choice at all is shown for a single one."""
    pairs = tuple((o, o) if isinstance(o, str) else o for o in options)
    return Choice(name, label, pairs, (pairs[0][0],))


def ratio(value: float | None, places: int = 2) -> str:
    """F1 and the like, or a dash for 0 / 0."""
    return NONE if value is None else f"{value:.{places}f}"


def interval(low: float | None, high: float | None) -> str:
    """``0.40 to 0.46`` with spaces that do not break, or nothing where there is no interval."""
    return "" if low is None or high is None else f"{ratio(low)}\u00a0to\u00a0{ratio(high)}"


def signed(value: float | None) -> str:
    """A difference with its sign, a true minus."""
    if value is None:
        return NONE
    shown = f"{value:+.2f}".replace("-", "−")
    return "0.00" if shown[1:] == "0.00" else shown


def signed_interval(low: float | None, high: float | None) -> str:
    """``−0.01 to +0.05``, or nothing."""
    return "" if low is None or high is None else f"{signed(low)}\u00a0to\u00a0{signed(high)}"


def listed(names: Sequence[str]) -> str:
    """``a, b and c``."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def counted(number: int, one: str) -> str:
    """``1 site``, ``3 sites``, ``1,200 notes``."""
    return f"{number:,} {one if number == 1 else one + 's'}"
