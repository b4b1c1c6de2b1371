"""What was asked of documents, and what of their annotation no example could hold: counts only."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What was asked and what of the annotation no example could hold; reports add up.

    Attributes:
        documents: documents read, once for each task.
        unasked: of them, those for which nothing is covered that the task could ask for.
        windows: windows cut, once for each task.
        entity_examples: examples made for the entities task.
        modifier_examples: examples made for the modifiers task.
        entities: main entities of asked types.
        entities_cut: of them, cut by a window's edge.
        entities_crossing: of them, left out because they cross a longer one.
        entities_repeated: of them, left out because another has the same span and type.
        heads_cut: main entities that no modifiers prompt shows whole: a window's edge cuts them.
        heads_crossing: numbered heads not shown because they cross a longer one.
        relations: relations of covered modifier types.
        relations_invalid: of them, with a head or type that the scheme does not allow.
        relations_cut: of them, with a head or modifier that a window's edge cuts.
        relations_apart: of them, with head and modifier in different windows.
        relations_crossing: of them, left out because spans cross.
        relations_repeated: of them, left out because another says the same.
        modifiers_unrelated: modifiers of covered types that belong to no head: never in an answer.
    """

    documents: int = 0
    unasked: int = 0
    windows: int = 0
    entity_examples: int = 0
    modifier_examples: int = 0
    entities: int = 0
    entities_cut: int = 0
    entities_crossing: int = 0
    entities_repeated: int = 0
    heads_cut: int = 0
    heads_crossing: int = 0
    relations: int = 0
    relations_invalid: int = 0
    relations_cut: int = 0
    relations_apart: int = 0
    relations_crossing: int = 0
    relations_repeated: int = 0
    modifiers_unrelated: int = 0

    def __add__(self, other: BuildReport) -> BuildReport:
        return BuildReport(
            *(getattr(self, f.name) + getattr(other, f.name) for f in fields(BuildReport))
        )
