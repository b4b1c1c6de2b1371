"""A new model in, the same model with a start in meaning and copying.

An embedding begins as what company its token keeps in the open text (``vectors``): kinds of names
are then nearly separable from the first step on, which training alone does not reach on a text
this small. Finding "what followed this token before" takes a head that looks at the previous token
and one that matches it (Olsson et al. 2022, induction heads). Both appear by themselves late in
training; set by hand as a starting point, copying is there within minutes. Training changes all of
it freely.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import LlamaConfig, LlamaForCausalLM

_PAIRS = 3  # pairs of heads: previous token in layer 0, match in layer 1
_FAST = 4  # rotary pairs that turn quickly enough to tell neighbours apart
_SLOW = 6  # from this rotary pair on, distance within an exercise hardly turns them
_LOCATE, _MATCH, _COPY, _LOGITS = 5.0, 2.5, 40.0, 6.0


def _slots(config: LlamaConfig) -> torch.Tensor:
    """Dimensions of a head that hold what a token is, not where."""
    size = config.hidden_size // config.num_attention_heads
    return torch.tensor([i for i in range(size) if i % (size // 2) >= _SLOW])


def content_of(config: LlamaConfig) -> slice:
    """The dimensions of an embedding that say what its token is; the others begin as 0."""
    return slice(1, config.hidden_size - _PAIRS * len(_slots(config)))


def prime_meaning(model: LlamaForCausalLM, vectors: NDArray[np.float64], *, share: float) -> None:
    """Turn embeddings towards ``vectors`` (tokens, content dimensions), to a cosine of ``share``.

    The rest stays as it was drawn, so that tokens of like company can still be told apart.
    """
    weights = model.model.embed_tokens.weight.data[:, content_of(model.config)]
    length = float(weights.std()) * weights.shape[1] ** 0.5
    drawn = torch.nn.functional.normalize(weights)
    known = torch.from_numpy(vectors).float()
    mixed = share * known + (1 - share**2) ** 0.5 * drawn
    weights.copy_(torch.where(known.any(1, keepdim=True), mixed, drawn) * length)


def prime_copying(model: LlamaForCausalLM, *, seed: int) -> None:
    """Set ``_PAIRS`` previous-token heads and as many matching heads, in place."""
    config = model.config
    size = config.hidden_size // config.num_attention_heads
    half = size // 2
    slots, content = _slots(config), content_of(config)
    columns = content.stop - 1
    generator = torch.Generator().manual_seed(seed)
    embedding = model.model.embed_tokens.weight.data
    scale = float(embedding[:, content].std())
    embedding[:, content.stop :] = 0.0
    embedding[:, 0] = 2.5 * scale
    model.model.norm.weight.data.fill_(_LOGITS)
    theta = float(config.rope_parameters["rope_theta"])
    turn = theta ** (-torch.arange(_FAST) / half)
    basis = torch.linalg.qr(torch.randn(columns, columns, generator=generator))[0]
    first, second = model.model.layers[0].self_attn, model.model.layers[1].self_attn
    for layer in (first, second):
        heads = slice(0, _PAIRS * size)
        for weight in (layer.q_proj.weight, layer.k_proj.weight, layer.v_proj.weight):
            weight.data[heads] = 0.0
        layer.o_proj.weight.data[:, heads] = 0.0
    for pair in range(_PAIRS):
        start = pair * size
        rows = slice(start, start + size)
        memory = content.stop + pair * len(slots) + torch.arange(len(slots))
        read = torch.randn(len(slots), columns, generator=generator) / columns**0.5
        # A constant query and key whose product peaks one token back.
        first.q_proj.weight.data[start : start + _FAST, 0] = _LOCATE * torch.cos(turn)
        low = start + half
        first.q_proj.weight.data[low : low + _FAST, 0] = -_LOCATE * torch.sin(turn)
        first.k_proj.weight.data[start : start + _FAST, 0] = _LOCATE
        first.v_proj.weight.data[start + slots, content] = read
        first.o_proj.weight.data[memory, start + slots] = scale
        # The query is this token, the key what stood before; matching ones attract.
        second.q_proj.weight.data[start + slots, content] = _MATCH * read
        second.k_proj.weight.data[start + slots, memory] = _MATCH
        copied = basis[:, start : start + size]
        second.v_proj.weight.data[rows, content][: copied.shape[1]] = copied.T
        second.o_proj.weight.data[content, rows] = 0.0
        second.o_proj.weight.data[content, start : start + copied.shape[1]] = _COPY * scale * copied
