"""A small study, its coordinator and its sites as real processes on this machine."""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

import fedmedlora
from fedmedlora.config import check_study
from fedmedlora.config_deployment import CoordinatorSettings
from fedmedlora.federation.deployment.kit import unpack_kit
from fedmedlora.federation.deployment.layout import membership_file
from fedmedlora.federation.flower import Message, TaskIdentity
from fedmedlora.strict_yaml import load_yaml
from fedmedlora.study.admitting import admit_sites
from fedmedlora.study.founding import found_federation

STYLES = ("icu", "outpatient", "discharge")
TEXT = """
name: toy
methods: [fed-medlora]
sites:
  icu: {synthetic: {style: icu, train: 2, validation: 1, test: 1}}
  outpatient: {synthetic: {style: outpatient, train: 2, validation: 1, test: 1}}
  discharge: {synthetic: {style: discharge, train: 2, validation: 1, test: 1}}
adapter: {rank: 2, alpha: 8}
task: {tasks: [entities], heads: numbered, prompt: compact, window_words: 30}
training: {steps: 2, batch: 2, learning_rate: 1.0e-3, objective: decisions}
federation: {rounds: 2}
"""


def study_of(**settings):
    """The toy study; ``federation_rounds=1`` is its setting ``federation.rounds``."""
    study = check_study(load_yaml(TEXT), source="toy")
    changes = {name.replace("_", ".", 1): value for name, value in settings.items()}
    return study.with_settings(changes, where="toy")


def free_ports(count):
    """Ports that nobody listens on now, all different."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@dataclass
class Hospital:
    """A site's folder."""

    name: str
    settings: Path

    @property
    def membership(self):
        return membership_file(self.settings.parent, self.name)


def found(folder, study, *, proxy="none", admit=True, **settings):
    """A coordinator's folder and the unpacked kits of its sites, each filled in and admitted."""
    port, superlink, *others = free_ports(2 + len(study.sites))
    given = {"host": "localhost", "port": port, "superlink_port": superlink, "proxy": proxy}
    made = found_federation(
        study, folder / "coordinator", settings=CoordinatorSettings(**given, **settings)
    )
    hospitals = []
    for (name, site), own in zip(study.sites.items(), others, strict=True):
        place = folder / "sites" / name
        unpack_kit(made.kits[name], place, public=made.public)
        content = yaml.safe_load((place / "site.yaml").read_text())
        content["notes"] = site.model_dump(mode="json", exclude_none=True)
        content["port"] = own
        (place / "site.yaml").write_text(yaml.safe_dump(content))
        hospitals.append(Hospital(name, place / "site.yaml"))
    if admit:
        admit_sites(made.folder, [one.membership for one in hospitals])
    return made, hospitals


def command(*arguments, log):
    """A fedmedlora command as a process of its own."""
    source = str(Path(fedmedlora.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": source, "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.2"}
    with log.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "fedmedlora", *map(str, arguments)],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        )


@contextmanager
def running(hospitals, *, logs):
    """Sites that take part until the block ends: name -> process."""
    processes = {}
    try:
        for one in hospitals:
            log = logs / f"{one.name}.command.log"
            processes[one.name] = command("site", "start", one.settings, log=log)
        yield processes
    finally:
        for process in processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in processes.values():
            process.wait(timeout=60)


def wait_until(holds, *, seconds, what):
    """Wait for something that takes a while."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"no {what} after {seconds} s"
        time.sleep(0.2)


def request_of(content):
    """A message as a SuperNode hands it to its ClientApp."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 0, 0
    message = Message(content, 1, "train")
    message.metadata.__dict__["_message_id"] = "1"
    return message


def said(folder):
    """The end of what every process said, for a test that failed."""
    logs = sorted(folder.rglob("*.log"))
    return "\n".join(
        f"--- {log.relative_to(folder)}\n{log.read_text(errors='replace')[-3000:]}" for log in logs
    )
