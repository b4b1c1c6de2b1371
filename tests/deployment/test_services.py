"""Processes that a command looks after: started again, ended with all that they started."""

import os
import signal
import subprocess
import sys
import time

import pytest
from deployment_toys import free_ports, wait_until

from fedmedlora.errors import RunError
from fedmedlora.federation.deployment.services import (
    Service,
    Services,
    program,
    refuse_taken_port,
    wait_for_port,
)

#: Adds a line with its number to a file, starts a child that does the same, and sleeps.
CHILD = "import os, sys, time; open(sys.argv[1], 'a').write(f'{os.getpid()}\\n'); time.sleep(600)"
PARENT = (
    "import subprocess, sys; subprocess.Popen([sys.executable, '-c', sys.argv[2], sys.argv[1]]);"
    "exec(sys.argv[2])"
)


def sleeper(folder, name, *, with_child=False):
    program, *rest = ([PARENT, folder / name, CHILD]) if with_child else [CHILD, folder / name]
    return Service(name, (sys.executable, "-c", program, *map(str, rest)))


def pids(folder, name):
    path = folder / name
    return [int(line) for line in path.read_text().splitlines()] if path.exists() else []


def lives(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_process_that_ends_is_started_again_and_the_others_are_left(tmp_path):
    services = Services([sleeper(tmp_path, "a"), sleeper(tmp_path, "b")], logs=tmp_path / "logs")
    services.start()
    try:
        wait_until(lambda: pids(tmp_path, "a") and pids(tmp_path, "b"), seconds=20, what="start")
        os.kill(pids(tmp_path, "a")[0], signal.SIGKILL)
        told = []
        wait_until(lambda: told.extend(services.tend()) or told, seconds=20, what="end")
        assert told == ["a"]
        wait_until(
            lambda: services.tend() or len(pids(tmp_path, "a")) == 2, seconds=20, what="restart"
        )
        assert len(pids(tmp_path, "b")) == 1
    finally:
        services.stop()


def test_processes_that_need_each_other_are_all_started_again(tmp_path):
    services = Services(
        [sleeper(tmp_path, "a"), sleeper(tmp_path, "b")], logs=tmp_path / "logs", together=True
    )
    services.start()
    try:
        wait_until(lambda: pids(tmp_path, "a") and pids(tmp_path, "b"), seconds=20, what="start")
        os.kill(pids(tmp_path, "b")[0], signal.SIGKILL)
        wait_until(
            lambda: services.tend() or len(pids(tmp_path, "a")) == 2, seconds=30, what="restart"
        )
        assert not lives(pids(tmp_path, "a")[0])
    finally:
        services.stop()


def test_what_a_process_started_ends_with_it(tmp_path):
    services = Services([sleeper(tmp_path, "a", with_child=True)], logs=tmp_path / "logs")
    services.start()
    wait_until(lambda: len(pids(tmp_path, "a")) == 2, seconds=20, what="child")
    services.stop()
    wait_until(lambda: not any(map(lives, pids(tmp_path, "a"))), seconds=10, what="end")


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's part is Linux's")
def test_processes_end_with_a_command_that_is_killed(tmp_path):
    code = (
        "import sys, time; from pathlib import Path;"
        "from fedmedlora.federation.deployment.services import Service, Services;"
        "folder = Path(sys.argv[1]);"
        "command = (sys.executable, '-c', sys.argv[2], str(folder / 'a'));"
        "Services([Service('a', command)], logs=folder / 'logs').start(); time.sleep(600)"
    )
    command = subprocess.Popen([sys.executable, "-c", code, str(tmp_path), CHILD])
    wait_until(lambda: pids(tmp_path, "a"), seconds=20, what="start")
    command.kill()
    command.wait()
    wait_until(lambda: not lives(pids(tmp_path, "a")[0]), seconds=10, what="end")


def test_a_program_that_is_not_there_is_named():
    with pytest.raises(RunError, match="no-such-program-anywhere"):
        program("no-such-program-anywhere")


def test_waiting_for_a_port_ends_when_who_should_listen_has_ended():
    [port] = free_ports(1)
    begun = time.monotonic()
    with pytest.raises(RunError, match="has ended"):
        wait_for_port(port, seconds=60, alive=lambda: False)
    assert time.monotonic() - begun < 30


def test_a_port_that_somebody_listens_on_is_refused():
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(RunError, match=f"port: something listens on port {port}"):
            refuse_taken_port(port, key="port")
    refuse_taken_port(port, key="port")
