"""The adapter module: what goes in comes out, what is malformed is refused, saved folders open."""

import json
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from peft import PeftModel
from transformers import LlamaConfig, LlamaForCausalLM

from fedmedlora.errors import AdapterError, RunError
from fedmedlora.model import adapter as module
from fedmedlora.model.adapter import (
    Adapter,
    Manifest,
    adapter_of,
    check_adapter,
    check_same_lineage,
    from_bf16,
    load_adapter,
    manifest_of,
    new_adapter_model,
    pack,
    read_adapter,
    save_adapter,
    to_bf16,
    unpack,
)

TARGETS = ("q_proj", "v_proj", "down_proj")
A0 = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"


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


@pytest.fixture(scope="module")
def saved():
    return trained()


def logits(model):
    with torch.no_grad():
        return model(torch.arange(10)[None]).logits


def toy_manifest(shapes):
    tensors = tuple(sorted((f"m.{i:02d}.lora_A.weight", shape) for i, shape in enumerate(shapes)))
    return Manifest("b", "t", "s", 2, 8.0, 0.0, ("q",), tensors)


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


def test_adapter_of_other_shapes_is_not_loaded(saved):
    other = new_adapter_model(tiny_llama(), rank=4, alpha=8, dropout=0.0, targets=TARGETS, seed=1)
    with pytest.raises(AdapterError, match="rank 2"):
        load_adapter(other, saved[1])


# Refusals


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda t: t.pop(A0), "1 missing"),
        (lambda t: t.clear(), "12 missing.*and 9 more"),
        (lambda t: t.update({A0.replace("layers.0", "layers.9"): t[A0]}), "1 extra"),
        (lambda t: t.update({A0.replace("A.w", "A.default.w"): t.pop(A0)}), "1 renamed"),
        (lambda t: t.update({A0.removeprefix("base_model.model."): t.pop(A0)}), "1 renamed"),
        (lambda t: t.update({"base_model.model.model.embed_tokens.weight": t[A0]}), "base model"),
        (lambda t: t.update({A0: t[A0].T}), "1 misshapen"),
        (lambda t: t.update({A0: t[A0].astype(np.int8)}), "not float32.*int8"),
        (lambda t: t.update({A0: t[A0].astype(np.float64)}), "not float32.*float64"),
        (lambda t: t.update({A0: t[A0].tolist()}), "not float32.*list"),
        (lambda t: t.update({A0: np.where(t[A0] > 0, np.float32(np.nan), t[A0])}), "not finite"),
        (lambda t: t.update({A0: t[A0] * np.float32(np.inf)}), "not finite"),
    ],
)
def test_malformed_adapter_is_refused_saying_why(saved, change, told):
    tensors = dict(saved[1].tensors)
    change(tensors)
    with pytest.raises(AdapterError, match=told):
        check_adapter(tensors, saved[1].manifest)


def test_two_hundred_random_malformed_variants_are_all_refused(saved):
    manifest = saved[1].manifest
    rng = random.Random(3)
    names = list(saved[1].tensors)
    changes = {
        "drop": lambda t, n: t.pop(n),
        "rename": lambda t, n: t.update({n[: rng.randrange(len(n))] + "x": t.pop(n)}),
        "suffix": lambda t, n: t.update({n + ".weight": t[n]}),
        "flatten": lambda t, n: t.update({n: t[n].reshape(-1)}),
        "pad": lambda t, n: t.update({n: np.pad(t[n], 1)}),
        "halve": lambda t, n: t.update({n: t[n].astype(np.float16)}),
        "empty": lambda t, n: t.update({n: t[n][:0]}),
        "nan": lambda t, n: t.update({n: poisoned(t[n], rng, np.nan)}),
        "inf": lambda t, n: t.update({n: poisoned(t[n], rng, rng.choice([np.inf, -np.inf]))}),
        "base": lambda t, n: t.update({n.replace("lora_A", "base").replace("lora_B", "b"): t[n]}),
    }
    for i in range(200):
        tensors = dict(saved[1].tensors)
        list(changes.values())[i % len(changes)](tensors, rng.choice(names))
        with pytest.raises(AdapterError):
            check_adapter(tensors, manifest)


def poisoned(tensor, rng, value):
    bad = tensor.copy()
    bad.reshape(-1)[rng.randrange(bad.size)] = value
    return bad


def test_lineage_says_which_part_differs():
    one = toy_manifest([(2, 3)])
    check_same_lineage(one, one)
    for name, value in {"backbone": "x", "tokenizer": "x", "scheme": "x", "rank": 3,
                        "targets": ("k",)}.items():  # fmt: skip
        other = Manifest(**{**one.__dict__, name: value})
        with pytest.raises(AdapterError, match=name):
            check_same_lineage(other, one)


# The manifest


def test_manifest_survives_json():
    manifest = toy_manifest([(2, 3), (4,)])
    assert Manifest.from_json(manifest.to_json()) == manifest


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.pop("rank"),
        lambda m: m.update(more=1),
        lambda m: m.update(rank="2"),
        lambda m: m.update(rank=True),
        lambda m: m.update(rank=0),
        lambda m: m.update(format=2),
        lambda m: m.update(alpha=-1),
        lambda m: m.update(dropout=1),
        lambda m: m.update(tensors=[]),
        lambda m: m.update(tensors=[["a", [2, 0]]]),
        lambda m: m.update(tensors=[["a", [2.5]]]),
        lambda m: m.update(tensors=[["b", [1]], ["a", [1]]]),
        lambda m: m.update(tensors=[5]),
    ],
)
def test_broken_manifest_is_refused(change):
    content = json.loads(toy_manifest([(2, 3)]).to_json())
    change(content)
    with pytest.raises(AdapterError):
        Manifest.from_json(json.dumps(content))


