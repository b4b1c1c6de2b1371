"""Four sites on one machine: one after another, and in worker processes side by side.

    python benchmarks/parallel_sites.py [--processes 2] [--steps 30]

Synthetic notes, the embedded backbone, one thread a process. Seconds are of a round after the
first, in which worker processes start and load the backbone. Both give the same adapter, bit for
bit.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

from fedmedlora.config import load_study
from fedmedlora.progress import quiet_libraries
from fedmedlora.study.arms import study_arms
from fedmedlora.study.data import load_data
from fedmedlora.study.methods import MethodRunner

STUDY = """
name: four-sites
methods: [fed-medlora]
sites:
  one: {synthetic: {style: icu, train: 30, validation: 1, test: 1}}
  two: {synthetic: {style: outpatient, train: 30, validation: 1, test: 1}}
  three: {synthetic: {style: discharge, train: 30, validation: 1, test: 1}}
  four: {synthetic: {style: icu, train: 30, validation: 1, test: 1}}
task: {heads: numbered, prompt: compact, window_words: 40}
training: {batch: 4, objective: decisions, learning_rate: 1.0e-3}
adapter: {rank: 16, alpha: 64}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=4)
    arguments = parser.parse_args()
    quiet_libraries()
    seconds, hashes = {}, set()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "study.yaml"
        file.write_text(STUDY, encoding="utf-8")
        for processes in (1, arguments.processes):
            study = load_study(
                file,
                [
                    f"training.steps={arguments.steps}", f"federation.rounds={arguments.rounds}",
                    f"runtime.site_processes={processes}",
                ],
            )  # fmt: skip
            [arm] = study_arms(study)
            runner = MethodRunner(
                study, load_data(study), Path(folder) / str(processes), lambda kind, facts: None
            )
            trained = runner.train(arm)
            hashes.add(trained.adapter.sha256)
            rounds = [record.seconds for record in trained.records[1:]]
            seconds[processes] = statistics.median(rounds)
            print(f"{processes} at once: {seconds[processes]:.2f} s a round", flush=True)
    print(f"{seconds[1] / seconds[arguments.processes]:.2f} times as fast")
    print("the same adapter" if len(hashes) == 1 else "ANOTHER ADAPTER")


if __name__ == "__main__":
    main()
