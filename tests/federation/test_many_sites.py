"""Many sites: a few requests and replies in memory at a time; processes share out the GPUs."""

import sys
import types

import numpy as np
import pytest
from federation_toy import MANIFEST, ToySite, plan, start, toy_site

from fedmedlora.errors import RunError
from fedmedlora.federation import processes
from fedmedlora.federation import run as run_module
from fedmedlora.federation.client import Desk
from fedmedlora.federation.grid import SequentialSwitch
from fedmedlora.federation.processes import ProcessSwitch
from fedmedlora.federation.spool import Spool

MANY = tuple(f"site{number:02}" for number in range(20))


class Same(ToySite):
    """Any name, one behaviour."""

    def declared(self):
        return ToySite("north").declared()

    def train(self, adapter, order):
        return ToySite("north").train(adapter, order)


def test_a_request_is_made_when_the_one_before_is_answered(monkeypatch, tmp_path):
    most, kept = [], []

    class Watched(SequentialSwitch):
        def send(self, node, data):
            super().send(node, data)
            most.append(len(self._waiting))
            kept.append(len(list(tmp_path.glob(".round-0001.replies.tmp/*.npy"))))

    monkeypatch.setattr(run_module, "SequentialSwitch", Watched)
    result = run_module.run_federation(
        plan(sites=MANY, rounds=1, connect_s=0.0),
        start(),
        workers={name: Same(name) for name in MANY},
        folder=tmp_path,
    )
    trained = most[-len(MANY) :]
    assert set(trained) == {1}
    # Replies are on disk as they come, and gone when the round is.
    assert kept[-len(MANY) :] == list(range(len(MANY)))
    assert list(tmp_path.glob(".*")) == []
    assert {site.weight for site in result.records[0].sites.values()} == {1 / len(MANY)}


def test_a_spooled_array_comes_back_or_is_missed(tmp_path):
    spool = Spool(tmp_path / "s")
    array = np.arange(MANIFEST.size, dtype=np.uint16)
    kept = spool.put(array)
    assert (kept.read() == array).all()
    kept.path.write_bytes(b"no array")
    with pytest.raises(RunError, match="cannot be read"):
        kept.read()
    spool.clear()
    with pytest.raises(RunError, match="cannot be read"):
        kept.read()
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("set_to", "found", "given"),
    [
        ("2,5", 0, ["2", "5", "2"]),
        ("3", 0, [None, None, None]),
        ("", 0, [None, None, None]),
        (None, 2, ["0", "1", "0"]),
        (None, 0, [None, None, None]),
    ],
)
def test_processes_get_a_gpu_each_where_there_are_several(monkeypatch, set_to, found, given):
    monkeypatch.delenv(processes.VISIBLE, raising=False)
    if set_to is not None:
        monkeypatch.setenv(processes.VISIBLE, set_to)
    torch = types.SimpleNamespace(cuda=types.SimpleNamespace(device_count=lambda: found))
    monkeypatch.setitem(sys.modules, "torch", torch)
    switch = ProcessSwitch(Desk(MANY, toy_site), processes=3)
    environments = [child._environment for child in switch._children]
    assert [one.get(processes.VISIBLE) for one in environments] == given
    assert {one["OMP_NUM_THREADS"] for one in environments} == {"1"}
