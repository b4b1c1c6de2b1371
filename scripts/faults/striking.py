"""Faults: where each is to strike, the process to kill there, and whether it was there."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from faults.machines import ROUNDS, SITES, Federation, kill, wait_for

#: The five points of a round that every measurement must have; then any process at any time.
POINTS = (
    "site while training",
    "coordinator at the broadcast",
    "coordinator while collecting",
    "coordinator while aggregating",
    "coordinator at the checkpoint",
)
#: The command of the coordinator is killed, and started again only after so long.
AWAY = "coordinator away for 2 minutes"
OTHERS = (
    AWAY,
    "ClientApp of a site",
    "SuperNode of a site",
    "SuperExec of a site",
    "command of a site",
    "SuperLink",
    "SuperExec of the coordinator",
    "command of the coordinator",
    "proxy",
)
PATIENCE_S = 900.0


@dataclass
class Outcome:
    """One run.

    Attributes:
        fault: what was to be killed, and where.
        round: in which round.
        site: whose process, where it is a site's.
        killed: process id; None if nothing was there to be killed.
        at: what the journal said right before the kill: state, round, who had answered, and whether
            the site trained, by its own audit log.
        seen: what lay in the checkpoints' folder right after it.
        struck: whether a running process was killed, and at the point that is named.
        starts: how often the coordinator's command was started.
        site_starts: how often a site's command had to be.
        away_s: seconds in which nothing answered in the coordinator's place.
        back_s: seconds from its start after that until all sites had joined again.
        seconds: until it was done.
        same: whether the adapter is the undisturbed one's.
    """

    fault: str
    round: int
    site: str = SITES[0]
    killed: int | None = None
    at: dict[str, Any] = field(default_factory=dict)
    seen: list[str] = field(default_factory=list)
    struck: bool = False
    starts: int = 0
    site_starts: int = 0
    away_s: float | None = None
    back_s: float | None = None
    seconds: float = 0.0
    same: bool = False

    @property
    def good(self) -> bool:
        """Whether it went as it should, whatever was struck."""
        allowed = 1 if self.fault == "command of a site" else 0
        returned = not self.struck or self.fault != AWAY or self.back_s is not None
        return self.same and self.site_starts <= allowed and returned


def place_of(federation: Federation, outcome: Outcome, rng: random.Random) -> int | None:
    """Wait until the run is where the fault is to strike; the process to kill."""
    command, host = federation.command, federation.sites[outcome.site]

    def in_round() -> bool:
        told = federation.journal()
        return told.get("round") == outcome.round and told.get("state") == "training"

    def answered() -> int:
        return len(federation.journal().get("answered", ())) if in_round() else 0

    def being_written() -> bool:
        folder = federation.rounds()
        names = (path.name for path in (folder.iterdir() if folder.is_dir() else ()))
        return any(is_unfinished(name, outcome.round) for name in names)

    fault = outcome.fault
    if not wait_for(in_round, seconds=PATIENCE_S, every=0.01):
        return None
    app = federation.process("flwr-serverapp", of=command)
    if fault == "site while training":
        wait_for(lambda: federation.trains(outcome.site), seconds=PATIENCE_S, every=0.01)
        time.sleep(rng.uniform(0.0, 1.0))
        return federation.process("study.site_process", of=host)
    if fault == "coordinator at the broadcast":
        time.sleep(rng.uniform(0.0, 0.3))
        return app
    if fault == "coordinator while collecting":
        count = rng.choice((1, 2))
        wait_for(lambda: answered() >= count, seconds=PATIENCE_S, every=0.01)
        return app
    if fault in ("coordinator while aggregating", "coordinator at the checkpoint"):
        wait_for(lambda: answered() == len(SITES), seconds=PATIENCE_S, every=0.0005)
        if fault == "coordinator at the checkpoint":
            wait_for(being_written, seconds=5, every=0.0)
        else:
            time.sleep(rng.uniform(0.0, 0.01))
        return app
    time.sleep(rng.uniform(0.0, 5.0))
    pid = None if command is None else command.pid
    places: dict[str, Callable[[], int | None]] = {
        "ClientApp of a site": lambda: federation.process("flwr-clientapp", of=host),
        "SuperNode of a site": lambda: federation.process("deployment.supernode", of=host),
        "SuperExec of a site": lambda: federation.process("flower-superexec", of=host),
        "command of a site": lambda: host.pid,
        "SuperLink": lambda: federation.process("flower-superlink", of=command),
        "SuperExec of the coordinator": lambda: federation.process("flower-superexec", of=command),
        "command of the coordinator": lambda: pid,
        AWAY: lambda: pid,
        "proxy": lambda: federation.process("nginx", of=command),
    }
    return places[fault]()


def is_unfinished(name: str, number: int) -> bool:
    """Whether this is the name of a round's folder that is being written."""
    return name.startswith(f".round-{number:04d}.") and "replies" not in name


def was_there(outcome: Outcome) -> bool:
    """Whether the run was at the point that a fault names, by its journal and its checkpoints."""
    told, done = outcome.at, f"round-{outcome.round:04d}" in outcome.seen
    if told["state"] in ("done", "failed") or (done and outcome.fault in POINTS):
        return False
    if outcome.fault in POINTS and told["round"] != outcome.round:
        return False
    unfinished = any(is_unfinished(name, outcome.round) for name in outcome.seen)
    holds = {
        "site while training": told["trains"],
        "coordinator at the broadcast": not told["answered"],
        "coordinator while collecting": 0 < len(told["answered"]) < len(SITES),
        "coordinator while aggregating": len(told["answered"]) == len(SITES),
        "coordinator at the checkpoint": unfinished,
        AWAY: told["complete"] < ROUNDS,
    }
    return bool(holds.get(outcome.fault, True))


def strike(federation: Federation, outcome: Outcome, rng: random.Random) -> None:
    """Kill what is to be killed, and note where the run was."""
    outcome.site = rng.choice(SITES)
    outcome.killed = place_of(federation, outcome, rng)
    told = federation.journal()
    outcome.at = {
        "state": told.get("state"),
        "round": told.get("round"),
        "answered": sorted(told.get("answered", ())),
        "complete": told.get("complete", 0),
        "trains": federation.trains(outcome.site),
    }
    if outcome.killed is None:
        return
    was_running = kill(outcome.killed)
    rounds = federation.rounds()
    outcome.seen = sorted(path.name for path in rounds.iterdir()) if rounds.is_dir() else []
    outcome.struck = was_running and was_there(outcome)
