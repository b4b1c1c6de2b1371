"""How a run was made, as a section: the study, the versions, and what tells two runs apart."""

from __future__ import annotations

from fedmedlora.report.blocks import Section, Source, Text
from fedmedlora.report.run import Run


def making_section(run: Run) -> Section:
    """The study as it was run, package versions and the run's fingerprint."""
    blocks: list[Text | Source] = [
        Text(
            (
                f"Fingerprint of this run: {run.fingerprint}",
                "SHA-256 over study.yaml, versions.json, data.json, rounds.jsonl and scores.json. "
                "Wall times are part of it: two runs of one study agree in their scores, not in "
                "this.",
            )
        ),
        Source("The study, as it was run (study.yaml)", run.study_text),
    ]
    if run.versions:
        blocks.append(
            Source(
                "Versions of packages",
                "\n".join(f"{name} {version}" for name, version in run.versions.items()),
            )
        )
    return Section(
        id="making", title="How this was made", short="How it was made", blocks=tuple(blocks)
    )
