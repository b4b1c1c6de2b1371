"""What a style of note is: its sections and the templates of their sentences.

Enters: nothing. Leaves: the classes that ``icu``, ``outpatient`` and ``discharge`` fill in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a note.

    Attributes:
        header: template of the text before the items, with its line break; may be "".
        mix: topic -> relative frequency of its templates.
        least, most: bounds of the number of items.
        item: template of what stands before an item; ``{n}`` is its number.
        end: what closes an item; a space at its end is left out after the last one.
        capitalised: whether an item starts with a capital letter.
        chance: probability that the section is there.
    """

    header: str
    mix: Mapping[str, int]
    least: int
    most: int
    item: str = ""
    end: str = ". "
    capitalised: bool = False
    chance: float = 1.0


@dataclass(frozen=True, slots=True)
class Style:
    """How one site writes.

    Attributes:
        name: the site's name.
        slots: slot of the templates -> (type of its entities, groups of names), such as
            "disease" -> ("problem", ("chronic",)).
        topics: topic -> its templates, all equally frequent; see ``grammar``.
        sections: in the order of the note.
    """

    name: str
    slots: Mapping[str, tuple[str, tuple[str, ...]]]
    topics: Mapping[str, tuple[str, ...]]
    sections: tuple[Section, ...]
