"""Scoring K adapters on validation rows: as Fed-MedLoRA+ does it here, and through a trainer.

    python benchmarks/candidates.py studies/demo.yaml [key=value ...] [--adapters 5]

The other side reads one adapter after the other from its folder, sets it, makes TRL's trainer for
it and lets it evaluate rows that are tokenised already, at the trainer's batch of 8: with its own
loss where that is the answer's, with ours where it knows none (decisions). Both sides see the same
rows and find the same loss; the largest difference is printed. Sides take turns; medians.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alternating import alternate

from fedmedlora.config import load_study
from fedmedlora.model.adapter import Adapter
from fedmedlora.model.adapter_files import save_adapter
from fedmedlora.model.candidates import candidate_losses
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
    tokenizer = bench.backbone.tokenizer
    kept = tempfile.TemporaryDirectory()
    folders = [Path(kept.name) / str(place) for place in range(len(adapters))]
    for adapter, place in zip(adapters, folders, strict=True):
        save_adapter(adapter, place, base_model=study.backbone.name)
    objectives: tuple[Objective, ...] = ("decisions", "answer")
    print(f"{len(adapters)} adapters, {len(rows)} rows, {study.runtime.threads} threads")
    for objective in objectives:
        losses: dict[str, list[float]] = {}

        def ours(objective: Objective = objective, losses: Any = losses) -> None:
            losses["ours"], _ = candidate_losses(bench.model, adapters, rows, objective=objective)

        def theirs(objective: Objective = objective, losses: Any = losses) -> None:
            losses["trainer"] = through_trainer(
                bench.model, tokenizer, folders, rows, objective=objective
            )

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


def through_trainer(
    model: Any, tokenizer: Any, folders: Sequence[Path], rows: Any, *, objective: Objective
) -> list[float]:
    import torch
    from datasets import Dataset
    from peft import load_peft_weights, set_peft_model_state_dict
    from transformers.trainer_callback import PrinterCallback, ProgressCallback
    from trl import SFTConfig, SFTTrainer

    losses = []
    for adapter in folders:
        set_peft_model_state_dict(model, load_peft_weights(str(adapter), device="cpu"))
        sums = [0.0, 0]

        class Scorer(SFTTrainer):  # type: ignore[misc]
            """Adds up the trainer's loss over tokens: its own mean is one over batches."""

            def prediction_step(
                self, model: Any, inputs: Any, *_: Any, sums: Any = sums, **__: Any
            ) -> Any:
                inputs = self._prepare_inputs(inputs)
                with torch.no_grad():
                    if objective == "answer":
                        count = int((inputs["labels"][:, 1:] != -100).sum())
                        total = self.compute_loss(model, inputs) * count
                    else:
                        total, count = batch_loss(model, inputs, objective)
                sums[0] += float(total)
                sums[1] += count
                return (total / count, None, None)

        own: dict[str, Any] = {"eval_dataset": tokenised(rows)}
        if objective == "decisions":  # a loss that the trainer does not know
            own = {
                "eval_dataset": Dataset.from_dict({"row": range(len(rows))}),
                "data_collator": lambda places: pad_rows([rows[at["row"]] for at in places]),
            }
        with tempfile.TemporaryDirectory() as folder:
            trainer = Scorer(
                model=model,
                processing_class=tokenizer,
                args=SFTConfig(
                    folder, per_device_eval_batch_size=8, report_to="none", disable_tqdm=True,
                    remove_unused_columns=False, dataloader_pin_memory=False, bf16=False,
                    prediction_loss_only=True, gradient_checkpointing=False, max_length=None,
                    dataset_kwargs={"skip_prepare_dataset": True}, packing=False,
                ),
                train_dataset=own["eval_dataset"],
                **own,
            )  # fmt: skip
            trainer.remove_callback(PrinterCallback)
            trainer.remove_callback(ProgressCallback)
            trainer.evaluate()
        losses.append(sums[0] / sums[1])
    return losses


def tokenised(rows: Any) -> Any:
    """Rows as TRL takes them: token ids, and the answer's as labels."""
    from datasets import Dataset

    return Dataset.from_dict(
        {
            "input_ids": [list(row.ids) for row in rows],
            "labels": [[-100] * row.answer + list(row.ids[row.answer :]) for row in rows],
        }
    )


if __name__ == "__main__":
    main()
