"""The same apps on every engine: equal results; nothing calls out; imports stay light."""

import os
import subprocess
import sys

import pytest
from federation_toy import dying_site, plan, start, toy_site

from fedmedlora.errors import ConfigError, FederationError
from fedmedlora.federation.run import run_federation


def run(folder, *, engine="in-process", workers=toy_site, **changes):
    return run_federation(plan(**changes), start(), workers=workers, folder=folder, engine=engine)


def comparable(result):
    """What must agree between engines: everything but times and bytes."""
    return result.adapter.sha256, [
        {name: (s.status, s.weight, s.validation_loss, s.tokens, s.loss_last, s.counts)
         for name, s in record.sites.items()}
        for record in result.records
    ]  # fmt: skip


def test_worker_processes_give_the_bits_of_one_process(tmp_path):
    settings = {"method": "fed-medlora+", "rounds": 2}
    alone = run(tmp_path / "1", **settings)
    spread = run(tmp_path / "2", processes=2, **settings)
    assert comparable(spread) == comparable(alone)


def test_a_worker_process_that_dies_fails_its_site_only(tmp_path):
    result = run(tmp_path, processes=3, workers=dying_site, min_sites=2, rounds=1)
    south = result.records[0].sites["south"]
    assert (south.status, south.reason.split()[0]) == ("failed", "process-died")
    assert [site.status for site in result.records[0].sites.values()] == ["ok", "failed", "ok"]


@pytest.mark.parametrize("settings", [{"engine": "flower"}, {"processes": 2}])
def test_workers_for_other_processes_must_be_made_by_a_function(tmp_path, settings):
    with pytest.raises(ConfigError, match="function that makes"):
        run(tmp_path, workers={"north": None}, **settings)


@pytest.mark.slow
def test_flowers_simulation_gives_the_bits_of_the_in_process_grid(tmp_path):
    pytest.importorskip("ray", reason="Flower's simulation needs Ray")
    settings = {"method": "fed-medlora+", "rounds": 2}
    ours = run(tmp_path / "1", **settings)
    flowers = run(tmp_path / "2", engine="flower", **settings)
    assert comparable(flowers) == comparable(ours)
    for one, other in zip(ours.records, flowers.records, strict=True):
        for name, site in one.sites.items():
            # Only the ids of messages, nodes and the run differ in length.
            assert abs(site.bytes_down - other.sites[name].bytes_down) < 200
            assert abs(site.bytes_up - other.sites[name].bytes_up) < 200
    with pytest.raises(FederationError, match="0 of 3 sites trained"):
        run(tmp_path / "3", engine="flower", workers=no_site)


def no_site(name):
    raise ValueError(name)


def test_importing_the_federation_turns_off_what_calls_out():
    code = (
        "import fedmedlora.federation.run, os, sys;"
        "from fedmedlora.federation.flower import OFFLINE;"
        "assert all(os.environ[name] == value for name, value in OFFLINE.items());"
        "from flwr.supercore import telemetry; assert telemetry.FLWR_TELEMETRY_ENABLED == '0';"
        "assert not {'torch', 'transformers', 'peft', 'ray'} & set(sys.modules)"
    )
    environment = {**os.environ, "FLWR_TELEMETRY_ENABLED": "1"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def test_importing_the_package_does_not_import_flower():
    code = (
        "import fedmedlora.federation, fedmedlora.aggregation, fedmedlora.model, sys;"
        "assert 'flwr' not in sys.modules and 'numpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_run_is_quiet(tmp_path, capfd):
    run(tmp_path, rounds=1)
    assert "".join(capfd.readouterr()) == ""
