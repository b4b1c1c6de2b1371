"""Flower's simulation: the sites of a federation in Ray's processes."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from types import FrameType

from fedmedlora.errors import ConfigError
from fedmedlora.federation.client import Desk, client_app
from fedmedlora.federation.flower import (
    LOGGER,
    ServerApp,
    simulate,
)
from fedmedlora.federation.plan import (
    FederationPlan,
)


def run_simulation(
    plan: FederationPlan, desk: Desk, server: ServerApp, stop: threading.Event
) -> None:
    """Flower's simulation: the sites in Ray's processes, ``plan.processes`` of them at a time."""
    if find_spec("ray") is None:
        raise ConfigError('engine "flower" needs Ray: pip install "fedmedlora[simulation]"')
    if isinstance(desk.workers, Mapping):
        raise ConfigError('engine "flower" needs a function that makes a site\'s worker by name')
    backend: dict[str, dict[str, object]] = {
        "init_args": {
            "num_cpus": plan.processes,
            "include_dashboard": False,
            "log_to_driver": False,
        },
        "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
    }
    level, path = LOGGER.level, os.environ.get("PYTHONPATH")
    LOGGER.setLevel("CRITICAL")  # it warns that it is deprecated, and logs errors raised anyway
    try:
        with _finish_on_ctrl_c(stop):
            simulate(server, client_app(desk), nodes=len(plan.sites), backend=backend)
    finally:
        stop.set()  # the server's thread may still wait for replies
        LOGGER.setLevel(level)
        if path is None:  # Flower puts the whole of sys.path there, for Ray's processes
            os.environ.pop("PYTHONPATH", None)
        else:
            os.environ["PYTHONPATH"] = path


@contextmanager
def _finish_on_ctrl_c(stop: threading.Event) -> Iterator[None]:
    """Let the first Ctrl-C end the run once the sites' present messages are answered.

    Flower's simulation, interrupted at once, kills Ray under threads that then wait for ever. A
    second Ctrl-C interrupts at once.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)
    interrupted = threading.Event()

    def first(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, before)
        interrupted.set()
        stop.set()

    signal.signal(signal.SIGINT, first)
    try:
        yield
    except Exception:
        if not interrupted.is_set():
            raise
    finally:
        signal.signal(signal.SIGINT, before)
    if interrupted.is_set():
        raise KeyboardInterrupt
