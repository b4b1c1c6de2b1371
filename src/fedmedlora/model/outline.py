"""A model without its weights: a name in, transformers' own modules on torch's meta device out.

Nothing is downloaded for the backbones of the paper, nor for one that lies in a folder: the
modules have shapes and no memory, so an 8B model takes a second.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fedmedlora.model.backbone import raised_as_backbone_error, resolve_name

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedModel

_LLAMA_8B: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "tie_word_embeddings": False,
}
_LLAMA_1B: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 128256,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "tie_word_embeddings": True,
}
_QWEN3_4B: dict[str, Any] = {
    "model_type": "qwen3",
    "vocab_size": 151936,
    "hidden_size": 2560,
    "intermediate_size": 9728,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "tie_word_embeddings": True,
}
#: The shapes of the paper's backbones (arXiv 2601.22124), as in their config.json on the hub.
KNOWN: dict[str, dict[str, Any]] = {
    "meta-llama/Llama-3.1-8B": _LLAMA_8B,
    "meta-llama/Llama-3.1-8B-Instruct": _LLAMA_8B,
    "deepseek-ai/DeepSeek-R1-Distill-Llama-8B": _LLAMA_8B,
    "meta-llama/Llama-3.2-1B": _LLAMA_1B,
    "meta-llama/Llama-3.2-1B-Instruct": _LLAMA_1B,
    "Qwen/Qwen3-4B": _QWEN3_4B,
}


def outline(name: str, *, dtype: torch.dtype) -> PreTrainedModel:
    """A causal language model of the right shapes whose parameters hold nothing.

    Args:
        name: as ``backbone.load_backbone`` takes it; of a name on the hub that is not ``KNOWN`` the
            configuration alone is fetched.
        dtype: of its parameters.

    Raises:
        BackboneError: there is no such folder or model, or transformers has no such architecture.
    """
    import torch
    from transformers import AutoModelForCausalLM

    path = name if name in KNOWN else resolve_name(name)
    with raised_as_backbone_error(name, "configuration"):
        config = _config(path)
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, dtype=dtype)


def _config(path: str) -> PreTrainedConfig:
    from transformers import AutoConfig

    if path not in KNOWN:
        return AutoConfig.from_pretrained(path)
    shape = dict(KNOWN[path])
    return AutoConfig.for_model(shape.pop("model_type"), **shape)