@pytest.mark.parametrize("text", ["", "{", "[]", "3"])
def test_text_that_is_no_manifest_is_refused(text):
    with pytest.raises(AdapterError):
        Manifest.from_json(text)


# The wire


def test_packed_order_is_the_manifests_order():
    manifest = toy_manifest([(1, 2), (2,)])
    adapter = Adapter(manifest, {
        "m.01.lora_A.weight": np.array([3, 4], np.float32),
        "m.00.lora_A.weight": np.array([[1, 2]], np.float32),
    })  # fmt: skip
    assert pack(adapter, "fp32").tolist() == [1, 2, 3, 4]


SHAPES = st.lists(npst.array_shapes(max_dims=3, max_side=4), min_size=1, max_size=5)


@given(SHAPES, st.randoms(use_true_random=False))
def test_packing_and_unpacking_are_inverse(shapes, rng):
    manifest = toy_manifest(shapes)
    tensors = {
        name: np.array([rng.uniform(-1e3, 1e3) for _ in range(int(np.prod(shape)))], np.float32)
        .reshape(shape)
        for name, shape in manifest.tensors
    }  # fmt: skip
    adapter = Adapter(manifest, tensors)
    exact = unpack(pack(adapter, "fp32"), manifest, "fp32")
    assert exact.sha256 == adapter.sha256
    rounded = unpack(pack(adapter, "bf16"), manifest, "bf16")
    for name, tensor in tensors.items():
        assert np.array_equal(
            rounded.tensors[name], torch.from_numpy(tensor).bfloat16().float().numpy()
        )
    assert unpack(pack(rounded, "bf16"), manifest, "bf16").sha256 == rounded.sha256


@settings(max_examples=300)
@given(npst.arrays(np.uint32, 16))
def test_bf16_rounding_is_torchs_for_any_bits(bits):
    values = bits.view(np.float32)
    ours = from_bf16(to_bf16(values))
    theirs = torch.from_numpy(values).bfloat16().float().numpy()
    assert np.array_equal(ours, theirs, equal_nan=True)
    assert np.array_equal(np.isnan(ours), np.isnan(values))


def test_bf16_ties_go_to_even_and_too_large_is_infinite():
    values = np.array([1 + 2**-8, 1 + 3 * 2**-8, 3.4e38, -0.0], np.float32)
    assert from_bf16(to_bf16(values)).tolist() == [1.0, 1 + 4 * 2**-8, np.inf, -0.0]


@pytest.mark.parametrize(
    "array",
    [
        np.zeros(5, np.uint16),
        np.zeros(7, np.uint16),
        np.zeros((2, 3), np.uint16),
        np.zeros(6, np.float32),
        np.zeros(6, np.int16),
        np.zeros(0, np.uint16),
    ],
)
def test_array_of_another_size_or_type_is_not_unpacked(array):
    with pytest.raises(AdapterError, match="uint16"):
        unpack(array, toy_manifest([(2, 3)]), "bf16")


# On disk


def test_saved_folder_opens_with_peft_and_merges_to_a_plain_model(saved, tmp_path):
    model, adapter = saved
    save_adapter(adapter, tmp_path / "a", base_model="tiny")
    opened = PeftModel.from_pretrained(tiny_llama(), tmp_path / "a").eval()
    assert torch.equal(logits(opened), logits(model))
    merged = opened.merge_and_unload()
    assert type(merged) is LlamaForCausalLM
    assert torch.allclose(logits(merged), logits(model), atol=1e-5)
    merged.save_pretrained(tmp_path / "merged")
    again = LlamaForCausalLM.from_pretrained(tmp_path / "merged").eval()
    assert torch.allclose(logits(again), logits(model), atol=1e-5)


def test_saved_folder_reads_back_bit_for_bit(saved, tmp_path):
    save_adapter(saved[1], tmp_path / "a", base_model="tiny")
    again = read_adapter(tmp_path / "a")
    assert again.manifest == saved[1].manifest
    assert again.sha256 == saved[1].sha256
    assert list(again.tensors) == [name for name, _ in again.manifest.tensors]


def test_flipped_bit_truncation_and_missing_files_are_refused(saved, tmp_path):
    folder = tmp_path / "a"
    save_adapter(saved[1], folder, base_model="tiny")
    file = folder / module.TENSORS_FILE
    good = file.read_bytes()
    file.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(AdapterError, match="hash"):
        read_adapter(folder)
    file.write_bytes(good[:-8])
    with pytest.raises(AdapterError, match="broken"):
        read_adapter(folder)
    file.unlink()
    with pytest.raises(AdapterError, match="adapter_model"):
        read_adapter(folder)
    (folder / module.MANIFEST_FILE).write_text("{}")
    with pytest.raises(AdapterError, match="broken"):
        read_adapter(folder)


def test_full_disk_leaves_the_adapter_that_was_there(saved, tmp_path, monkeypatch):
    folder = tmp_path / "a"
    save_adapter(saved[1], folder, base_model="tiny")
    write = module.write_bytes

    def full(path, data):
        if path.name == module.TENSORS_FILE:
            write(path, data[:100])
            raise OSError(28, "No space left on device")
        write(path, data)

    monkeypatch.setattr(module, "write_bytes", full)
    with pytest.raises(RunError, match="No space left"):
        save_adapter(trained(seed=5)[1], folder, base_model="tiny")
    assert read_adapter(folder).sha256 == saved[1].sha256
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_saving_over_an_adapter_replaces_it(saved, tmp_path):
    save_adapter(saved[1], tmp_path / "a", base_model="tiny")
    other = trained(seed=5)[1]
    save_adapter(other, tmp_path / "a", base_model="tiny")
    assert read_adapter(tmp_path / "a").sha256 == other.sha256
