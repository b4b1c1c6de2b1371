"""Scoring K adapters on validation rows: as Fed-MedLoRA+ does it here, and through a trainer.

    python benchmarks/candidates.py studies/demo.yaml [key=value ...] [--adapters 5]

The other side loads one adapter after the other into the model, makes a trainer for it and lets it
evaluate, at the trainer's batch of 8 rows. Both sides see the same rows and compute the same loss;
the largest difference is printed. Sides take turns; medians.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from alternating import alternate

from fedmedlora.config import load_study
from fedmedlora.model.adapter import Adapter
from fedmedlora.model.candidates import candidate_losses
from fedmedlora.model.lora import load_adapter
from fedmedlora.model.losses import Objective, batch_loss, pad_rows
from fedmedlora.progress import quiet_libraries
from fedmedlora.study.data import load_data
from fedmedlora.study.methods import MethodRunner


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path)
    parser.add_argument("settings", nargs="*")
    parser.add_argument("--adapters", type=int, default=5)
    parser.add_argument("--turns", type=int, default=5)
    arguments = parser.parse_args()
    quiet_libraries()
    study = load_study(arguments.study, arguments.settings)
    data = load_data(study)
    with tempfile.TemporaryDirectory() as folder:
        runner = MethodRunner(study, data, Path(folder), lambda kind, facts: None)
        bench = runner.lora.workbench(study)
        rows = [r for site in data.sites for r in runner.lora.encode(site, study).validation]
    adapters = made(bench.initial, arguments.adapters)
    objectives: tuple[Objective, ...] = ("decisions", "answer")
    print(f"{len(adapters)} adapters, {len(rows)} rows, {study.runtime.threads} threads")
    for objective in objectives:
        losses: dict[str, list[float]] = {}

        def ours(objective: Objective = objective, losses: Any = losses) -> None:
            losses["ours"], _ = candidate_losses(bench.model, adapters, rows, objective=objective)

        def theirs(objective: Objective = objective, losses: Any = losses) -> None:
            losses["trainer"] = through_trainer(bench.model, adapters, rows, objective=objective)

        took = alternate({"ours": ours, "trainer": theirs}, times=arguments.turns)
        far = max(abs(a - b) for a, b in zip(losses["ours"], losses["trainer"], strict=True))
        print(
            f"loss over {objective:9}: {took['ours']:6.2f} s, through the trainer "
            f"{took['trainer']:6.2f} s, {took['trainer'] / took['ours']:.1f} times; losses "
            f"differ by {far:.1e} at most"
        )


def made(initial: Adapter, count: int) -> list[Adapter]:
    """Adapters that do something, each another."""
    import numpy as np

    rng = np.random.default_rng(0)
    return [
        Adapter(
            initial.manifest,
            {
                name: tensor + 0.02 * rng.standard_normal(tensor.shape).astype(np.float32)
                for name, tensor in initial.tensors.items()
            },
        )
        for _ in range(count)
    ]


def through_trainer(model: Any, adapters: Any, rows: Any, *, objective: Objective) -> list[float]:
    from datasets import Dataset
    from transformers import Trainer, TrainingArguments
    from transformers.trainer_callback import PrinterCallback, ProgressCallback

    losses = []
    for adapter in adapters:
        load_adapter(model, adapter)
        sums = [0.0, 0]

        class Scorer(Trainer):  # type: ignore[misc]
            def prediction_step(
                self, model: Any, inputs: Any, *_: Any, sums: Any = sums, **__: Any
            ) -> Any:
                import torch

                with torch.no_grad():
                    total, count = batch_loss(model, self._prepare_inputs(inputs), objective)
                sums[0] += float(total)
                sums[1] += count
                return (total / count, None, None)

        with tempfile.TemporaryDirectory() as folder:
            trainer = Scorer(
                model=model,
                args=TrainingArguments(
                    folder, per_device_eval_batch_size=8, report_to="none", disable_tqdm=True,
                    remove_unused_columns=False, use_cpu=not next(model.parameters()).is_cuda,
                    dataloader_pin_memory=False, prediction_loss_only=True,
                ),
                eval_dataset=Dataset.from_dict({"row": range(len(rows))}),
                data_collator=lambda places: pad_rows([rows[place["row"]] for place in places]),
            )  # fmt: skip
            trainer.remove_callback(PrinterCallback)
            trainer.remove_callback(ProgressCallback)
            trainer.evaluate()
        losses.append(sums[0] / sums[1])
    return losses


if __name__ == "__main__":
    main()
