"""What a coordinator's command does while it runs: processes started, the run started, both tended.

A process that ends is started again. A run whose ServerApp has ended is started again and goes on
from its last checkpoint; one that says itself that it failed is not.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fedmedlora.errors import ConfigError, FederationError, RunError
from fedmedlora.federation.deployment.flower_commands import start_run, stop_run
from fedmedlora.federation.deployment.journal import at_work, is_at_work, read_journal
from fedmedlora.federation.deployment.layout import CoordinatorFolder
from fedmedlora.federation.deployment.registering import register_sites
from fedmedlora.federation.deployment.services import Services, refuse_taken_port, wait_for_port

_LOOK_S = 1.0
_LISTEN_S = 120.0
#: A ServerApp that was asked for is there, or has ended before it said anything.
_APP_S = 90.0
#: So often is a run started again without a round between.
_MOST_STARTS = 5

OnNote = Callable[[str], None]


def tend_federation(
    folder: CoordinatorFolder,
    services: Services,
    *,
    nodes: Mapping[str, str],
    ports: Sequence[tuple[str, int]],
    note: OnNote,
) -> None:
    """Run a federation until it is done, in a folder that is ``held``.

    Args:
        folder: the coordinator's.
        services: not started yet; the first of them listens on the first port.
        nodes: to be registered: site -> its public key for the connection.
        ports: (key in the settings, port) of all that the services listen on.
        note: told a line of what happens.

    Raises:
        FederationError: the run failed; a later call goes on from its last checkpoint.
        RunError: a process cannot be started.
    """
    for key, port in ports:
        refuse_taken_port(port, key=key)
    try:
        services.start()
        wait_for_port(
            ports[0][1], seconds=_LISTEN_S, alive=lambda: services.pid("superlink") is not None
        )
        register_sites(folder, nodes)
        _see_through(folder, services, note=note)
    finally:
        services.stop()


def _see_through(folder: CoordinatorFolder, services: Services, *, note: OnNote) -> None:
    """Start the run as often as it takes, until its journal says how it ended."""
    starts, complete = 0, _complete(folder)
    while True:
        if _complete(folder) > complete:
            starts, complete = 0, _complete(folder)
        starts += 1
        if starts > _MOST_STARTS:
            raise FederationError(
                f"the run was started {_MOST_STARTS} times without completing a round; see "
                f"{folder.logs / 'superexec.log'}"
            )
        before = _written(folder)
        number = start_run(folder)
        note(f"run {number} started" if starts == 1 else f"run {number} goes on")
        journal = _watch(folder, services, before=before, note=note)
        if journal.get("state") == "done":
            return
        if journal.get("state") == "failed":
            raise FederationError(str(journal.get("reason") or "the run failed; see the logs"))
        note("the run's process has ended before the run was done")
        stop_run(folder, number)


def _watch(
    folder: CoordinatorFolder, services: Services, *, before: float, note: OnNote
) -> dict[str, Any]:
    """Tend the processes until the run has ended; what its journal says then."""
    started, seen = time.monotonic(), False
    while True:
        time.sleep(_LOOK_S)
        for name in services.tend():
            note(f"{name} has ended; it is started again; see {services.log(name)}")
        working = is_at_work(folder.run)
        seen = seen or working or _written(folder) > before
        late = not seen and time.monotonic() - started > _APP_S
        if (seen and not working) or late:
            return (read_journal(folder.run) or {}) if seen else {}


def _written(folder: CoordinatorFolder) -> float:
    journal = read_journal(folder.run) or {}
    return float(journal.get("updated", 0.0))


def _complete(folder: CoordinatorFolder) -> int:
    journal = read_journal(folder.run) or {}
    return int(journal.get("complete", 0))


def _pid_path(folder: CoordinatorFolder) -> Path:
    return folder.state / "start.pid"


@contextmanager
def held(folder: CoordinatorFolder) -> Iterator[None]:
    """Be the one command that changes a coordinator's folder, until the block ends.

    Raises:
        RunError: another one does.
    """
    path = _pid_path(folder)
    with at_work(folder.state):
        path.write_text(str(os.getpid()), encoding="ascii")
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def stop_federation(folder: CoordinatorFolder, *, seconds: float = 60.0) -> bool:
    """Let the command that tends a folder end; whether there was one.

    Raises:
        ConfigError: the folder is no coordinator's.
        RunError: it does not end in time.
    """
    if not is_at_work(folder.state):
        if not folder.settings.is_file():
            raise ConfigError(
                f"{folder.root} is no coordinator's folder: it has no {folder.settings.name}"
            )
        return False
    try:
        pid = int(_pid_path(folder).read_text(encoding="ascii"))
        os.kill(pid, signal.SIGTERM)
    except (OSError, ValueError) as error:
        raise RunError(f"{folder.state}: what works there cannot be told to end") from error
    deadline = time.monotonic() + seconds
    while is_at_work(folder.state):
        if time.monotonic() > deadline:
            raise RunError(f"process {pid} does not end; end it by hand")
        time.sleep(0.2)
    return True
