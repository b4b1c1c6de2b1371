"""A message handed over to a site's own process: where they meet, and who cannot come there."""

import os
import socket
import stat
import threading
from multiprocessing.connection import Listener

import pytest
from deployment_toys import request_of, wait_until

from fedmedlora.errors import FederationError
from fedmedlora.federation import wire
from fedmedlora.federation.client import Desk
from fedmedlora.federation.flower import (
    ConfigRecord,
    Message,
    RecordDict,
    from_bytes,
    to_bytes,
)
from fedmedlora.study import site_process

SECRET = b"s" * 32


@pytest.fixture(params=["short", "long"])
def settings(tmp_path, request):
    """A site's settings, also where the path of a socket would be too long."""
    folder = tmp_path / ("x" * 120 if request.param == "long" else "x")
    (folder / "work" / "worker").mkdir(parents=True)
    (folder / "site.yaml").write_text("name: icu\ncoordinator: localhost:9443\n")
    return folder / "site.yaml"


def answered(pipe):
    request = from_bytes(pipe.recv_bytes())
    reply = Message(RecordDict({wire.CONFIG: ConfigRecord({"site": "icu"})}), reply_to=request)
    reply.metadata.__dict__["_message_id"] = "2"
    pipe.send_bytes(to_bytes(reply))


def process(settings):
    """Stands for a site's process: answers once."""
    place = settings.parent / "work" / "worker"
    (place / "secret").write_bytes(SECRET)
    ready = threading.Event()

    def serve():
        with (
            site_process._address(place) as address,
            Listener(address, "AF_UNIX", authkey=SECRET) as listener,
        ):
            ready.set()
            with listener.accept() as pipe:
                answered(pipe)

    threading.Thread(target=serve, daemon=True).start()
    assert ready.wait(10)


def test_a_process_is_asked_and_answers(settings):
    process(settings)
    reply = site_process.answer_of(settings, request_of(RecordDict()))
    assert reply.content[wire.CONFIG]["site"] == "icu"


def test_a_process_that_is_not_there_is_waited_for_and_then_given_up(settings, monkeypatch):
    monkeypatch.setattr(site_process, "_START_S", 0.3)
    with pytest.raises(FederationError, match="is not there"):
        site_process.answer_of(settings, request_of(RecordDict()))


@pytest.fixture
def served(settings, monkeypatch):
    """A site's real process, in a thread, that knows no site; what a killed one left is there."""
    place = settings.parent / "work" / "worker"
    (place / "socket").touch()
    (place / "secret").write_bytes(b"old")
    place.chmod(0o777)
    monkeypatch.setattr(site_process, "site_desk", lambda file: Desk(("icu",), {}))
    threading.Thread(target=site_process.serve, args=(settings,), daemon=True).start()
    wait_until((place / "socket").is_socket, seconds=10, what="socket")
    return settings


def test_the_process_is_met_where_nobody_else_can_enter(served):
    place = served.parent / "work" / "worker"
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert stat.S_IMODE((place / "secret").stat().st_mode) == 0o600
    for _ in range(2):
        reply = site_process.answer_of(served, request_of(RecordDict()))
        assert reply.content[wire.CONFIG]["site"] == "icu"


def test_who_does_not_know_the_secret_gets_nothing_and_is_in_nobodys_way(served, monkeypatch):
    secret = served.parent / "work" / "worker" / "secret"
    known = secret.read_bytes()
    monkeypatch.setattr(site_process, "_START_S", 0.5)
    secret.write_bytes(b"t" * 32)
    with pytest.raises(FederationError, match="is not there"):
        site_process.answer_of(served, request_of(RecordDict()))
    secret.write_bytes(known)
    reply = site_process.answer_of(served, request_of(RecordDict()))
    assert reply.content[wire.CONFIG]["site"] == "icu"


def exit_code_as_nobody(what):
    """How a process of another user ends that does so."""
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            what()
        except PermissionError:
            os._exit(13)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else")
def test_another_user_of_the_machine_cannot_reach_the_process(served):
    place = served.parent / "work" / "worker"
    with site_process._address(place) as address, socket.socket(socket.AF_UNIX) as line:
        # Even handed the way in.
        assert exit_code_as_nobody(lambda: line.connect(address)) == 13
        assert exit_code_as_nobody(lambda: os._exit(0)) == 0
    with site_process._address(place) as address, socket.socket(socket.AF_UNIX) as line:
        line.connect(address)
