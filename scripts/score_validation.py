"""Train one row of a study and score it on the sites' validation notes.

    python scripts/score_validation.py STUDY ROW [key=value ...]

For choosing settings: test notes are not read. ROW is a label of the study's table, such as
zero-shot or fed-medlora; the study need not list its method. Prints seconds, the last losses, open
biases and micro F1.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from fedmedlora.config import load_study
from fedmedlora.progress import quiet_libraries
from fedmedlora.study.arms import study_arms
from fedmedlora.study.by_round import score_round
from fedmedlora.study.data import load_data
from fedmedlora.study.methods import MethodRunner


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path)
    parser.add_argument("row")
    parser.add_argument("settings", nargs="*")
    arguments = parser.parse_args()
    quiet_libraries()
    row = arguments.row
    more = [] if "/" in row else [f"methods=[{row}]"]
    study = load_study(arguments.study, [*more, *arguments.settings])
    arm = next(arm for arm in study_arms(study) if arm.label == row)
    with tempfile.TemporaryDirectory() as folder:
        runner = MethodRunner(study, load_data(study), Path(folder), lambda kind, facts: None)
        started = time.monotonic()
        trained = None
        if arm.kind != "untrained":
            trained = runner.train(arm)
            last = {name: site.loss_last for name, site in trained.records[-1].sites.items()}
            seconds, biases = time.monotonic() - started, trained.open_biases
            print(f"trained in {seconds:.0f} s, last losses {last}, {biases=}")
        started = time.monotonic()
        rows = score_round(
            runner,
            arm,
            None if trained is None else trained.adapter,
            number=0,
            open_biases=None if trained is None else trained.open_biases,
            own=None if trained is None else trained.own,
            all_cohorts=True,
        )
        print(f"decoded in {time.monotonic() - started:.1f} s")
    for one in rows:
        if one["f1"] is not None:
            print(f"{one['task']:10} {one['matching']:8} {one['cohort']:18} {one['f1']:.3f}")


if __name__ == "__main__":
    main()
