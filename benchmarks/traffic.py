"""Bytes that a round moves, by backbone and wire, against the whole model in bfloat16.

    python benchmarks/traffic.py

Shapes of the paper's backbones, rank 16, the modules of the paper; no weights are needed. Down:
the global adapter, to one site. Up: what the site trained. Fed-MedLoRA+ with validation at the
sites: every site also gets the other sites' adapters, to score them.
"""

from __future__ import annotations

from fedmedlora.model.memory import Estimator
from fedmedlora.model.packing import WIRES, form_of, is_difference, wire_bytes
from fedmedlora.progress import quiet_libraries

LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
ATTENTION = LINEAR[:4]
BACKBONES = {
    "meta-llama/Llama-3.1-8B-Instruct": LINEAR,
    "deepseek-ai/DeepSeek-R1-Distill-Llama-8B": LINEAR,
    "meta-llama/Llama-3.2-1B-Instruct": LINEAR,
    "Qwen/Qwen3-4B": ATTENTION,
}
SITES = 3


def main() -> None:
    quiet_libraries()
    print(
        f"{'backbone':42}{'model, bf16':>12}  {'wire':5}{'down':>10}{'up':>10}"
        f"{'up / model':>12}{'scoring of 3':>14}"
    )
    for name, targets in BACKBONES.items():
        estimator = Estimator(
            name, precision="bf16", rank=16, alpha=64.0, dropout=0.0, targets=targets
        )
        size, whole = estimator.shape.adapter, 2 * estimator.shape.parameters
        for wire in WIRES:
            up, down = wire_bytes(size, wire), wire_bytes(size, form_of(wire))
            scoring = SITES * up + (down if is_difference(wire) else 0)
            print(
                f"{name:42}{whole / 1e9:9.2f} GB  {wire:5}{down / 1e6:7.1f} MB{up / 1e6:7.1f} MB"
                f"{up / whole:12.3%}{scoring / 1e6:11.1f} MB"
            )


if __name__ == "__main__":
    main()
