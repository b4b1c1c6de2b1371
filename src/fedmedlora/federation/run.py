"""A federation from its plan to its last adapter, on any engine.

Enters: a plan, the initial adapter, the sites. Leaves: the final adapter, a record a round, and a
folder of checkpoints to resume from. Nothing above this module can tell the engines apart.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

from fedmedlora.aggregation.methods import METHODS
from fedmedlora.errors import ConfigError, FederationError
from fedmedlora.federation import checkpoints
from fedmedlora.federation.audit import AuditLog
from fedmedlora.federation.audit_check import rounds_left_out
from fedmedlora.federation.client import Desk
from fedmedlora.federation.counted_grid import POLL_S, CountedGrid, Exchange
from fedmedlora.federation.flower import (
    Context,
    Grid,
    RecordDict,
    ServerApp,
)
from fedmedlora.federation.grid import InProcessGrid, SequentialSwitch
from fedmedlora.federation.plan import FederationPlan, OnEvent, ServerLosses, Workers
from fedmedlora.federation.processes import ProcessSwitch
from fedmedlora.federation.records import FederationResult, RoundRecord
from fedmedlora.federation.signing import public_key, read_key
from fedmedlora.federation.simulation import run_simulation
from fedmedlora.federation.strategy import RoundStrategy
from fedmedlora.model.adapter import Adapter, check_adapter

Engine = Literal["in-process", "flower"]


def run_federation(
    plan: FederationPlan,
    initial: Adapter,
    *,
    workers: Workers,
    folder: Path,
    engine: Engine = "in-process",
    server_losses: ServerLosses | None = None,
    on_round: Callable[[RoundRecord, Adapter], None] | None = None,
    on_event: OnEvent | None = None,
    resume: bool = False,
    keys: Mapping[str, Path] | None = None,
    key: Path | None = None,
    audit: bool = False,
) -> FederationResult:
    """Run a plan's rounds. The same inputs give the same adapter, bit for bit, on either engine.

    Args:
        plan: what to run.
        initial: the global adapter that round 1 broadcasts.
        workers: the sites by name, or what makes one by name (needed for worker processes and
            for Flower's simulation).
        folder: for checkpoints; made if need be. The sites' own error logs go to its
            ``site-logs``, what they keep for themselves to its ``own``.
        engine: "in-process", or "flower" for Flower's simulation.
        server_losses: scores candidate adapters, mean loss a token each; needed by Fed-MedLoRA+
            with validation at the server.
        on_round: told of every complete round, after its checkpoint; when a run goes on, first of
            the last one again: it may have been killed between the two.
        on_event: told of progress.
        resume: go on after the last complete round in ``folder``.
        keys: site -> file of its private key: what it sends is signed with it.
        key: file of the coordinator's: its requests are signed with it, and the sites answer none
            that is not.
        audit: keep both ends' audit logs: ``folder``'s audit.jsonl, and site-logs/SITE.audit.jsonl.

    Returns:
        the last global adapter, and the records of all complete rounds.

    Raises:
        ConfigError: the plan cannot be run this way.
        AdapterError: ``initial`` is malformed.
        FederationError: too few sites were left in a round.
        RunError: the folder cannot be written, holds another run, or is not to be resumed.
    """
    if engine not in ENGINES:
        raise ConfigError(f"engine: {engine!r} is none of {', '.join(ENGINES)}")
    if engine == "in-process":  # nobody can be late: the sites are called
        plan = replace(plan, timeout_s=None)
    strategy = _prepare(
        plan,
        initial,
        folder=folder,
        server_losses=server_losses,
        on_round=on_round,
        on_event=on_event,
        resume=resume,
        log=_log(folder, key=key) if audit else None,
        key=key,
    )
    if len(strategy.records) < plan.rounds:
        place = folder.resolve()
        logs = place / "site-logs"
        desk = Desk(
            plan.sites,
            workers,
            logs=logs,
            own=place,
            keys=keys or {},
            audit=logs if audit else None,
            secure=None if plan.secure is None else plan.terms,
            coordinator="" if key is None else public_key(read_key(key)),
        )
        stop = threading.Event()
        app = ServerApp()

        @app.main()  # type: ignore[untyped-decorator]
        def main(grid: Grid, context: Context) -> None:
            _run_rounds(strategy, grid, stop=stop, on_event=on_event)

        ENGINES[engine](plan, desk, app, stop)
    return _result(strategy)


def run_on_grid(
    grid: Grid,
    plan: FederationPlan,
    initial: Adapter,
    *,
    folder: Path,
    server_losses: ServerLosses | None = None,
    on_round: Callable[[RoundRecord, Adapter], None] | None = None,
    on_event: OnEvent | None = None,
    resume: bool = False,
    key: Path | None = None,
    poll_s: float = POLL_S,
) -> FederationResult:
    """Run a plan's rounds with whatever sites are behind a grid, such as a SuperLink's.

    Args:
        grid: Flower's; the sites answer it with ``client.client_app``.
        key: file of the coordinator's private key; its requests and its audit log are signed.
        poll_s: seconds between two questions for replies.
        plan, initial, folder, server_losses, on_round, on_event, resume: see ``run_federation``.

    Returns, Raises:
        as ``run_federation``.
    """
    strategy = _prepare(
        plan,
        initial,
        folder=folder,
        server_losses=server_losses,
        on_round=on_round,
        on_event=on_event,
        resume=resume,
        log=_log(folder, key=key),
        key=key,
    )
    if len(strategy.records) < plan.rounds:
        _run_rounds(strategy, grid, stop=threading.Event(), on_event=on_event, poll_s=poll_s)
    return _result(strategy)


def _prepare(
    plan: FederationPlan,
    initial: Adapter,
    *,
    folder: Path,
    server_losses: ServerLosses | None,
    on_round: Callable[[RoundRecord, Adapter], None] | None,
    on_event: OnEvent | None,
    resume: bool,
    log: AuditLog | None,
    key: Path | None,
) -> RoundStrategy:
    """The strategy of a plan, as far as its folder says that it has come."""
    if METHODS[plan.method].scored and plan.validation == "server" and server_losses is None:
        raise ConfigError("federation: validation at the server needs server_losses")
    check_adapter(initial.tensors, initial.manifest)
    progress = (checkpoints.resume if resume else checkpoints.begin)(folder, plan, initial)
    if progress.broken and on_event is not None:
        on_event("set-aside", rounds=progress.broken)
    if log is not None:
        _note_gap(log, plan, complete=len(progress.records), on_event=on_event)
    strategy = RoundStrategy(
        plan,
        initial,
        progress,
        folder=folder,
        server_losses=server_losses,
        on_round=on_round,
        on_event=on_event,
        log=log,
        key=key,
    )
    if progress.records and on_round is not None:
        on_round(progress.records[-1], strategy.model.adapter)
    return strategy


def _log(folder: Path, *, key: Path | None) -> AuditLog:
    return AuditLog(folder / "audit.jsonl", owner="coordinator", role="coordinator", key=key)


def _note_gap(
    log: AuditLog, plan: FederationPlan, *, complete: int, on_event: OnEvent | None
) -> None:
    """Say so in a log that is not the one of the rounds that are complete."""
    missing = rounds_left_out(log.path, run=plan.run_id, complete=complete)
    if missing:
        log.append("gap", run=plan.run_id, rounds=list(missing))
        if on_event is not None:
            on_event("log-gap", rounds=missing)


def _run_rounds(
    strategy: RoundStrategy,
    grid: Grid,
    *,
    stop: threading.Event,
    on_event: OnEvent | None,
    poll_s: float = POLL_S,
) -> None:
    """Flower's loop over the strategy, on a counted Grid: what a ServerApp does on any engine."""

    def told(node: int, exchange: Exchange, seconds: float) -> None:
        site = strategy.site(node)
        if on_event is not None and site:  # introductions are not worth telling
            on_event("reply", site=site, seconds=seconds, bytes_up=exchange.up)

    counted = CountedGrid(grid, stop=stop, on_reply=told, poll_s=poll_s)
    left = strategy.plan.rounds - len(strategy.records)
    first = strategy.begin(counted)
    strategy.start(counted, first, num_rounds=left, timeout=strategy.plan.timeout_s)


def _result(strategy: RoundStrategy) -> FederationResult:
    rounds = strategy.plan.rounds
    if len(strategy.records) != rounds:
        raise FederationError(f"the engine ended after {len(strategy.records)} of {rounds} rounds")
    return FederationResult(strategy.model.adapter, tuple(strategy.records))


def _run_in_process(
    plan: FederationPlan, desk: Desk, server: ServerApp, stop: threading.Event
) -> None:
    nodes = len(plan.sites)
    switch = (
        SequentialSwitch(desk)
        if plan.processes == 1
        else ProcessSwitch(desk, processes=min(plan.processes, nodes))
    )
    try:
        grid = InProcessGrid(switch, nodes=nodes)
        server(grid, Context(1, 0, {}, RecordDict(), {}))
    finally:
        switch.close()


ENGINES: dict[str, Callable[[FederationPlan, Desk, ServerApp, threading.Event], None]] = {
    "in-process": _run_in_process,
    "flower": run_simulation,
}
