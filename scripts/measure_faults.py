"""Kill -9 of any process of a federation at any point: does it end with the undisturbed adapter?

    python scripts/measure_faults.py --runs 20 --seed 1 --out faults.json

Starts a coordinator and three sites on this machine, over TLS, by the commands that a consortium
runs. One run is left alone; in each of the others one process is killed at a point that is drawn by
the seed. What ended with a non-zero exit code is started again by the same command, as a service
manager would. The sites stay from run to run.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import yaml

from fedmedlora.federation.deployment.journal import read_journal
from fedmedlora.model.adapter_files import read_adapter
from fedmedlora.streams import end_in_order

STUDY = """
name: faults
methods: [fed-medlora]
sites: {icu: {}, outpatient: {}, discharge: {}}
adapter: {rank: 4, alpha: 16}
task: {tasks: [entities], heads: numbered, prompt: compact, window_words: 30}
training: {steps: 3, batch: 2, learning_rate: 1.0e-3, objective: decisions}
federation: {rounds: 2}
"""
SITES = ("icu", "outpatient", "discharge")
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
AWAY_S = 120.0
OTHERS = (
    "ClientApp of a site",
    "SuperNode of a site",
    "SuperExec of a site",
    "command of a site",
    "SuperLink",
    "SuperExec of the coordinator",
    "command of the coordinator",
    "proxy",
    AWAY,
)
MOST_STARTS = 6
PATIENCE_S = 900.0


@dataclass
class Outcome:
    """One run.

    Attributes:
        fault: what was killed, and where.
        round: in which round.
        killed: process id; None if nothing was there to be killed.
        starts: how often the coordinator's command was started.
        seconds: until it was done.
        same: whether the adapter is the undisturbed one's.
        seen: what lay in the checkpoints' folder right after the kill.
    """

    fault: str
    round: int
    killed: int | None = None
    starts: int = 0
    seconds: float = 0.0
    same: bool = False
    seen: list[str] = field(default_factory=list)


class Federation:
    """A coordinator and its sites on this machine."""

    def __init__(self, root: Path, *, proxy: bool) -> None:
        self.root, self.proxy = root, proxy
        self.folder = root / "coordinator"
        self.sites: dict[str, subprocess.Popen[bytes]] = {}
        self.command: subprocess.Popen[bytes] | None = None

    def found(self) -> None:
        """Make the folders by the commands."""
        (self.root / "study.yaml").write_text(STUDY, encoding="utf-8")
        port, superlink, *others = free_ports(2 + len(SITES))
        options = ["--host", "localhost", "--port", str(port), "--superlink-port", str(superlink)]
        options += [] if self.proxy else ["--no-proxy"]
        study = str(self.root / "study.yaml")
        told = self._call("federation", "init", study, "--out", str(self.folder), *options)
        public = told.strip().splitlines()[-1].split()[-1]
        for site, own in zip(SITES, others, strict=True):
            kit, place = self.folder / "kits" / f"{site}.tar.gz", self.root / site
            self._call("site", "unpack", str(kit), "--out", str(place), "--key", public)
            content = yaml.safe_load((place / "site.yaml").read_text(encoding="utf-8"))
            sizes = {"train": 2, "validation": 1, "test": 1}
            content |= {"notes": {"synthetic": {"style": site, **sizes}}, "port": own}
            (place / "site.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
        sent = [str(self.root / site / f"{site}.membership.json") for site in SITES]
        self._call("federation", "admit", str(self.folder), *sent)

    def start_site(self, site: str) -> None:
        """Start a site's command."""
        self.sites[site] = self._start("site", "start", str(self.root / site / "site.yaml"))

    def start(self) -> None:
        """Start the coordinator's command."""
        self.command = self._start("federation", "start", str(self.folder))

    def process(self, name: str, *, of: subprocess.Popen[bytes] | None) -> int | None:
        """A process by a word of its command line, among all that a command started."""
        if of is None or of.poll() is not None:
            return None
        for one in psutil.Process(of.pid).children(recursive=True):
            try:
                if any(name in part for part in one.cmdline()[:4]):
                    return int(one.pid)
            except psutil.Error:
                continue
        return None

    def stop(self) -> None:
        """End everything."""
        for process in [*self.sites.values(), *filter(None, [self.command])]:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in [*self.sites.values(), *filter(None, [self.command])]:
            process.wait(timeout=60)

    def checkpoints(self) -> Path:
        """The folder of the rounds."""
        return self.folder / "run" / "federation" / "fed-medlora"

    def _call(self, *arguments: str) -> str:
        command = [sys.executable, "-m", "fedmedlora", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.2"}
        with (self.root / "commands.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "fedmedlora", *arguments],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


def wait_for(holds: Callable[[], object], *, seconds: float, every: float = 0.05) -> bool:
    """Whether something came to hold in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if holds():
            return True
        time.sleep(every)
    return False


def reached(federation: Federation, outcome: Outcome, rng: random.Random) -> int | None:
    """Wait until the run is where the fault is to strike; the process to kill."""
    run = federation.folder / "run"
    site = rng.choice(SITES)

    def journal() -> dict[str, object]:
        return read_journal(run) or {}

    def in_round() -> bool:
        told = journal()
        return told.get("round") == outcome.round and told.get("state") == "training"

    def answered() -> int:
        told = journal().get("answered", {})
        return len(told) if in_round() and isinstance(told, dict) else 0

    def being_written() -> bool:
        name = f".round-{outcome.round:04d}."
        folder = federation.checkpoints()
        return any(
            path.name.startswith(name) and "replies" not in path.name
            for path in (folder.iterdir() if folder.is_dir() else ())
        )

    fault = outcome.fault
    if not wait_for(in_round, seconds=PATIENCE_S, every=0.01):
        return None
    app = federation.process("flwr-serverapp", of=federation.command)
    command = federation.command
    if fault == "site while training":
        host = federation.sites[site]
        wait_for(lambda: federation.process("flwr-clientapp", of=host), seconds=60)
        time.sleep(rng.uniform(0.0, 6.0))
        return federation.process("study.site_process", of=host)
    if fault == "coordinator at the broadcast":
        time.sleep(rng.uniform(0.0, 0.3))
        return app
    if fault == "coordinator while collecting":
        wait_for(lambda: answered() >= rng.choice((1, 2)), seconds=PATIENCE_S, every=0.01)
        return app
    if fault == "coordinator while aggregating":
        wait_for(lambda: answered() == len(SITES), seconds=PATIENCE_S, every=0.0005)
        time.sleep(rng.uniform(0.0, 0.01))
        return app
    if fault == "coordinator at the checkpoint":
        wait_for(lambda: answered() == len(SITES), seconds=PATIENCE_S, every=0.0005)
        wait_for(being_written, seconds=5, every=0.0)
        return app
    time.sleep(rng.uniform(0.0, 10.0))
    places: dict[str, Callable[[], int | None]] = {
        "ClientApp of a site": lambda: federation.process(
            "flwr-clientapp", of=federation.sites[site]
        ),
        "SuperNode of a site": lambda: federation.process(
            "deployment.supernode", of=federation.sites[site]
        ),
        "SuperExec of a site": lambda: federation.process(
            "flower-superexec", of=federation.sites[site]
        ),
        "command of a site": lambda: federation.sites[site].pid,
        "SuperLink": lambda: federation.process("flower-superlink", of=command),
        "SuperExec of the coordinator": lambda: federation.process("flower-superexec", of=command),
        "command of the coordinator": lambda: command.pid if command is not None else None,
        AWAY: lambda: command.pid if command is not None else None,
        "proxy": lambda: federation.process("nginx", of=command),
    }
    return places[fault]()


def run_with(federation: Federation, outcome: Outcome, rng: random.Random) -> str:
    """One run with a fault; returns the hash of its adapter."""
    shutil.rmtree(federation.folder / "run", ignore_errors=True)
    begun = time.monotonic()
    federation.start()
    outcome.starts = 1
    if outcome.fault != "none":
        outcome.killed = reached(federation, outcome, rng)
        if outcome.killed is not None:
            os.kill(outcome.killed, signal.SIGKILL)
            places = federation.checkpoints()
            outcome.seen = sorted(p.name for p in places.iterdir()) if places.is_dir() else []
    while True:
        for site, process in federation.sites.items():
            if process.poll() is not None:
                federation.start_site(site)
        code = federation.command.poll() if federation.command is not None else 1
        if code == 0:
            break
        if code is not None:
            if outcome.fault == AWAY and outcome.starts == 1:
                time.sleep(AWAY_S)
            if outcome.starts >= MOST_STARTS:
                return "never done"
            outcome.starts += 1
            federation.start()
        if time.monotonic() - begun > PATIENCE_S:
            return "not done in time"
        time.sleep(0.2)
    outcome.seconds = round(time.monotonic() - begun, 1)
    return read_adapter(federation.folder / "run" / "adapters" / "fed-medlora").sha256


def drawn(runs: int, rng: random.Random, *, proxy: bool) -> list[Outcome]:
    """Faults for so many runs: every point of a round equally often, then the other processes."""
    others = [name for name in OTHERS if proxy or name != "proxy"]
    rng.shuffle(others)
    faults = []
    for number in range(runs):
        part = POINTS if number % 3 < 2 else others
        place = number // 3 * (2 if part is POINTS else 1) + (number % 3 if part is POINTS else 0)
        faults.append(Outcome(part[place % len(part)], rng.choice((1, 2))))
    return faults


@contextmanager
def place_for(out: Path | None) -> Iterator[Path]:
    """A folder for the federation: kept if named."""
    if out is not None:
        out.mkdir(parents=True)
        yield out
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def main() -> int:
    """Measure; the exit code is 1 if a run did not end with the undisturbed adapter."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=None, help="JSON file of all outcomes")
    parser.add_argument("--folder", type=Path, default=None, help="keep the federation here")
    arguments = parser.parse_args()
    end_in_order()
    rng = random.Random(arguments.seed)
    proxy = shutil.which("nginx") is not None
    outcomes: list[Outcome] = []
    with place_for(arguments.folder) as root:
        federation = Federation(root, proxy=proxy)
        federation.found()
        try:
            for site in SITES:
                federation.start_site(site)
            alone = Outcome("none", 0)
            undisturbed = run_with(federation, alone, rng)
            print(f"undisturbed: {undisturbed[:12]} after {alone.seconds:.0f} s")
            for outcome in drawn(arguments.runs, rng, proxy=proxy):
                ended = run_with(federation, outcome, rng)
                outcome.same = ended == undisturbed
                outcomes.append(outcome)
                told = "same adapter" if outcome.same else f"ANOTHER: {ended[:16]}"
                print(
                    f"{outcome.fault}, round {outcome.round}: {told}, {outcome.starts} starts, "
                    f"{outcome.seconds:.0f} s",
                    flush=True,
                )
                if arguments.out is not None:
                    arguments.out.write_text(json.dumps([asdict(o) for o in outcomes], indent=1))
        finally:
            federation.stop()
    same = sum(outcome.same for outcome in outcomes)
    struck = sum(outcome.killed is not None for outcome in outcomes)
    print(f"{same} of {len(outcomes)} with the undisturbed adapter; {struck} were struck")
    return 0 if same == len(outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
