"""A site by itself: its settings, the check before it joins, whom it answers."""

import json
import os
import socket
import ssl
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import yaml
from deployment_toys import found, request_of, study_of

from fedmedlora.cli import run_command
from fedmedlora.config import load_study
from fedmedlora.errors import ConfigError
from fedmedlora.federation import wire
from fedmedlora.federation.client import client_app
from fedmedlora.federation.deployment.journal import at_work
from fedmedlora.federation.deployment.reaching import reach
from fedmedlora.federation.flower import ConfigRecord, Context, RecordDict
from fedmedlora.model.packing import pack
from fedmedlora.study.checking import check_site
from fedmedlora.study.data import load_data
from fedmedlora.study.flower_app import client
from fedmedlora.study.hosting import site_desk, site_worker
from fedmedlora.study.shared import shared_text


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    return found(tmp_path_factory.mktemp("federation"), study_of())


class Answers(BaseHTTPRequestHandler):
    """Stands for a SuperLink: refuses a request that nobody signed, or answers as it is told."""

    status, date = 401, None

    def do_POST(self):
        self.send_response_only(self.status)
        self.send_header("Date", self.date or self.date_time_string())
        self.end_headers()

    def log_message(self, *args):
        pass


@pytest.fixture
def superlink(federation):
    """Starts something over TLS where the sites look for their coordinator."""
    made, hospitals = federation
    servers = []

    def start(*, keys=made.folder / "keys", **told):
        port = int(yaml.safe_load(hospitals[0].settings.read_text())["coordinator"].split(":")[1])
        server = ThreadingHTTPServer(("127.0.0.1", port), type("Told", (Answers,), told))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(keys / "server.pem", keys / "server.key")
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def states(file):
    return {check.what: check.state for check in check_site(file)}


def changed(settings, folder, **keys):
    """A site's folder with other settings."""
    for path in settings.parent.rglob("*"):
        if path.is_file():
            place = folder / path.relative_to(settings.parent)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(path.read_bytes())
            place.chmod(0o600)
    content = {**yaml.safe_load(settings.read_text()), **keys}
    (folder / "site.yaml").write_text(yaml.safe_dump(content))
    return folder / "site.yaml"


def test_a_site_that_is_ready_passes_every_check(federation, superlink, capsys):
    _, [icu, *_] = federation
    superlink()
    found = states(icu.settings)
    assert {what for what, state in found.items() if state != "ok"} == set()
    assert {"notes", "groups", "backbone", "tokenizer", "device", "memory", "TLS", "clock"} <= set(
        found
    )
    assert run_command(["site", "check", str(icu.settings)]) == 0


def test_a_coordinator_that_has_not_started_yet_is_no_fault_of_the_site(federation, capsys):
    _, [icu, *_] = federation
    assert run_command(["site", "check", str(icu.settings)]) == 0
    assert "right before the coordinator has started" in capsys.readouterr().out
    assert states(icu.settings)["connection"] == "unsure"


def test_a_coordinator_that_cannot_be_reached_says_what_to_allow(federation, tmp_path, capsys):
    _, [icu, *_] = federation
    file = changed(icu.settings, tmp_path, coordinator="nowhere.invalid:9443")
    assert run_command(["site", "check", str(file)]) == 1
    out = capsys.readouterr().out
    assert "allow this machine to open connections to nowhere.invalid:9443" in out


@pytest.mark.parametrize("damage", ["missing", "another key", "no key", "an edited study"])
def test_a_changed_study_or_coordinator_is_told_before_anything_starts(
    federation, tmp_path, capsys, damage
):
    _, [icu, *_] = federation
    file = changed(icu.settings, tmp_path)
    key, study = tmp_path / "coordinator.pub", tmp_path / "study.yaml"
    if damage == "missing":
        key.unlink()
    elif damage == "an edited study":
        study.write_text(study.read_text().replace("steps: 2", "steps: 3"))
    else:
        key.write_text("0" * 64 if damage == "another key" else "key")
    assert states(file)["terms"] == "wrong"
    assert run_command(["site", "start", str(file)]) == 2
    assert str(study if damage == "an edited study" else key) in capsys.readouterr().err


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"status": 502}, {"connection": "unsure", "clock": "ok"}),
        ({"status": 404}, {"connection": "wrong", "clock": "ok"}),
        ({"date": "Thu, 01 Jan 2026 00:00:00 GMT"}, {"connection": "ok", "clock": "wrong"}),
    ],
)
def test_what_answers_instead_of_the_superlink_is_told_apart(federation, superlink, told, expected):
    _, [icu, *_] = federation
    superlink(**told)
    found = states(icu.settings)
    assert {what: found[what] for what in expected} == expected


