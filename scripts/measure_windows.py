"""Count what windows lose: neutral JSONL files in, one Markdown table out.

python scripts/measure_windows.py FILE.jsonl ... [--words 40 60 80]

Lost are annotations that no answer can say: entities that a window's edge cuts or that cross or
repeat another, relations whose head and modifier do not lie whole in one window.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from fedmedlora.corpus.jsonl import read_jsonl
from fedmedlora.schema import DEFAULT_SCHEME, Document, observed_types
from fedmedlora.tasks.build import build_examples
from fedmedlora.tasks.settings import TaskSettings

COLUMNS = (
    "file",
    "words",
    "entities",
    "cut",
    "crossing",
    "relations",
    "cut",
    "apart",
    "lost %",
    "unrelated modifiers",
    "entity examples",
    "marked examples",
    "numbered examples",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--words", nargs="+", type=int, default=[40, 60, 80])
    arguments = parser.parse_args()
    print(f"| {' | '.join(COLUMNS)} |")
    print(f"|{'---|' * len(COLUMNS)}")
    for path in arguments.files:
        documents = read_jsonl(path)
        for words in arguments.words:
            row = [f"{path.parent.name}/{path.stem}", *measure(documents, words=words)]
            print(f"| {' | '.join(map(str, row))} |")


def measure(documents: Sequence[Document], *, words: int) -> list[int | str]:
    """The figures of one row, in the order of ``COLUMNS``."""
    covers = observed_types(documents) & frozenset(DEFAULT_SCHEME.types)
    reports = [
        build_examples(
            documents,
            covers=covers,
            scheme=DEFAULT_SCHEME,
            settings=TaskSettings(window_words=words, heads=heads, prompt="compact"),
        )[1]
        for heads in ("marked", "numbered")
    ]
    report = reports[0]
    lost = report.relations_cut + report.relations_apart
    return [
        words,
        report.entities,
        report.entities_cut,
        report.entities_crossing,
        report.relations,
        report.relations_cut,
        report.relations_apart,
        f"{100 * lost / report.relations:.2f}" if report.relations else "-",
        report.modifiers_unrelated,
        report.entity_examples,
        report.modifier_examples,
        reports[1].modifier_examples,
    ]


if __name__ == "__main__":
    main()
