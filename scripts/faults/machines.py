"""A coordinator and three sites on this machine, by the commands that a consortium runs."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import yaml

import fedmedlora
from fedmedlora.federation.deployment.journal import read_journal
from fedmedlora.model.adapter_files import read_adapter

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
ROUNDS = 2


class Federation:
    """A coordinator and its sites on this machine.

    Attributes:
        folder: the coordinator's.
        sites: the command of each site.
        command: the coordinator's, of its latest start.
    """

    def __init__(self, root: Path, *, proxy: bool) -> None:
        self.root, self.proxy = root, proxy
        self.folder = root / "coordinator"
        self.sites: dict[str, subprocess.Popen[bytes]] = {}
        self.command: subprocess.Popen[bytes] | None = None
        self._ports: tuple[int, ...] = ()

    def found(self) -> None:
        """Make the folders, the sites' keys too, by the commands."""
        (self.root / "study.yaml").write_text(STUDY, encoding="utf-8")
        port, superlink, *others = free_ports(2 + len(SITES))
        self._ports = (port, superlink) if self.proxy else (superlink,)
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

    def journal(self) -> dict[str, Any]:
        """What the run says of itself; empty before its first word."""
        return read_journal(self.folder / "run") or {}

    def trains(self, site: str) -> bool:
        """Whether a site was asked to train and has not answered, by its audit log."""
        log = self.root / site / "work" / f"{site}.audit.jsonl"
        lines = log.read_bytes().splitlines() if log.exists() else []
        try:
            last = json.loads(lines[-1])
        except (IndexError, ValueError):  # none yet, or half of one
            return False
        return (last.get("kind"), last.get("phase")) == ("received", "train")

    def rounds(self) -> Path:
        """The folder of the checkpoints."""
        return self.folder / "run" / "federation" / "fed-medlora"

    def adapter(self) -> str:
        """The hash of the trained adapter."""
        return read_adapter(self.folder / "run" / "adapters" / "fed-medlora").sha256

    def listens(self) -> bool:
        """Whether anything answers where the coordinator did."""
        return any(_listens(port) for port in self._ports)

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

    def _call(self, *arguments: str) -> str:
        command = [sys.executable, "-m", "fedmedlora", *arguments]
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, env=_environment()
        )
        if done.returncode != 0:
            raise RuntimeError(f"fedmedlora {' '.join(arguments[:2])}: {done.stderr.strip()}")
        return done.stdout

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        with (self.root / "commands.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "fedmedlora", *arguments],
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )


def _environment() -> dict[str, str]:
    """The same package in every process, wherever it works."""
    source = str(Path(fedmedlora.__file__).parents[1])
    return {**os.environ, "PYTHONPATH": source, "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.2"}


def _listens(port: int) -> bool:
    with socket.socket() as one:
        one.settimeout(1.0)
        return one.connect_ex(("127.0.0.1", port)) == 0


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


def kill(pid: int) -> bool:
    """Kill -9 a process; whether it was running until then."""
    try:
        process = psutil.Process(pid)
        running = process.status() != psutil.STATUS_ZOMBIE
        os.kill(pid, signal.SIGKILL)
    except (psutil.NoSuchProcess, ProcessLookupError):
        return False
    return bool(running)
