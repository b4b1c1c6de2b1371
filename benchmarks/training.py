"""A site's round against a bare PyTorch loop over the same batches, and what setting it up costs.

    python benchmarks/training.py studies/demo.yaml [key=value ...] [--steps 60]

The bare loop: the same PEFT model, AdamW, the same loss, clipping and schedule, nothing else; with
PEFT's own layers, and with ours (model/fused_lora.py). Steps only; setting up is the rest of a
call of `train_adapter`. Sides take turns; medians.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from fedmedlora.config import load_study
from fedmedlora.model.fused_lora import fused_lora
from fedmedlora.model.lora import load_adapter
from fedmedlora.model.losses import batch_loss, pad_rows
from fedmedlora.model.training import (
    TrainingSettings,
    length_order,
    train_adapter,
    warmup_steps,
)
from fedmedlora.progress import quiet_libraries
from fedmedlora.study.arms import study_arms
from fedmedlora.study.data import load_data
from fedmedlora.study.lora_bench import training_settings
from fedmedlora.study.methods import MethodRunner


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path)
    parser.add_argument("settings", nargs="*")
    parser.add_argument("--steps", type=int, default=60)
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
        training_settings(arm), steps=arguments.steps, schedule="round", learning_rate=1e-4
    )
    with tempfile.TemporaryDirectory() as folder:
        runner = MethodRunner(study, data, Path(folder), lambda kind, facts: None)
        bench = runner.lora.workbench(study)
        rows = list(runner.lora.encode(data.sites[0], study).train)
    tokens = sum(len(row.ids) for row in rows) / len(rows)
    print(f"{settings.steps} steps of {settings.batch} rows, {tokens:.0f} tokens a row on average")
    found: dict[str, list[float]] = {"round": [], "setting up": [], "bare": [], "bare, fused": []}
    for turn in range(arguments.turns + 1):
        load_adapter(bench.model, bench.initial)
        steps, rest = our_round(bench, rows, settings)
        took = {"round": steps, "setting up": rest}
        for name, fused in (("bare", False), ("bare, fused", True)):
            load_adapter(bench.model, bench.initial)
            took[name] = bare_loop(bench.model, rows, settings, fused=fused)
        if turn:
            for name, seconds in took.items():
                found[name].append(seconds)
    median = {name: statistics.median(seconds) for name, seconds in found.items()}
    ours = median["round"]
    print(f"  a site's round  {ours * 1e3:6.1f} ms a step; setting up {median['setting up']:.2f} s")
    for name in ("bare", "bare, fused"):
        print(
            f"  {name:14}  {median[name] * 1e3:6.1f} ms a step; "
            f"the round takes {ours / median[name]:.2f} times that"
        )


def our_round(bench: Any, rows: Sequence[Any], settings: TrainingSettings) -> tuple[float, float]:
    """Seconds a step, and of everything else."""
    moments: list[float] = []

    def step(number: int, steps: int, loss: float | None) -> None:
        moments.append(time.perf_counter())

    started = time.perf_counter()
    train_adapter(
        bench.model, rows, tokenizer=bench.backbone.tokenizer, settings=settings, seed=1,
        on_step=step,
    )  # fmt: skip
    whole = time.perf_counter() - started
    each = (moments[-1] - moments[0]) / (len(moments) - 1)
    return each, whole - each * len(moments)


def bare_loop(model: Any, rows: Sequence[Any], settings: TrainingSettings, *, fused: bool) -> float:
    """Seconds a step."""
    import torch
    from transformers import get_cosine_schedule_with_warmup

    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=settings.learning_rate, weight_decay=0.0, fused=True)
    steps = settings.steps or 1
    schedule = get_cosine_schedule_with_warmup(
        optimiser, warmup_steps(settings.warmup, steps), steps
    )
    rng = random.Random(1)
    batches: list[list[Any]] = []
    while len(batches) < steps:
        order = length_order([len(row.ids) for row in rows], batch=settings.batch, rng=rng)
        batches += [
            [rows[place] for place in order[at : at + settings.batch]]
            for at in range(0, len(order), settings.batch)
        ]
    model.train()
    first = 0.0
    with fused_lora(model) if fused else nullcontext():
        for number, part in enumerate(batches[:steps]):
            inputs = {key: value.to(model.device) for key, value in pad_rows(part).items()}
            total, count = batch_loss(model, inputs, settings.objective)
            loss = total / count
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimiser.step()
            schedule.step()
            optimiser.zero_grad()
            float(loss.detach())
            if number == 0:
                first = time.perf_counter()
    took = time.perf_counter() - first
    model.eval()
    return took / (steps - 1)


if __name__ == "__main__":
    main()
