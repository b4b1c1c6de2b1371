"""Flower's commands to a SuperLink that runs: arguments in, what it answers out."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from typing import Any

from fedmedlora.errors import RunError
from fedmedlora.federation.deployment.layout import CONNECTION, CoordinatorFolder
from fedmedlora.federation.deployment.services import flower_environment, program

#: What lets Flower answer in JSON.
JSON = ("--format", "json")
_COMMAND_S = 120.0


def start_run(folder: CoordinatorFolder) -> str:
    """Hand the app to the SuperLink; returns the run's number there.

    Raises:
        RunError: it refuses.
    """
    done = call(folder, ["run", str(folder.app), CONNECTION, *JSON])
    told = answer(done)
    if told.get("success") and "run-id" in told:
        return str(told["run-id"])
    raise RunError(f"the SuperLink does not start the run: {last_lines(done)}")


def stop_run(folder: CoordinatorFolder, run: str) -> None:
    """Let the SuperLink forget a run; one that has ended already is no fault."""
    call(folder, ["stop", run, CONNECTION])


def answer(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """What Flower answers in JSON; {} if it answers something else."""
    try:
        told = json.loads(done.stdout[done.stdout.index("{") :])
    except ValueError:
        return {}
    return dict(told)


def call(folder: CoordinatorFolder, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run ``flwr`` with a coordinator's configuration; what it answered, whatever its exit code.

    Args:
        folder: the coordinator's.
        arguments: of ``flwr``.

    Raises:
        RunError: it is not installed, or does not answer in time.
    """
    around = flower_environment(folder.flower_home)
    try:
        return subprocess.run(
            [program("flwr"), *arguments],
            env={**os.environ, **around},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_COMMAND_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise RunError(f"flwr {arguments[0]} got no answer in {_COMMAND_S:.0f} s") from error


def last_lines(done: subprocess.CompletedProcess[str]) -> str:
    """The end of what a command said, errors first: at most four lines, of 400 characters."""
    lines = [line.strip() for line in (done.stderr + done.stdout).splitlines() if line.strip()]
    return " ".join(lines[-4:])[-400:]
