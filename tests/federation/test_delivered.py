"""What a run delivers is the last of all its rounds: cut or exchanged, `verify` says so."""

import json
import shutil

import pytest
from tampering import run

from fedmedlora.cli import run_command
from fedmedlora.federation.delivered import verify_delivered
from fedmedlora.federation.verify import verify_federation
from fedmedlora.model.adapter_files import read_adapter, save_adapter


def delivered(folder, method="fed-medlora"):
    """A run folder with one federation of three rounds and its adapter."""
    result = run(folder / "federation" / method, method=method, rounds=3)
    save_adapter(result.adapter, folder / "adapters" / method, base_model="")
    return folder


@pytest.mark.parametrize("method", ["fed-medlora", "fedex-lora"])
def test_the_last_rounds_adapter_is_the_one_that_is_delivered_its_residual_joined(tmp_path, method):
    found = verify_delivered(delivered(tmp_path, method) / "federation" / method)
    assert found.place == str(tmp_path / "adapters" / method)
    assert found.faults == ()
    assert run_command(["verify", str(tmp_path)]) == 0


def test_another_adapter_in_its_place_is_named(tmp_path, capsys):
    place = delivered(tmp_path) / "adapters" / "fed-medlora"
    adapter = read_adapter(place)
    next(iter(adapter.tensors.values()))[0, 0] += 1
    save_adapter(adapter, place, base_model="")
    assert run_command(["verify", str(tmp_path)]) == 1
    told = capsys.readouterr().out
    assert f"it is another adapter ({adapter.sha256[:16]}) than round-0003's" in told
    assert told.endswith("\nNOT THE SAME\n")


def test_an_adapter_of_another_scale_or_a_broken_one_is_named(tmp_path):
    place = delivered(tmp_path) / "adapters" / "fed-medlora"
    file = place / "fedmedlora.json"
    content = json.loads(file.read_bytes())
    content["manifest"]["alpha"] *= 2
    file.write_text(json.dumps(content))
    folder = tmp_path / "federation" / "fed-medlora"
    assert verify_delivered(folder).faults == ("its manifest is another than the federation's",)
    (place / "adapter_model.safetensors").unlink()
    [fault] = verify_delivered(folder).faults
    assert "adapter_model.safetensors" in fault


def test_a_run_cut_to_its_first_round_is_not_the_same(tmp_path, capsys):
    folder = delivered(tmp_path) / "federation" / "fed-medlora"
    for number in (2, 3):
        shutil.rmtree(folder / f"round-000{number}")
    first = read_adapter(folder / "round-0001" / "adapter")
    save_adapter(first, tmp_path / "adapters" / "fed-medlora", base_model="")
    assert [one.same for one in verify_federation(folder)] == [True, False, False]
    assert run_command(["verify", str(tmp_path)]) == 1
    assert "round 2: it is not there, and the plan has 3 rounds" in capsys.readouterr().out


def test_a_run_that_was_resumed_with_fewer_rounds_is_whole_with_these(tmp_path):
    run(tmp_path, rounds=3)
    shutil.rmtree(tmp_path / "round-0003")
    run(tmp_path, rounds=2, resume=True)
    assert [one.same for one in verify_federation(tmp_path)] == [True, True]


def test_a_federation_by_itself_delivers_nothing(tmp_path):
    run(tmp_path / "alone", rounds=1)
    assert verify_delivered(tmp_path / "alone").place == ""
