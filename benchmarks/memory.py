"""Peak memory of training: what `fedmedlora estimate` says against what a process held.

    python benchmarks/memory.py

Every line is a process of its own: it makes a Llama of the shape with random weights, trains its
adapter for three steps of full rows, and tells the most memory that it held.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedmedlora.model.backbone import Precision
    from fedmedlora.model.losses import Objective

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
LORA: dict[str, Any] = {"rank": 16, "alpha": 64.0, "dropout": 0.0, "targets": TARGETS}
#: hidden, intermediate, layers, vocabulary
SHAPES = {"30M": (512, 1376, 8, 8192), "150M": (1024, 2752, 10, 16384)}
#: precision, batch, tokens, checkpointing, objective
SETTINGS = [
    ("fp32", 1, 400, False, "answer"),
    ("fp32", 4, 400, False, "answer"),
    ("fp32", 4, 400, True, "answer"),
    ("fp32", 4, 400, False, "decisions"),
    ("bf16", 4, 400, False, "answer"),
    ("nf4", 4, 400, False, "answer"),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        measure(**json.loads(arguments.one))
        return
    from fedmedlora.progress import quiet_libraries

    quiet_libraries()
    precisions = {"fp32", "bf16"}
    if importlib.util.find_spec("bitsandbytes"):
        precisions.add("nf4")
    print("shape  precision  batch  tokens  checkpointing  objective  estimate  measured   ratio")
    for name in SHAPES:
        with tempfile.TemporaryDirectory() as folder:
            make_model(Path(folder), name)
            for precision, batch, tokens, checkpointing, objective in SETTINGS:
                if precision not in precisions or (precision != "fp32" and name != "30M"):
                    continue  # half precision is slow on many processors
                settings = {
                    "folder": folder, "precision": precision, "batch": batch, "tokens": tokens,
                    "checkpointing": checkpointing, "objective": objective,
                }  # fmt: skip
                found = json.loads(
                    subprocess.run(
                        [sys.executable, __file__, "--one", json.dumps(settings)],
                        check=True, stdout=subprocess.PIPE, text=True,
                    ).stdout.splitlines()[-1]
                )  # fmt: skip
                on = "on" if checkpointing else "off"
                print(
                    f"{name:6} {precision:10} {batch:5} {tokens:7}  {on:13}  {objective:9}"
                    f"  {found['estimate'] / 1e6:5.0f} MB  {found['peak'] / 1e6:5.0f} MB"
                    f"   {found['estimate'] / found['peak']:.2f}",
                    flush=True,
                )


def make_model(folder: Path, name: str) -> None:
    """Random weights of a shape, and the embedded backbone's tokenizer, in a folder."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from fedmedlora.model.backbone import embedded_folder

    hidden, intermediate, layers, vocabulary = SHAPES[name]
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=hidden, intermediate_size=intermediate,
        num_hidden_layers=layers, num_attention_heads=8, num_key_value_heads=4,
        tie_word_embeddings=True, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(embedded_folder()).save_pretrained(folder)


def measure(
    *,
    folder: str,
    precision: Precision,
    batch: int,
    tokens: int,
    checkpointing: bool,
    objective: Objective,
) -> None:
    """Train here; print the estimate and this process's peak, in bytes."""
    import random

    import torch

    from fedmedlora.model.backbone import load_backbone
    from fedmedlora.model.encoding import Row
    from fedmedlora.model.lora import new_adapter_model
    from fedmedlora.model.memory import PROCESS_BYTES, Estimator
    from fedmedlora.model.training import TrainingSettings, train_adapter
    from fedmedlora.progress import quiet_libraries
    from fedmedlora.study.peak_memory import peak_megabytes, start_watching

    quiet_libraries()
    torch.set_num_threads(2)
    own = Estimator(folder, precision=precision, **LORA)
    estimate = own.training(
        batch=batch, tokens=tokens, checkpointing=checkpointing, objective=objective
    )
    start_watching()
    backbone = load_backbone(folder, precision=precision)
    model = new_adapter_model(backbone.model, seed=0, **LORA)
    rng = random.Random(0)
    answer = tokens // 2
    rows = [
        Row(
            example="",
            ids=tuple(rng.randrange(10, 8000) for _ in range(tokens)),
            answer=answer,
            tags=(answer + 5, answer + 6),
            choices=tuple(range(10, 40)),
        )
        for _ in range(batch * 3)
    ]
    settings = TrainingSettings(
        steps=3, batch=batch, max_tokens=tokens, gradient_checkpointing=checkpointing,
        objective=objective,
    )  # fmt: skip
    train_adapter(model, rows, tokenizer=backbone.tokenizer, settings=settings, seed=0)
    peak = peak_megabytes()
    if peak is None:
        sys.exit("this system does not tell a process's peak memory")
    print(json.dumps({"estimate": estimate.total + PROCESS_BYTES, "peak": peak * 1e6}))


if __name__ == "__main__":
    main()
