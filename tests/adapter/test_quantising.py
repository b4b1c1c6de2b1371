"""Differences at 8 and 4 bits: how far off, how large, and what is not finite stays so."""

import numpy as np
import pytest
from adapter_toys import toy_manifest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from fedmedlora.errors import AdapterError
from fedmedlora.model.adapter import Adapter
from fedmedlora.model.packing import array_of, pack_update, unpack_update
from fedmedlora.model.quantising import BLOCK, dequantise, quantise, quantised_size

FINITE = st.floats(-(2.0**90), 2.0**90, width=32, allow_subnormal=False)


@pytest.mark.parametrize(("bits", "most"), [(8, 127), (4, 7)])
@settings(max_examples=200, deadline=None)
@given(values=npst.arrays(np.float32, st.integers(0, 200), elements=FINITE))
def test_a_value_is_off_by_half_a_step_of_its_block_at_most(bits, most, values):
    packed = quantise(values, bits)
    assert packed.dtype == np.uint8
    assert packed.size == quantised_size(values.size, bits)
    found = dequantise(packed, values.size, bits)
    for at in range(0, values.size, BLOCK):
        block = values[at : at + BLOCK].astype(np.float64)
        # The scale itself is rounded to 8 bits: the largest value may be cut by that.
        step = np.abs(block).max(initial=0) / most
        off = np.abs(found[at : at + BLOCK] - block)
        assert (off <= step * (0.51 + most / 256) + 1e-37).all()


@pytest.mark.parametrize("bits", [8, 4])
def test_codes_and_scales_come_back_exactly(bits):
    most = 2 ** (bits - 1) - 1
    values = np.arange(-most, most + 1, dtype=np.float32)[: BLOCK - 1]
    values = np.concatenate([values, [most]]).astype(np.float32) * np.float32(0.25)
    assert dequantise(quantise(values, bits), values.size, bits).tolist() == values.tolist()


def test_bytes_a_value():
    assert quantised_size(64_000, 8) / 64_000 == 1 + 2 / 64
    assert quantised_size(64_000, 4) / 64_000 == 0.5 + 2 / 64


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_stays_so(bits, bad):
    values = np.ones(3 * BLOCK, np.float32)
    values[BLOCK + 5] = bad
    found = dequantise(quantise(values, bits), values.size, bits)
    assert not np.isfinite(found[BLOCK : 2 * BLOCK]).any()
    assert np.isfinite(found[:BLOCK]).all()
    assert np.isfinite(found[2 * BLOCK :]).all()


def adapter(values, manifest=toy_manifest([(10, 20), (7,)])):  # noqa: B008
    sizes = [200, 7]
    parts = np.split(np.asarray(values, np.float32), np.cumsum(sizes)[:-1])
    tensors = {
        name: part.reshape(shape)
        for (name, shape), part in zip(manifest.tensors, parts, strict=True)
    }
    return Adapter(manifest, tensors)


@pytest.mark.parametrize("wire", ["int8", "int4"])
def test_what_is_rounded_away_is_carried_until_it_arrives(wire):
    rng = np.random.default_rng(0)
    before = adapter(np.zeros(207))
    step = rng.standard_normal(207).astype(np.float32)
    carried, arrived, without = None, np.zeros(207), np.zeros(207)
    for _ in range(50):
        packed, carried = pack_update(adapter(step), before, wire, carried)
        assert (packed.dtype, packed.size) == array_of(wire, 207)
        for kept, array in (
            (arrived, packed),
            (without, pack_update(adapter(step), before, wire)[0]),
        ):
            found = unpack_update(array, before.manifest, wire, before)
            kept += np.concatenate([tensor.reshape(-1) for tensor in found.tensors.values()])
    assert np.abs(arrived + carried - 50 * step).max() < 1e-3
    assert np.abs(arrived - 50 * step).max() < np.abs(without - 50 * step).max() / 10


def test_the_whole_adapter_needs_nothing_and_leaves_nothing():
    one = adapter(np.arange(207))
    packed, left = pack_update(one, one, "fp32")
    assert left is None
    assert unpack_update(packed, one.manifest, "fp32", None).sha256 == one.sha256


@pytest.mark.parametrize(
    "array", [np.zeros(5, np.uint8), np.zeros(215, np.uint8), np.zeros(216, np.int8)]
)
def test_bytes_of_another_number_or_type_are_not_unpacked(array):
    one = adapter(np.arange(207))
    with pytest.raises(AdapterError, match="uint8"):
        unpack_update(array, one.manifest, "int8", one)
    with pytest.raises(AdapterError, match="bytes"):
        dequantise(array, 207, 8)


def test_a_difference_to_nothing_is_refused():
    one = adapter(np.arange(207))
    packed, _ = pack_update(one, one, "int4")
    with pytest.raises(AdapterError, match="difference"):
        unpack_update(packed, one.manifest, "int4", None)
