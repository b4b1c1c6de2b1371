"""The adapter: its manifest survives JSON, and what is malformed or of another kind is refused."""

import json
import random

import numpy as np
import pytest
from adapter_toys import toy_manifest

from fedmedlora.errors import AdapterError
from fedmedlora.model.adapter import Manifest, check_adapter, check_same_lineage

A0 = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"

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
