"""Worker processes for the sites: requests to several of them at once, a site always to the same.

Spawned, not forked (torch's threads do not survive a fork), one thread each (two that share cores
spin); of several GPUs each gets one. A process that dies makes its site fail in that round; the
next request gets a new one.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from fedmedlora.errors import ConfigError, FedMedLoRAError
from fedmedlora.federation.client import PHASES, Desk, client_app
from fedmedlora.federation.flower import Message, RecordDict, from_bytes, to_bytes
from fedmedlora.federation.grid import answer
from fedmedlora.federation.statements import request_sha256
from fedmedlora.federation.wire import failure_reply, read_call
from fedmedlora.orphans import end_with_parent

ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

VISIBLE = "CUDA_VISIBLE_DEVICES"


def visible_devices() -> list[str]:
    """The GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` names them."""
    if VISIBLE in os.environ:
        return [name for name in os.environ[VISIBLE].split(",") if name.strip()]
    # Who has not loaded torch has no model, and here none to give to its sites.
    torch = sys.modules.get("torch")
    return [] if torch is None else [str(place) for place in range(torch.cuda.device_count())]


class _Child:
    """One worker process and the requests that wait for it."""

    def __init__(self, desk: Desk, *, device: str | None) -> None:
        self._desk = desk
        self._environment = ONE_THREAD if device is None else {**ONE_THREAD, VISIBLE: device}
        self.waiting: list[tuple[int, bytes]] = []
        self.at_work: tuple[int, bytes] | None = None
        self.process: BaseProcess | None = None
        self.pipe: Connection | None = None

    def start_next(self) -> None:
        """Give it its next request, if it is idle and there is one."""
        if self.at_work is not None or not self.waiting:
            return
        if self.process is None:
            self._start()
        self.at_work = self.waiting.pop(0)
        node, data = self.at_work
        if self.pipe is None:
            raise RuntimeError("a worker process without a pipe")
        try:
            self.pipe.send(node)
            self.pipe.send_bytes(data)
        except OSError:
            pass  # it died: reading from the pipe will say so

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        before = {name: os.environ.get(name) for name in self._environment}
        # Read when numpy and torch are imported in the child.
        os.environ.update(self._environment)
        try:
            self.process = context.Process(target=_serve, args=(theirs, self._desk), daemon=True)
            self.process.start()
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
        theirs.close()

    def end(self) -> None:
        """Stop the process, whatever it does."""
        if self.process is not None:
            self.process.terminate()
            self.process.join(timeout=5)
            if self.process.is_alive():
                self.process.kill()
        if self.pipe is not None:
            self.pipe.close()
        self.process = self.pipe = None


class ProcessSwitch:
    """Carries messages to a few worker processes; see ``grid.Switch``.

    Raises:
        ConfigError: the desk holds workers and not what makes them.
    """

    def __init__(self, desk: Desk, *, processes: int) -> None:
        if not callable(desk.workers):
            raise ConfigError("worker processes need a function that makes a site's worker by name")
        self._desk = desk
        devices = visible_devices()
        several = len(devices) > 1  # one is shared by all
        self._children = [
            _Child(desk, device=devices[place % len(devices)] if several else None)
            for place in range(processes)
        ]
        self.at_once = 2 * processes

    def send(self, node: int, data: bytes) -> None:
        """Hand the request to the site's process, after those it already has."""
        child = self._children[(node - 1) % len(self._children)]
        child.waiting.append((node, data))
        child.start_next()

    def receive(self) -> bytes:
        """The first reply of any process; a failure reply for one that died."""
        busy = {child.pipe: child for child in self._children if child.at_work and child.pipe}
        pipe = wait(list(busy))[0]
        child = busy[pipe]  # type: ignore[index]
        at_work, child.at_work = child.at_work, None
        if at_work is None or child.pipe is None:
            raise RuntimeError("a reply without a request")
        try:
            reply = child.pipe.recv_bytes()
        except (EOFError, OSError):
            child.end()
            reply = self._died(*at_work)
        child.start_next()
        return reply

    def close(self) -> None:
        """End all processes."""
        for child in self._children:
            child.end()

    def _died(self, node: int, data: bytes) -> bytes:
        request, site = from_bytes(data), self._desk.sites[node - 1]
        content: RecordDict = failure_reply(
            read_call(request.content),
            site,
            code="process-died",
            incident="not-logged",
        )
        end, phase = self._desk.end(site), PHASES[request.metadata.message_type]
        with suppress(FedMedLoRAError):  # then it is not believed
            end.seal(content, phase=phase, request=request_sha256(request.content))
        reply = Message(content, reply_to=request)
        reply.metadata.__dict__["_message_id"] = "died"
        return to_bytes(reply)


def _serve(pipe: Connection, desk: Desk) -> None:
    """What a worker process does until its pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the parent, which ends this
    end_with_parent()
    app = client_app(desk)
    while True:
        try:
            node = pipe.recv()
            data = pipe.recv_bytes()
        except (EOFError, OSError):
            return
        pipe.send_bytes(answer(app, node, len(desk.sites), data))
