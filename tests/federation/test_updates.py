"""Replies on disk, a few values of all sites at a time: the values that were sent, at any wire."""

from itertools import pairwise

import numpy as np
import pytest
from federation_toy import MANIFEST

from fedmedlora.errors import RunError
from fedmedlora.federation.spool import Spool
from fedmedlora.federation.updates import AdapterColumns, Packed, UpdateColumns
from fedmedlora.model.adapter import Adapter, Manifest
from fedmedlora.model.packing import form_of, pack, pack_update, unpack, unpack_update

A, B = "base_model.model.q.lora_A.weight", "base_model.model.q.lora_B.weight"
SHAPES = ((A, (3, 77)), (B, (50, 3)))  # 381 values: not a whole number of blocks of 64
MADE = Manifest("b" * 64, "t" * 64, "s" * 64, 3, 8.0, 0.0, ("q",), SHAPES)


def random_adapter(seed, spread=1.0):
    rng = np.random.default_rng(seed)
    values = {n: spread * rng.standard_normal(s).astype(np.float32) for n, s in SHAPES}
    return Adapter(MADE, {n: np.float32(v) for n, v in values.items()})


def flat(adapter):
    return np.concatenate([adapter.tensors[name].ravel() for name, _ in SHAPES])


@pytest.fixture(params=["bf16", "fp32", "int8", "int4"])
def round_of(request, tmp_path):
    """(Packed, adapters as the server reads them, what was sent)."""
    wire, spool = request.param, Spool(tmp_path / "s")
    sent = pack(random_adapter(0), form_of(wire))
    before = unpack(sent, MADE, form_of(wire))
    replies, read = [], []
    for seed in (1, 2, 3):
        step = random_adapter(seed, 0.1)
        after = Adapter(MADE, {n: before.tensors[n] + step.tensors[n] for n, _ in SHAPES})
        packed, _ = pack_update(after, before, wire)
        replies.append(spool.put(packed))
        read.append(flat(unpack_update(packed, MADE, wire, before)))
    return Packed(replies, spool.put(sent), MADE.size, wire), np.array(read), flat(before), spool


def in_parts(columns):
    cuts = [0, 64, 320, columns.size]
    return np.concatenate([columns.read(a, b) for a, b in pairwise(cuts)], axis=1)


def test_columns_are_the_adapters_as_they_are_unpacked(round_of):
    packed, read, _, _ = round_of
    columns = AdapterColumns(packed)
    assert (columns.rows, columns.size) == (3, MADE.size)
    assert np.array_equal(in_parts(columns), read)


def test_updates_are_the_adapters_less_what_was_sent(round_of):
    packed, read, before, spool = round_of
    assert np.allclose(in_parts(UpdateColumns(packed)), read - before, atol=1e-6)
    step = spool.put(np.arange(MADE.size, dtype=np.float32))
    more = UpdateColumns(packed, step)
    assert more.rows == 4
    assert in_parts(more)[3].tolist() == list(range(MADE.size))
    assert np.array_equal(in_parts(more)[:3], in_parts(UpdateColumns(packed)))


def test_what_came_back_as_it_was_sent_is_an_update_of_nothing(tmp_path):
    spool = Spool(tmp_path / "s")
    for wire in ("bf16", "fp32", "int8", "int4"):
        sent = pack(random_adapter(0), form_of(wire))
        before = unpack(sent, MADE, form_of(wire))
        packed, _ = pack_update(before, before, wire)
        columns = UpdateColumns(Packed([spool.put(packed)], spool.put(sent), MADE.size, wire))
        assert not columns.read(0, MADE.size).any()


def test_a_part_of_a_file_that_is_cut_short_or_gone_is_missed(tmp_path):
    spool = Spool(tmp_path / "s")
    kept = spool.put(np.arange(MANIFEST.size, dtype=np.uint16))
    assert kept.part((2, 4), (10, 11), kind=kept.read().dtype).tolist() == [2, 3, 10]
    kept.path.write_bytes(kept.path.read_bytes()[:-4])
    with pytest.raises(RunError, match="cut short"):
        kept.part((10, MANIFEST.size), kind=np.dtype(np.uint16))
    kept.path.unlink()
    with pytest.raises(RunError, match="cannot be read"):
        kept.part((0, 1), kind=np.dtype(np.uint16))