def test_a_certificate_of_another_authority_is_refused(federation, superlink, tmp_path):
    _, [icu, *_] = federation
    other, _ = found(tmp_path, study_of())
    superlink(keys=other.folder / "keys")
    assert states(icu.settings)["TLS"] == "wrong"
    settings = yaml.safe_load(icu.settings.read_text())
    assert reach(settings["coordinator"], icu.settings.parent / "ca.pem").status is None


@pytest.mark.parametrize(
    ("keys", "wrong"),
    [
        ({"notes": {"train": "a.jsonl", "validation": "b.jsonl", "test": "c.jsonl"}}, "notes"),
        ({"notes": {}}, "settings"),
        ({"name": "nobody"}, "settings"),
        ({"treads": 2}, "settings"),
        ({"study": "missing.yaml"}, "settings"),
        ({"backbone": "/nowhere"}, "backbone"),
        ({"device": "7"}, "device"),
    ],
)
def test_what_a_site_lacks_is_named(federation, tmp_path, keys, wrong, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # the check sets it
    _, [icu, *_] = federation
    assert states(changed(icu.settings, tmp_path, **keys))[wrong] == "wrong"


def test_another_backbone_than_the_coordinators_is_found(federation, tmp_path):
    _, [icu, *_] = federation
    file = changed(icu.settings, tmp_path)
    told = json.loads((tmp_path / "expected.json").read_text())
    (tmp_path / "expected.json").write_text(json.dumps({**told, "backbone": "0" * 64}))
    found = {check.what: check for check in check_site(file)}
    assert found["backbone"].state == "wrong"
    assert "000000000000" in found["backbone"].found


def test_a_private_key_that_others_may_read_is_found(federation, tmp_path):
    _, [icu, *_] = federation
    file = changed(icu.settings, tmp_path)
    (tmp_path / "keys" / "signing.key").chmod(0o644)
    assert states(file)["keys/signing.key"] == "wrong"


@pytest.mark.parametrize("name", ["signing.key", "node.key"])
def test_keys_that_are_not_those_of_the_membership_are_told_before_anything_starts(
    federation, tmp_path, capsys, name
):
    _, [icu, outpatient, _] = federation
    file = changed(icu.settings, tmp_path)
    other = outpatient.settings.parent / "keys" / name
    (tmp_path / "keys" / name).write_bytes(other.read_bytes())
    assert states(file)["keys"] == "wrong"
    assert run_command(["site", "start", str(file)]) == 2
    told = capsys.readouterr().err
    assert f"{name} is not the key that icu.membership.json names" in told


def test_a_folder_of_another_site_than_the_settings_name_says_whose_it_is(
    federation, tmp_path, capsys
):
    _, [icu, *_] = federation
    file = changed(icu.settings, tmp_path, name="outpatient")
    assert states(file)["terms"] == "wrong"
    assert run_command(["site", "start", str(file)]) == 2
    told = capsys.readouterr().err
    assert "no outpatient.membership.json here, but icu.membership.json: `name`" in told


def test_a_site_whose_notes_are_not_there_does_not_start_and_may_be_started_later(
    federation, tmp_path, capsys
):
    _, [icu, *_] = federation
    notes = {"train": "a.jsonl", "validation": "b.jsonl", "test": "c.jsonl"}
    file = changed(icu.settings, tmp_path, notes=notes)
    # Not 2, after which a service is not started again: their disk may come later.
    assert run_command(["site", "start", str(file)]) == 1
    told = capsys.readouterr().err
    assert f"{tmp_path / 'a.jsonl'}: no such file" in told
    assert f"site check {file}" in told


@pytest.mark.parametrize("name", ["ca.pem", "expected.json"])
def test_a_file_that_is_not_as_it_came_in_the_kit_is_named(federation, tmp_path, name):
    _, [icu, *_] = federation
    file = changed(icu.settings, tmp_path)
    assert states(file)["files"] == "ok"
    with (tmp_path / name).open("a") as damaged:
        damaged.write("\n")
    [found] = [check for check in check_site(file) if check.what == "files"]
    assert (found.state, found.found) == ("wrong", f"changed or missing: {name}")
    (tmp_path / name).unlink()
    assert states(file)["files"] == "wrong"
    (tmp_path / "MANIFEST.json").write_text("{}")
    assert states(file)["files"] == "wrong"
    (tmp_path / "MANIFEST.json").unlink()
    [found] = [check for check in check_site(file) if check.what == "files"]
    assert found.found == f"{tmp_path / 'MANIFEST.json'}: is missing"


def test_a_port_that_is_taken_and_a_folder_that_cannot_be_written_are_told_before_the_start(
    federation, tmp_path, monkeypatch
):
    _, [icu, *_] = federation
    with socket.create_server(("127.0.0.1", 0)) as taken:
        file = changed(icu.settings, tmp_path, port=taken.getsockname()[1])
        assert states(file)["port"] == "wrong"
        with at_work(tmp_path / "work"):  # it is the site's own
            assert states(file)["work"] == "ok"
    file = changed(icu.settings, tmp_path, work="site.yaml")
    assert states(file)["work"] == "wrong"
    monkeypatch.setattr(os, "access", lambda place, mode: False)  # who tests may be root
    assert states(changed(icu.settings, tmp_path, work="new"))["work"] == "wrong"


def test_a_site_trains_as_it_would_on_one_machine_with_all(federation):
    _, [icu, *_] = federation
    worker = site_worker(icu.settings, "icu")
    assert worker.name == "icu"
    assert worker.settings.steps == 2


def test_what_counts_sites_is_the_coordinators_part(federation, tmp_path):
    _, [icu, *_] = federation
    method = {"method": "fed-medlora", "set": {"federation.min_sites": 2, "training.steps": 1}}
    text = shared_text(study_of().with_settings({"methods": [method]}, where="toy"))
    file = changed(icu.settings, tmp_path)
    (tmp_path / "study.yaml").write_text(text)
    assert site_worker(file, "icu").settings.steps == 1


def asked(desk, run, **manifest):
    """What a site answers to a request of a run; its manifest may claim another backbone."""
    initial = desk.worker("icu")._bench.initial
    call = wire.Call(run, 1, replace(initial.manifest, **manifest).to_json(), "bf16")
    content = wire.request(call, wire.adapter_arrays(pack(initial, "bf16")))
    context = Context(1, 1, {"site": "icu"}, RecordDict(), {})
    desk = replace(desk, coordinator="")  # whoever asks
    return client_app(desk)(request_of(content), context).content[wire.CONFIG]


def test_a_request_of_another_study_file_is_refused(federation):
    _, [icu, *_] = federation
    desk = site_desk(icu.settings)
    refused = asked(desk, "toy/fed-medlora@" + "0" * 64)
    assert (refused["status"], refused["code"]) == ("failed", "config")
    assert asked(desk, desk.run)["status"] == "ok"


def test_a_request_that_the_coordinator_did_not_sign_is_refused(federation):
    _, [icu, *_] = federation
    desk = site_desk(icu.settings)
    context = Context(1, 1, {"site": "icu"}, RecordDict(), {})
    content = RecordDict({wire.CONFIG: ConfigRecord({"run": desk.run, "round": 1})})
    told = client_app(desk)(request_of(content), context).content[wire.CONFIG]
    assert (told["status"], told["code"]) == ("failed", "request")


@pytest.mark.parametrize("what", ["backbone", "tokenizer", "scheme"])
def test_a_request_for_another_backbone_tokenizer_or_scheme_is_refused(federation, what):
    _, [icu, *_] = federation
    desk = site_desk(icu.settings)
    refused = asked(desk, desk.run, **{what: "0" * 64})
    assert (refused["status"], refused["code"]) == ("failed", "adapter")
    [log] = (icu.settings.parent / "work" / "incidents").glob("*.log")
    assert f"the federation's {what} is 000000000000" in log.read_text()


def test_wrong_settings_are_told_without_their_text(tmp_path, capsys):
    (tmp_path / "site.yaml").write_text("name: Mrs Zyxwvut\n")
    node = {"settings": str(tmp_path / "site.yaml")}
    reply = client(request_of(RecordDict()), Context(1, 1, node, RecordDict(), {}))
    assert not reply.has_error()
    told = dict(reply.content[wire.CONFIG])
    assert told["code"] == "config"
    assert "Zyxwvut" not in repr(told)
    assert "Zyxwvut" in capsys.readouterr().err  # at the site


def test_a_run_on_one_machine_says_that_notes_are_elsewhere(tmp_path):
    (tmp_path / "study.yaml").write_text(shared_text(study_of()))
    with pytest.raises(ConfigError, match=r"sites\.icu: its notes are not here"):
        load_data(load_study(tmp_path / "study.yaml"))
