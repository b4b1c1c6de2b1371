"""How much memory training and decoding will take: a backbone's name and settings in, bytes out.

Counted, not fitted: transformers' own modules with PEFT's adapters run forward without weights
(``outline``), and every tensor that autograd would keep for the backward pass is measured. What is
left to formulas is the loss, the optimiser and the largest tensors of the backward pass.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fedmedlora.model.adapter import factor_of
from fedmedlora.model.backbone import Precision
from fedmedlora.model.lora import new_adapter_model
from fedmedlora.model.losses import Objective
from fedmedlora.model.outline import outline

#: Python with torch, transformers, PEFT and TRL loaded (Linux, CPU wheel of torch 2.13.0).
PROCESS_BYTES = 620_000_000
#: A parameter's value, gradient, two moments of AdamW and the copy to go back to, in float32.
_PER_TRAINED = 5 * 4
#: NF4: half a byte, and one absmax of 8 bits for 64 values, in double quantisation.
_NF4_BYTES = 0.5 + (1 + 4 / 256) / 64
#: Answers repeat the source and prompts hold it once: of a row, no more than this is answer.
_ANSWER_SHARE = 0.5
_TAG_TOKENS = 64  # more than the tokens of all tags


@dataclass(frozen=True, slots=True)
class Shape:
    """What a backbone and an adapter on it are made of.

    Attributes:
        parameters: of the backbone.
        quantisable: of these, in linear layers that NF4 packs: all but embeddings and the head.
        largest: values of the largest linear layer but the head.
        adapter: parameters of the adapter.
        of_a: of these, in A.
        vocabulary: tokens.
        layers: decoder layers.
        hidden: width between layers.
        widest: largest width within them.
        cached: values that a decoded token adds to the cache of keys and values.
    """

    parameters: int
    quantisable: int
    largest: int
    adapter: int
    of_a: int
    vocabulary: int
    layers: int
    hidden: int
    widest: int
    cached: int


@dataclass(frozen=True, slots=True)
class TrainingMemory:
    """Bytes at the peak of a training step, part by part.

    Attributes:
        weights: of the frozen backbone.
        adapter: values, gradients, optimiser and a copy.
        activations: kept for the backward pass.
        loss: logits of the answers and what the loss makes of them.
        passing: the largest tensors that exist for a moment only.
    """

    weights: int
    adapter: int
    activations: int
    loss: int
    passing: int

    @property
    def total(self) -> int:
        """Of the model; ``PROCESS_BYTES`` come on top where weights lie in main memory."""
        return self.weights + self.adapter + self.activations + self.loss + self.passing


class Estimator:
    """Estimates for one backbone with one adapter; reading the shapes takes a second or two.

    Args:
        name: as ``load_backbone`` takes it.
        precision: of the backbone.
        rank, alpha, dropout, targets: LoRA's.

    Raises:
        BackboneError: there is no such backbone.
        AdapterError: it has no such modules.
    """

    def __init__(
        self,
        name: str,
        *,
        precision: Precision,
        rank: int,
        alpha: float,
        dropout: float,
        targets: tuple[str, ...],
    ) -> None:
        self._precision = precision
        dtype = torch.float32 if precision == "fp32" else torch.bfloat16
        self._width = dtype.itemsize
        model = outline(name, dtype=dtype)
        parameters = sum(parameter.numel() for parameter in model.parameters())
        decoder = model.get_decoder()
        linear = [m.weight.numel() for m in decoder.modules() if isinstance(m, torch.nn.Linear)]
        config = model.config.get_text_config()
        head_size = getattr(config, "head_dim", None) or (
            config.hidden_size // config.num_attention_heads
        )
        kv_heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        self._model = new_adapter_model(
            model, rank=rank, alpha=alpha, dropout=dropout, targets=targets, seed=0
        )
        trained = [(n, p.numel()) for n, p in self._model.named_parameters() if p.requires_grad]
        self.shape = Shape(
            parameters=parameters,
            quantisable=sum(linear),
            largest=max(linear, default=0),
            adapter=sum(size for _, size in trained),
            of_a=sum(size for name, size in trained if factor_of(name) == "A"),
            vocabulary=config.vocab_size,
            layers=config.num_hidden_layers,
            hidden=config.hidden_size,
            widest=max(config.hidden_size, getattr(config, "intermediate_size", 0)),
            cached=2 * config.num_hidden_layers * kv_heads * head_size,
        )

    @property
    def weights(self) -> int:
        """Bytes of the backbone's weights as they are held."""
        shape = self.shape
        if self._precision != "nf4":
            return shape.parameters * self._width
        rest = shape.parameters - shape.quantisable
        return round(shape.quantisable * _NF4_BYTES) + rest * self._width

    def training(
        self, *, batch: int, tokens: int, checkpointing: bool, objective: Objective
    ) -> TrainingMemory:
        """The peak of a step.

        Args:
            batch: rows.
            tokens: of the longest row.
            checkpointing: activations are computed again, layer by layer.
            objective: of the loss; over decisions, few logits are needed.
        """
        shape, width = self.shape, self._width
        places = batch * tokens
        kept = self.activations(batch=batch, tokens=tokens)
        if checkpointing:
            kept = shape.layers * places * shape.hidden * width + kept // shape.layers
        answers = round(places * _ANSWER_SHARE)
        columns = shape.vocabulary
        if objective == "decisions":
            columns = min(columns, _TAG_TOKENS + answers)
        # Logits, in float32 if they are not, log-probabilities and their gradient.
        copies = 3 * 4 + (width if width < 4 else 0)
        passing = 2 * places * shape.widest * max(width, 4)
        if self._precision == "nf4":
            passing += shape.largest * width  # a layer's weights, unpacked
        return TrainingMemory(
            weights=self.weights,
            adapter=shape.adapter * _PER_TRAINED,
            activations=kept,
            loss=answers * columns * copies,
            passing=passing,
        )

    def activations(self, *, batch: int, tokens: int) -> int:
        """Bytes that autograd keeps of one forward pass, parameters apart."""
        ids = torch.zeros(batch, tokens, dtype=torch.long, device="meta")
        mask = torch.zeros(batch, 1, tokens, tokens, dtype=torch.bool, device="meta")
        own = {p.untyped_storage()._cdata for p in self._model.parameters()}
        kept: dict[int, torch.Tensor] = {}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            place = tensor.untyped_storage()._cdata
            if place not in own:
                kept[place] = tensor
            return tensor

        self._model.train()
        hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
        with _attention_in_one_piece(), hooks:
            self._model.get_base_model().get_decoder()(
                input_ids=ids, attention_mask=mask, use_cache=False
            )
        masks = mask.untyped_storage()._cdata
        return sum(
            tensor.untyped_storage().nbytes() for place, tensor in kept.items() if place != masks
        )

    def decoding(self, *, batch: int, tokens: int, merged: bool) -> int:
        """Bytes of weights, cache of keys and values, and of reading the prompts.

        Args:
            batch: rows.
            tokens: of the longest row with its answer.
            merged: whether the adapter is added to a copy of the weights.
        """
        shape, width = self.shape, self._width
        weights = self.weights * (2 if merged else 1) + shape.adapter * 4
        cache = batch * tokens * shape.cached * width
        # The prompt is read at once: its hidden states, and the widest of a layer.
        reading = batch * tokens * (2 * shape.hidden + 2 * shape.widest) * width
        return weights + cache + reading


