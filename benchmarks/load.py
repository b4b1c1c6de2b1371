"""What a federation's server needs over many rounds, and with large adapters.

    python benchmarks/load.py

First 50 sites x 20 rounds of a small adapter through the strategy, with the default screening and
with a robust rule: seconds and memory of each round; it should stay where it is after the first
ones. Then five sites that send 168 MB each (the 8B shape in float32): the peak of the server's
process beyond that of one that passes the same messages on and does nothing with them. The large
sites are processes of their own. Then what one request of 168 MB costs at each end to be hashed,
logged and signed. Every line is a process of its own, one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SMALL = 348_160  # values of the embedded backbone's adapter, rank 32
LARGE = 41_943_040  # Llama-3.1-8B, rank 16, all linear layers
FIRST = 5  # rounds until everything has been imported and allocated once


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--sites", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    if arguments.one:
        kind, rule, *counts = arguments.one.split(":")
        kinds: dict[str, Callable[..., Any]] = {
            "rounds": many_rounds,
            "large": large,
            "passed": passed,
            "signed": signed,
        }
        print(json.dumps(kinds[kind](rule, *(int(count) for count in counts))))
        return
    print(f"{arguments.sites} sites x {arguments.rounds} rounds, {SMALL} values")
    print(f"rule             seconds   a round   after round {FIRST}    most since   grown by")
    for rule in ("none", "median", "krum"):
        found = child(f"rounds:{rule}:{arguments.sites}:{arguments.rounds}")
        memory = found["memory"]
        begin, most = memory[FIRST - 1], max(memory[FIRST - 1 :])
        print(
            f"{rule:14} {sum(found['seconds']):9.1f} {statistics.median(found['seconds']):9.2f}"
            f" {begin / 1e6:19.0f} MB {most / 1e6:11.0f} MB {most / begin - 1:9.1%}",
            flush=True,
        )
    print("\nfive sites x 168 MB: peak of the server's process, MB")
    base = child("passed:none")["peak"]
    print(f"messages passed on and dropped {base / 1e6:20.0f}", flush=True)
    for rule in ("none", "median", "krum"):
        peak = child(f"large:{rule}")["peak"]
        print(f"{rule:14} {peak / 1e6:36.0f}   beyond {(peak - base) / 1e6:.0f}", flush=True)
    print("\none request of 168 MB, seconds (median of 5)")
    for what, seconds in child("signed:none").items():
        print(f"{what:50} {seconds:10.4f}", flush=True)


def child(what: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, __file__, "--one", what],
        check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def manifest(size: int) -> Any:
    from fedmedlora.model.adapter import Manifest

    names = "base_model.model.q.lora_A.weight", "base_model.model.q.lora_B.weight"
    shapes = ((32, size // 64), (size // 64, 32))
    return Manifest(
        "b" * 64, "t" * 64, "s" * 64, 32, 64.0, 0.0, ("q",), tuple(zip(names, shapes, strict=True))
    )


def beginning(size: int) -> Any:
    import numpy as np

    from fedmedlora.model.adapter import Adapter

    made = manifest(size)
    rng = np.random.default_rng(0)
    return Adapter(made, {n: rng.standard_normal(s, np.float32) for n, s in made.tensors})


class Site:
    """Makes a step that it shares with the others in part; implements ``SiteWorker``."""

    def __init__(self, name: str) -> None:
        self.name = name

    def declared(self) -> Any:
        from fedmedlora.federation.plan import Declared

        return Declared(10, 100)

    def train(self, adapter: Any, order: Any) -> Any:
        import numpy as np

        from fedmedlora.federation.plan import SiteUpdate
        from fedmedlora.model.adapter import Adapter

        tensors = {}
        for name, tensor in adapter.tensors.items():
            step = np.random.default_rng(order.round).standard_normal(tensor.shape, np.float32)
            own = np.random.default_rng([order.round, *self.name.encode()])
            step += own.standard_normal(tensor.shape, np.float32)
            step *= np.float32(0.01)
            tensors[name] = tensor + step
        return SiteUpdate(Adapter(adapter.manifest, tensors), 10, 100, 1.0, 0.5, 0.0)

    def losses(self, adapters: Any) -> Any:
        raise NotImplementedError


def many_rounds(rule: str, sites: int, rounds: int) -> dict[str, list[float]]:
    from fedmedlora.aggregation.robust import RobustOptions
    from fedmedlora.federation.plan import FederationPlan
    from fedmedlora.federation.records import RoundRecord
    from fedmedlora.federation.run import run_federation

    names = tuple(f"site-{number:02d}" for number in range(sites))
    seconds: list[float] = []
    memory: list[float] = []
    started = time.perf_counter()

    def told(record: RoundRecord, adapter: Any) -> None:
        seconds.append(time.perf_counter() - started - sum(seconds))
        memory.append(resident())

    with tempfile.TemporaryDirectory() as folder:
        plan = FederationPlan(
            run_id="load",
            sites=names,
            rounds=rounds,
            robust=RobustOptions(rule),  # type: ignore[arg-type]
        )
        run_federation(
            plan,
            beginning(SMALL),
            workers={name: Site(name) for name in names},
            folder=Path(folder) / "run",
            on_round=told,
        )
    return {"seconds": seconds, "memory": memory}


LARGE_SITES = tuple(f"site-{number}" for number in range(5))


def large(rule: str) -> dict[str, float]:
    from fedmedlora.aggregation.robust import RobustOptions
    from fedmedlora.federation.plan import FederationPlan
    from fedmedlora.federation.run import run_federation

    with tempfile.TemporaryDirectory() as folder:
        plan = FederationPlan(
            run_id="load",
            sites=LARGE_SITES,
            rounds=2,
            wire="fp32",
            processes=2,
            robust=RobustOptions(rule),  # type: ignore[arg-type]
        )
        run_federation(plan, beginning(LARGE), workers=Site, folder=Path(folder) / "run")
    return {"peak": peak()}


def passed(rule: str) -> dict[str, float]:
    """The same requests and replies through the same Grid, without anything of a server."""
    from fedmedlora.aggregation.methods import ServerState
    from fedmedlora.federation.client import Desk
    from fedmedlora.federation.counted_grid import CountedGrid
    from fedmedlora.federation.flower import Message
    from fedmedlora.federation.grid import InProcessGrid
    from fedmedlora.federation.plan import FederationPlan
    from fedmedlora.federation.processes import ProcessSwitch
    from fedmedlora.federation.server_model import ServerModel

    start = beginning(LARGE)
    plan = FederationPlan(run_id="load", sites=LARGE_SITES, rounds=2, wire="fp32", processes=2)
    model = ServerModel(plan, start, ServerState(start.tensors))
    switch = ProcessSwitch(Desk(LARGE_SITES, Site), processes=2)
    try:
        grid = CountedGrid(InProcessGrid(switch, nodes=5))
        for number in (1, 2):
            calls = {site: model.call(site, number) for site in LARGE_SITES}
            requests = model.requests(calls)
            messages = (
                Message(content, 1 + LARGE_SITES.index(site), "train") for site, content in requests
            )
            for _ in grid.send_and_receive(messages):
                pass
    finally:
        switch.close()
    return {"peak": peak()}


def signed(rule: str) -> dict[str, float]:
    """Both ends of one request, with and without keys; and what of it is hashing and signing."""
    from fedmedlora.canonical import sha256
    from fedmedlora.federation.audit import AuditLog
    from fedmedlora.federation.ends import CoordinatorEnd, SiteEnd
    from fedmedlora.federation.flower import Message, TaskIdentity, to_bytes
    from fedmedlora.federation.plan import FederationPlan
    from fedmedlora.federation.signing import make_key, read_key, sign
    from fedmedlora.federation.wire import Call, adapter_arrays, request
    from fedmedlora.model.packing import pack

    start = beginning(LARGE)
    packed = pack(start, "fp32")
    data = packed.tobytes()
    call = Call("load", 1, start.manifest.to_json(), "fp32", nonce="0" * 32)
    content = request(call, adapter_arrays(packed))
    plan = FederationPlan(run_id="load", sites=LARGE_SITES, rounds=1)
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 0, 0
    message = Message(content, 1, "train")

    with tempfile.TemporaryDirectory() as folder:
        key = Path(folder) / "key"
        public = make_key(key)
        private = read_key(key)
        log = AuditLog(Path(folder) / "hub.jsonl", owner="hub", role="coordinator", key=key)
        own = AuditLog(Path(folder) / "site.jsonl", owner="site-0", role="site")
        plain, hub = CoordinatorEnd(plan), CoordinatorEnd(plan, log, key=key)
        asked = hub.address(content, phase="train", node=1, site="site-0")
        unsigned = SiteEnd("site-0")
        site = SiteEnd("site-0", log=own, coordinator=public)
        steps: dict[str, Callable[[], object]] = {
            "coordinator, hashed": lambda: plain.address(
                content, phase="train", node=1, site="site-0"
            ),
            "coordinator, hashed, logged and signed": lambda: hub.address(
                content, phase="train", node=1, site="site-0"
            ),
            "site, hashed": lambda: unsigned.receive(asked, "train", node=1),
            "site, hashed, checked and logged": lambda: site.receive(asked, "train", node=1),
            "SHA-256 of the array alone": lambda: sha256(data),
            "an Ed25519 signature alone": lambda: sign(b"x" * 600, private, purpose="request"),
            "Flower's serialisation of the message": lambda: to_bytes(message),
        }
        return {what: typical(step) for what, step in steps.items()}


def typical(step: Callable[[], object]) -> float:
    """Median seconds of five calls."""
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def resident() -> float:
    """Bytes of this process in memory now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return float(pages * os.sysconf("SC_PAGE_SIZE"))


def peak() -> float:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


if __name__ == "__main__":
    main()
