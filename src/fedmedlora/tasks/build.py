"""Documents in, examples out: the tasks that a study asks for, in one deterministic order.

Whatever of the annotation no answer can say (a span that a window's edge cuts, a modifier whose
head lies in another window, spans that cross) is counted in the report, never silently lost.
"""

from __future__ import annotations

from collections.abc import Iterable

from fedmedlora.schema import Document, Scheme
from fedmedlora.tasks.build_report import BuildReport
from fedmedlora.tasks.entities import build_entities
from fedmedlora.tasks.example import Example
from fedmedlora.tasks.modifiers import build_modifiers
from fedmedlora.tasks.settings import TaskSettings

__all__ = ["BuildReport", "build_entities", "build_examples", "build_modifiers"]

_BUILD = {"entities": build_entities, "modifiers": build_modifiers}


def build_examples(
    documents: Iterable[Document],
    *,
    covers: frozenset[str],
    scheme: Scheme,
    settings: TaskSettings,
) -> tuple[list[Example], BuildReport]:
    """The examples of ``settings.tasks``, task by task, in the order of documents and windows.

    Args:
        documents: with gold annotation; without it the answers are plain copies.
        covers: the types that the site or cohort annotates; a document that covers fewer is asked
            for fewer.
        scheme: types, definitions and valid pairs.
        settings: tasks, windows and prompts.

    Raises:
        SchemaError: ``covers`` names a type that the scheme does not have.
    """
    documents = list(documents)
    examples: list[Example] = []
    report = BuildReport()
    for task in settings.tasks:
        made, counts = _BUILD[task](documents, covers=covers, scheme=scheme, settings=settings)
        examples += made
        report += counts
    return examples, report
