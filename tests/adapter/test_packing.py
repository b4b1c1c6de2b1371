"""The wire form: packing and unpacking are inverse, and bf16 rounds as torch does."""

import numpy as np
import pytest
import torch
from adapter_toys import toy_manifest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from fedmedlora.errors import AdapterError
from fedmedlora.model.adapter import Adapter
from fedmedlora.model.bfloat import from_bf16, to_bf16
from fedmedlora.model.packing import pack, unpack


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