def available_memory(device: torch.device) -> int:
    """Bytes that can still be taken on a device: of a GPU, or of this machine or its container.

    Where the system does not tell, more than anything needs.
    """
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + kept
    free = [_MEMINFO, *_CGROUP]
    told = [amount for amount in (_free_memory(path) for path in free) if amount is not None]
    return min(told, default=1 << 62)


_MEMINFO = Path("/proc/meminfo")
#: A container's limit beside what it uses: versions 2 and 1 of control groups.
_CGROUP = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
_USED = {"memory.max": "memory.current", "memory.limit_in_bytes": "memory.usage_in_bytes"}


def _free_memory(path: Path) -> int | None:
    try:
        text = path.read_text(encoding="ascii")
        if path.name == "meminfo":
            [line] = [line for line in text.splitlines() if line.startswith("MemAvailable:")]
            return int(line.split()[1]) * 1024
        used = int(path.with_name(_USED[path.name]).read_text(encoding="ascii"))
        # Files that were read count as used until the room is wanted.
        stat = path.with_name("memory.stat").read_text(encoding="ascii")
        files = re.search(r"^(?:total_)?inactive_file (\d+)$", stat, flags=re.M)
        return int(text) - used + (int(files[1]) if files else 0)
    except (OSError, ValueError):  # no such file; or "max", no limit
        return None


class _Attention(torch.autograd.Function):
    """Keeps what the fused kernels keep: queries, keys, values and the result."""

    @staticmethod
    def forward(ctx: Any, *parts: torch.Tensor) -> torch.Tensor:
        result = torch.empty_like(parts[0])
        ctx.save_for_backward(*parts, result)
        return result


@contextmanager
def _attention_in_one_piece() -> Iterator[None]:
    """On the meta device torch would take attention apart, and keep every pair of tokens."""
    functional: Any = torch.nn.functional
    usual = functional.scaled_dot_product_attention

    def whole(
        query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any, **__: Any
    ) -> Any:
        return _Attention.apply(query, key, value)  # type: ignore[no-untyped-call]

    functional.scaled_dot_product_attention = whole
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        functional.scaled_dot_product_attention = usual
