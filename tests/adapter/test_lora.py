"""LoRA in a model: a new adapter is the seed's, and what goes into a model comes out again."""

import warnings

import pytest
import torch
from adapter_toys import TARGETS, logits, tiny_llama, tiny_peft, trained

from fedmedlora.errors import AdapterError
from fedmedlora.model.lora import adapter_of, load_adapter, manifest_of, new_adapter_model

# A new adapter


def test_new_adapter_has_random_a_from_the_seed_and_zero_b():
    one, same, other = (adapter_of_new(seed) for seed in (1, 1, 2))
    assert one.sha256 == same.sha256 != other.sha256
    for name, tensor in one.tensors.items():
        assert bool(tensor.any()) == ("lora_A" in name)


def adapter_of_new(seed):
    model = tiny_peft(seed)
    return adapter_of(model, manifest_of(model, backbone="b", tokenizer="t", scheme="s"))


def test_new_adapter_leaves_the_global_random_state_alone():
    base = tiny_llama()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    new_adapter_model(base, rank=2, alpha=8, dropout=0.0, targets=TARGETS, seed=9)
    assert torch.equal(torch.rand(3), expected)


def test_new_adapter_warns_of_nothing(recwarn):
    warnings.simplefilter("always", FutureWarning)
    tiny_peft()
    assert [str(one.message) for one in recwarn] == []


def test_all_linear_adapts_the_seven_projections_and_no_embedding():
    model = tiny_peft(targets=("all-linear",))
    manifest = manifest_of(model, backbone="b", tokenizer="t", scheme="s")
    assert len(manifest.tensors) == 2 * 7 * 2
    assert not any("embed" in name or "lm_head" in name for name, _ in manifest.tensors)


def test_unknown_target_is_refused_by_name():
    with pytest.raises(AdapterError, match="no_such_proj"):
        tiny_peft(targets=("no_such_proj",))


def test_resized_vocabulary_ships_no_embeddings():
    base = tiny_llama()
    base.resize_token_embeddings(40)
    model = new_adapter_model(base, rank=2, alpha=8, dropout=0.0, targets=TARGETS, seed=1)
    manifest = manifest_of(model, backbone="b", tokenizer="t", scheme="s")
    assert all(".lora_" in name for name in adapter_of(model, manifest).tensors)


# In and out of a model


def test_adapter_loaded_into_a_fresh_model_gives_the_same_logits(saved):
    model, adapter = saved
    fresh = tiny_peft(seed=77)
    assert not torch.equal(logits(fresh), logits(model))
    load_adapter(fresh, adapter)
    assert torch.equal(logits(fresh), logits(model))


def test_adapter_does_not_share_memory_with_the_model():
    model, adapter = trained()
    before = adapter.sha256
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.zero_()
    assert adapter.sha256 == before


def test_adapter_of_other_layers_is_not_loaded(saved):
    other = tiny_peft(targets=("q_proj",))
    with pytest.raises(AdapterError, match="rank 2 and targets"):
        load_adapter(other, saved[1])
