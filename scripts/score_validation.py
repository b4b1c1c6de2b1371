"""Train one method of a study (``zero-shot``: none) and score it on the sites' validation notes.

    python scripts/score_validation.py STUDY METHOD [key=value ...]

For choosing settings: test notes are not read. Prints seconds, the last losses, open biases and
strict micro F1.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from fedmedlora.config import load_study
from fedmedlora.evaluation.records import SCORED_OF, Cohort, score_cohorts
from fedmedlora.progress import quiet_libraries
from fedmedlora.study.data import load_data
from fedmedlora.study.methods import MethodRunner
from fedmedlora.tasks.build import build_examples
from fedmedlora.tasks.reading import predict_documents


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path)
    parser.add_argument("method")
    parser.add_argument("settings", nargs="*")
    arguments = parser.parse_args()
    quiet_libraries()
    study = load_study(arguments.study, arguments.settings)
    data = load_data(study)
    with tempfile.TemporaryDirectory() as folder:
        runner = MethodRunner(study, data, Path(folder), lambda kind, facts: None)
        started = time.monotonic()
        adapter, biases = None, dict.fromkeys(runner.settings.tasks, 0.0)
        if arguments.method != "zero-shot":
            trained = runner.train(arguments.method)
            adapter, biases = trained.adapter, dict(trained.open_biases)
            last = {name: site.loss_last for name, site in trained.records[-1].sites.items()}
            print(f"trained in {time.monotonic() - started:.0f} s, last losses {last}, {biases=}")
    started, asked = time.monotonic(), 0
    cohorts: dict[str, dict[str, Cohort]] = {task: {} for task in runner.settings.tasks}
    for site in data.sites:
        examples, _ = build_examples(
            site.validation, covers=site.covers, scheme=runner.scheme, settings=runner.settings
        )
        asked += len(examples)
        answers = runner.decode(adapter, examples, biases)
        pairs = list(zip(examples, answers, strict=True))
        read = predict_documents(
            site.validation, pairs, scheme=runner.scheme, tasks=runner.settings.tasks
        )
        for task in runner.settings.tasks:
            cohorts[task][site.name] = Cohort(site.validation, read[task].documents, site.covers)
    print(f"{asked} examples decoded in {time.monotonic() - started:.1f} s")
    for task, by_site in cohorts.items():
        records = score_cohorts(
            by_site,
            scheme=runner.scheme,
            method=arguments.method,
            round=None,
            tasks=SCORED_OF[task],
            bootstrap=None,
        )
        for record in records:
            if record.type == "micro" and record.matching == "strict" and record.f1 is not None:
                print(f"{record.task:10} {record.level:9} {record.cohort:18} {record.f1:.3f}")


if __name__ == "__main__":
    main()
