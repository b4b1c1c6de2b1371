"""What a private step costs beside a plain one: the same rows, the same model.

    python benchmarks/private_training.py studies/demo.yaml [key=value ...] [--batch 16]

Plain: `train_adapter`. Private: `train_privately`, every example a unit, as many expected in a step
as the plain batch has rows; Poisson sampling draws more or fewer. Steps only, setting up is not
counted; sides take turns; medians. The private step's rows are counted, and its time is given for
as many rows as the plain step has. Seconds are those of this process on the CPU, so that other work
on the machine counts for neither side.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fedmedlora.config import load_study
from fedmedlora.model.lora import load_adapter
from fedmedlora.model.private_training import NoiseSettings, Randomness, train_privately
from fedmedlora.model.training import TrainingSettings, train_adapter
from fedmedlora.progress import quiet_libraries
from fedmedlora.study.arms import study_arms
from fedmedlora.study.data import load_data
from fedmedlora.study.lora_bench import training_settings
from fedmedlora.study.methods import MethodRunner


class Counted(Randomness):
    """Counts what is drawn."""

    drawn = 0

    def draw(self, units: int, rate: float) -> list[int]:
        """As of its base."""
        found = super().draw(units, rate)
        self.drawn += len(found)
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path)
    parser.add_argument("settings", nargs="*")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--turns", type=int, default=5)
    arguments = parser.parse_args()
    quiet_libraries()
    study = load_study(
        arguments.study,
        ["methods=[fed-medlora]", "new_sites={}", "variants={}", *arguments.settings],
    )
    data = load_data(study)
    arm = next(arm for arm in study_arms(study) if arm.label == "fed-medlora")
    settings = replace(
        training_settings(arm), steps=arguments.steps, batch=arguments.batch, learning_rate=1e-4
    )
    with tempfile.TemporaryDirectory() as folder:
        runner = MethodRunner(study, data, Path(folder), lambda kind, facts: None)
        bench = runner.lora.workbench(study)
        rows = list(runner.lora.encode(data.sites[0], study).train)
    tokens = sum(len(row.ids) for row in rows) / len(rows)
    print(f"{settings.steps} steps of {settings.batch} rows, {tokens:.0f} tokens a row on average")
    for trains in ("AB", "B"):
        found: dict[str, list[float]] = {"plain": [], "private": []}
        for turn in range(arguments.turns + 1):
            load_adapter(bench.model, bench.initial)
            plain = plain_round(bench, rows, settings, trains)
            load_adapter(bench.model, bench.initial)
            private = private_round(bench, rows, settings, trains)
            if turn:
                found["plain"].append(plain)
                found["private"].append(private)
        median = {name: statistics.median(seconds) for name, seconds in found.items()}
        print(
            f"  trains {trains:2}  plain {median['plain'] * 1e3:6.1f} ms a step, "
            f"private {median['private'] * 1e3:6.1f}: {median['private'] / median['plain']:.2f} "
            "times"
        )


def plain_round(bench: Any, rows: Sequence[Any], settings: TrainingSettings, trains: Any) -> float:
    """Seconds a step."""
    moments: list[float] = []

    def step(number: int, steps: int, loss: float | None) -> None:
        moments.append(time.process_time())

    train_adapter(
        bench.model, rows, tokenizer=bench.backbone.tokenizer, settings=settings, seed=1,
        trains=trains, on_step=step,
    )  # fmt: skip
    return (moments[-1] - moments[0]) / (len(moments) - 1)


def private_round(
    bench: Any, rows: Sequence[Any], settings: TrainingSettings, trains: Any
) -> float:
    """Seconds a step of as many rows as a plain one has."""
    moments: list[tuple[float, int]] = []
    drawn = Counted()

    def step(number: int, steps: int, loss: float | None) -> None:
        moments.append((time.process_time(), drawn.drawn))

    train_privately(
        bench.model, rows, units=range(len(rows)),
        noise=NoiseSettings(1.0, 0.1, settings.batch, 1), settings=settings, seed=1,
        trains=trains, on_step=step, randomness=drawn,
    )  # fmt: skip
    (first, before), (last, after) = moments[0], moments[-1]
    return (last - first) / (after - before) * settings.batch


if __name__ == "__main__":
    main()
