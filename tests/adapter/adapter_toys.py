"""A tiny model with an adapter, and manifests of toy tensors."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from fedmedlora.model.adapter import Manifest
from fedmedlora.model.lora import adapter_of, manifest_of, new_adapter_model

TARGETS = ("q_proj", "v_proj", "down_proj")


def tiny_llama(seed=0):
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=32,
        tie_word_embeddings=True,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def tiny_peft(seed=1, targets=TARGETS, base_seed=0):
    return new_adapter_model(
        tiny_llama(base_seed), rank=2, alpha=8, dropout=0.0, targets=targets, seed=seed
    )


def trained(seed=1):
    """A model whose B is not zero, and its adapter."""
    model = tiny_peft(seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
    manifest = manifest_of(model, backbone="b" * 64, tokenizer="t" * 64, scheme="s" * 64)
    return model, adapter_of(model, manifest)


def logits(model):
    with torch.no_grad():
        return model(torch.arange(10)[None]).logits


def toy_manifest(shapes):
    tensors = tuple(sorted((f"m.{i:02d}.lora_A.weight", shape) for i, shape in enumerate(shapes)))
    return Manifest("b", "t", "s", 2, 8.0, 0.0, ("q",), tensors)
