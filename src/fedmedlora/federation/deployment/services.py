"""Processes that a command starts and looks after: commands in, logs and restarts out.

They end with the command that started them, even if that is killed: what is left running by nobody
would keep ports and a site's place.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from fedmedlora.durable import open_private
from fedmedlora.errors import RunError
from fedmedlora.federation.offline import OFFLINE

_PR_SET_PDEATHSIG = 1
#: Seconds between restarts of a process that keeps ending.
_LEAST_WAIT, _MOST_WAIT = 1.0, 30.0
#: One that lived so long had not failed at once.
_SETTLED_S = 60.0
#: So long is waited for one that was asked to end, and then for what it had started.
_END_S, _FOLLOW_S = 10.0, 5.0

_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


@dataclass(frozen=True)
class Service:
    """A process to run.

    Attributes:
        name: of its log.
        command: its arguments; a program's own name is looked for beside the Python in use.
        environment: beside the usual one.
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)


def flower_environment(home: Path, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """What Flower's processes find around them: nobody to call, and a home of their own.

    Args:
        home: for the apps that Flower unpacks.
        more: further variables.
    """
    # Flower's processes start one another by name.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return {**OFFLINE, "FLWR_HOME": str(home), "PATH": path, **(more or {})}


class Services:
    """Runs services; one that ends is started again, later each time.

    Args:
        services: by whom each needs: they are started in this order and ended in the other.
        logs: folder; every service has NAME.log in it.
        together: whether all are started again when one has ended.
    """

    def __init__(self, services: Sequence[Service], *, logs: Path, together: bool = False) -> None:
        self._services = tuple(services)
        self._logs, self._together = logs, together
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._started: dict[str, float] = {}
        self._wait: dict[str, float] = {}
        self._due: dict[str, float] = {}

    def start(self) -> None:
        """Start all.

        Raises:
            RunError: a program is not there, or the logs cannot be written.
        """
        for service in self._services:
            self._start(service)

    def tend(self) -> list[str]:
        """Start again what has ended and is due; the names of those that were found ended."""
        ended = []
        for service in self._services:
            process = self._running.get(service.name)
            if process is not None and process.poll() is not None:
                ended.append(service.name)
        for name in self._falling(ended):
            self._end(name)
            settled = time.monotonic() - self._started[name] > _SETTLED_S
            before = 0.0 if settled else self._wait.get(name, 0.0)
            self._wait[name] = min(max(_LEAST_WAIT, 2 * before), _MOST_WAIT)
            self._due[name] = time.monotonic() + self._wait[name]
        for service in self._services:
            due = self._due.get(service.name)
            if due is not None and time.monotonic() >= due:
                self._start(service)
        return ended

    def _falling(self, ended: Sequence[str]) -> list[str]:
        if ended and self._together:
            return [service.name for service in reversed(self._services)]
        return list(ended)

    def stop(self) -> None:
        """End all, the last started first."""
        self._due.clear()
        for service in reversed(self._services):
            self._end(service.name)

    def log(self, name: str) -> Path:
        """Where a service says what it does, and why it ended."""
        return self._logs / f"{name}.log"

    def pid(self, name: str) -> int | None:
        """Of a running service."""
        process = self._running.get(name)
        return None if process is None or process.poll() is not None else process.pid

    def _start(self, service: Service) -> None:
        self._due.pop(service.name, None)
        try:
            with open_private(self.log(service.name)) as log:
                self._running[service.name] = subprocess.Popen(
                    service.command,
                    env={**os.environ, **service.environment},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # Ctrl-C is the command's to handle
                    umask=0o077,  # what it writes is its owner's alone
                    preexec_fn=_end_with_parent if sys.platform == "linux" else None,
                )
        except FileNotFoundError as error:
            raise RunError(f"{service.command[0]}: there is no such program here") from error
        except OSError as error:
            raise RunError(f"{service.name} cannot be started: {error.strerror}") from error
        self._started[service.name] = time.monotonic()

    def _end(self, name: str) -> None:
        process = self._running.pop(name, None)
        if process is None:
            return
        if process.poll() is None:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=_END_S)
        # What it started itself sees that it is gone, and is given the time to say so.
        deadline = time.monotonic() + _FOLLOW_S
        while _signal_group(process.pid, 0) and time.monotonic() < deadline:
            time.sleep(0.1)
        _signal_group(process.pid, signal.SIGKILL)
        process.wait()


def program(name: str) -> str:
    """The path of a program: beside the Python in use, or on the usual path.

    Raises:
        RunError: it is not there.
    """
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    found = shutil.which(name, path=path)
    if found is None:
        raise RunError(f"{name}: there is no such program here; is it installed?")
    return found


def wait_for_port(port: int, *, seconds: float, alive: Callable[[], bool]) -> None:
    """Wait until something listens on a port of this machine.

    Raises:
        RunError: nothing does in time, or what should has ended.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not alive():
            raise RunError(f"what should listen on port {port} has ended; see its log")
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1):
                return
        except OSError:
            time.sleep(0.2)
    raise RunError(f"nothing listens on port {port} after {seconds:.0f} s; see the log")


def refuse_taken_port(port: int, *, key: str) -> None:
    """Refuse to start what another process would answer for.

    Raises:
        RunError: something listens there already.
    """
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            pass
    except OSError:
        return
    raise RunError(f"{key}: something listens on port {port} already; choose another, or end it")


def _signal_group(group: int, number: int) -> bool:
    """Signal all processes of a group; whether there are any."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    except PermissionError:  # not ours any more
        return False
    return True


def _end_with_parent() -> None:
    """In the child: be asked to end when the parent does."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
