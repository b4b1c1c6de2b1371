"""A study over real processes and TLS ends with the adapter that one machine makes of it."""

import shutil

import httpx
import pytest
from deployment_toys import command, found, running, said, study_of, wait_until
from flwr.proto.fleet_pb2 import ActivateNodeRequest
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from flwr.supercore.primitives.asymmetric import generate_key_pairs, public_key_to_bytes
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from fedmedlora.cli import run_command
from fedmedlora.config_deployment import load_coordinator
from fedmedlora.federation.deployment.journal import read_journal
from fedmedlora.federation.deployment.layout import CoordinatorFolder
from fedmedlora.model.adapter_files import read_adapter
from fedmedlora.study.admitting import admitted_sites
from fedmedlora.study.arms import study_arms
from fedmedlora.study.data import load_data
from fedmedlora.study.methods import MethodRunner

HAS_NGINX = shutil.which("nginx") is not None


def on_one_machine(study, folder):
    """The adapter of the study's federation, by the in-process engine."""
    runner = MethodRunner(study, load_data(study), folder, lambda kind, facts: None)
    [arm] = study_arms(study)
    return runner.train(arm)


def activated(address, authority, private, public):
    """The node that a SuperNode with this key would be; None if it is refused."""
    node = NodeAuthHttpInterceptor(private, public)
    version = RuntimeVersionHttpInterceptor(component_name="SuperNode")
    request = ActivateNodeRequest(public_key=public_key_to_bytes(public), heartbeat_interval=30)
    certificate = authority.read_bytes()
    try:
        with FleetHttpClient.from_server_address(
            address, False, certificate, interceptors=[version, node]
        ) as client:
            return client.ActivateNode(request).node_id
    except httpx.HTTPStatusError:
        return None


@pytest.mark.slow
@pytest.mark.parametrize(
    "proxy",
    [
        "none",
        pytest.param(
            "nginx",
            marks=pytest.mark.skipif(not HAS_NGINX, reason="nginx is not installed here"),
        ),
    ],
)
def test_a_study_over_machines_ends_with_the_adapter_of_one_machine(tmp_path, proxy, capsys):
    rounds = 1 if proxy == "none" else 2
    study = study_of(federation_rounds=rounds, federation_keep_replies=True)
    made, hospitals = found(tmp_path, study, proxy=proxy)
    log = tmp_path / "coordinator.command.log"
    coordinator = command("federation", "start", made.folder, log=log)
    try:
        registered = [made.folder / "state" / "registered" / one.name for one in hospitals]
        wait_until(lambda: all(p.exists() for p in registered), seconds=120, what="registration")
        settings = load_coordinator(made.folder / "federation.yaml")
        address, authority = f"localhost:{settings.public_port}", made.folder / "keys" / "ca.pem"
        assert activated(address, authority, *generate_key_pairs()) is None
        with running(hospitals, logs=tmp_path):
            code = coordinator.wait(timeout=300)
    finally:
        coordinator.terminate()
        coordinator.wait()
    assert code == 0, said(tmp_path)
    expected = on_one_machine(study, tmp_path / "alone")
    adapter = read_adapter(made.folder / "run" / "adapters" / "fed-medlora")
    assert adapter.sha256 == expected.adapter.sha256
    run = made.folder / "run"
    # Every reply was signed by its site, and both ends' logs say the same of it.
    assert run_command(["verify", str(run)]) == 0
    members = admitted_sites(CoordinatorFolder(made.folder), [one.name for one in hospitals])
    both_ends = run / "federation" / "fed-medlora" / "audit.jsonl"
    for one in hospitals:
        log = one.settings.parent / "work" / f"{one.name}.audit.jsonl"
        place = one.settings.parent
        (place / "own.pub").write_text(members[one.name].signing)
        checks = ["--check", "--key", str(place / "own.pub"), "--against", str(both_ends)]
        checks += ["--coordinator", str(place / "coordinator.pub")]
        assert run_command(["site", "audit", str(log), *checks]) == 0
    assert "3 of 3" in capsys.readouterr().out  # signed
    journal = read_journal(run)
    assert (journal["state"], journal["complete"]) == ("done", rounds)
    assert run_command(["federation", "status", str(made.folder)]) == 0
    assert f"{rounds} of {rounds} rounds done" in capsys.readouterr().out
