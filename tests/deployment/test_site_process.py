"""A message handed over to a site's own process: killed at work, not there, met by nobody else."""

import os
import socket
import stat
import threading
from multiprocessing.connection import Listener
from types import SimpleNamespace

import pytest
from deployment_toys import request_of, wait_until

from fedmedlora.errors import FederationError
from fedmedlora.federation import wire
from fedmedlora.federation.client import Desk
from fedmedlora.federation.flower import (
    ConfigRecord,
    Context,
    Message,
    RecordDict,
    from_bytes,
    to_bytes,
)
from fedmedlora.study import site_process
from fedmedlora.study.flower_app import client

SECRET = b"s" * 32


@pytest.fixture(params=["short", "long"])
def settings(tmp_path, request):
    """A site's settings, also where the path of a socket would be too long."""
    folder = tmp_path / ("x" * 120 if request.param == "long" else "x")
    (folder / "work" / "worker").mkdir(parents=True)
    (folder / "site.yaml").write_text("name: icu\ncoordinator: localhost:9443\n")
    return folder / "site.yaml"


def answer(request):
    content = RecordDict({wire.CONFIG: ConfigRecord({"site": "icu"})})
    reply = Message(content, reply_to=from_bytes(request))
    reply.metadata.__dict__["_message_id"] = "2"
    return reply


def process(settings, *, deaths):
    """Stands for a site's process: is killed so many times while it works, then answers once."""
    place = settings.parent / "work" / "worker"
    (place / "secret").write_bytes(SECRET)
    ready, asked = threading.Event(), []

    def serve():
        with (
            site_process._address(place) as address,
            Listener(address, "AF_UNIX", authkey=SECRET) as listener,
        ):
            ready.set()
            for number in range(deaths + 1):
                with listener.accept() as pipe:
                    asked.append(pipe.recv_bytes())
                    if number == deaths:
                        pipe.send_bytes(to_bytes(answer(asked[-1])))

    threading.Thread(target=serve, daemon=True).start()
    assert ready.wait(10)
    return asked


@pytest.mark.parametrize("deaths", [0, 1])
def test_a_process_that_dies_at_work_is_asked_the_same_once_more(settings, deaths):
    asked = process(settings, deaths=deaths)
    reply = site_process.answer_of(settings, request_of(RecordDict()))
    assert reply.content[wire.CONFIG]["site"] == "icu"
    assert asked == [asked[0]] * (deaths + 1)


def test_one_that_dies_again_is_told_as_such(settings):
    asked = process(settings, deaths=3)
    node = {"settings": str(settings), "site": "icu"}
    reply = client(request_of(RecordDict()), Context(1, 1, node, RecordDict(), {}))
    told = dict(reply.content[wire.CONFIG])
    assert (told["status"], told["code"]) == ("failed", "process-died")
    assert len(asked) == 2


def test_who_waits_behind_another_message_is_not_lost_with_it(settings, monkeypatch):
    place = settings.parent / "work" / "worker"
    (place / "secret").write_bytes(SECRET)
    ready, clock, slept = threading.Event(), SimpleNamespace(now=0.0), []

    def busy():
        """Never comes to the message, and is killed when the time for a start is long over."""
        with site_process._address(place) as address, socket.socket(socket.AF_UNIX) as line:
            line.bind(address)
            line.listen()
            ready.set()
            with line.accept()[0]:
                clock.now += 2 * site_process._START_S
                (place / "socket").unlink()

    def sleep(seconds):
        slept.append(seconds)
        if len(slept) == 2:  # it was looked for in vain once: now another is there
            process(settings, deaths=0)

    stand_in = SimpleNamespace(monotonic=lambda: clock.now, sleep=sleep)
    monkeypatch.setattr(site_process, "time", stand_in)
    threading.Thread(target=busy, daemon=True).start()
    assert ready.wait(10)
    reply = site_process.answer_of(settings, request_of(RecordDict()))
    assert reply.content[wire.CONFIG]["site"] == "icu"
    assert len(slept) == 2


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
