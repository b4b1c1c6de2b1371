"""The coordinator's processes, and Flower's commands about them: a folder in, a run started out."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from fedmedlora.durable import write_bytes
from fedmedlora.errors import RunError
from fedmedlora.federation.deployment.layout import CONNECTION, CoordinatorFolder
from fedmedlora.federation.deployment.services import Service, flower_environment, program

_COMMAND_S = 120.0


def coordinator_services(
    folder: CoordinatorFolder, *, port: int, proxy: bool, environment: Mapping[str, str]
) -> list[Service]:
    """SuperLink, SuperExec and, if wanted, the proxy.

    Args:
        folder: the coordinator's.
        port: of the SuperLink; on loopback alone behind a proxy.
        proxy: whether nginx stands before it.
        environment: of the ServerApp, beside Flower's.

    Raises:
        RunError: a program is not installed.
    """
    around = flower_environment(folder.flower_home, environment)
    server, keys = ("127.0.0.1" if proxy else "0.0.0.0"), folder.keys
    superlink = (
        program("flower-superlink"),
        "--host", server,
        "--port", str(port),
        "--ssl-certfile", str(keys / "server.pem"),
        "--ssl-keyfile", str(keys / "server.key"),
        "--ssl-ca-certfile", str(folder.authority),
        "--enable-supernode-auth",
        "--isolation", "process",
        "--superexec-auth-secret-file", str(folder.secret),
        "--database", str(folder.database),
        "--disable-runtime-dependency-installation",
    )  # fmt: skip
    superexec = (
        program("flower-superexec"),
        "--runtime-api-address", f"127.0.0.1:{port}",
        "--root-certificates", str(folder.authority),
        "--superexec-auth-secret-file", str(folder.secret),
    )  # fmt: skip
    services = [
        Service("superlink", superlink, around),
        Service("superexec", superexec, around),
    ]
    if proxy:
        command = (program("nginx"), "-p", str(folder.state), "-c", str(folder.proxy))
        services.append(Service("proxy", command))
    return services


def register_sites(folder: CoordinatorFolder, sites: Sequence[str]) -> None:
    """Make the sites' public keys known to the SuperLink, each once.

    Raises:
        RunError: Flower refuses one.
    """
    folder.registered.mkdir(parents=True, exist_ok=True)
    for site in sites:
        if (folder.registered / site).exists():
            continue
        key = folder.sites / f"{site}.node.pub"
        said = _flwr(folder, ["supernode", "register", str(key), CONNECTION, "--name", site])
        # Known: this process was ended before it could note it.
        if said is not None and "already in use" not in said.lower():
            raise RunError(f"the SuperLink does not register site {site!r}: {said}")
        write_bytes(folder.registered / site, b"")


def start_run(folder: CoordinatorFolder) -> str:
    """Hand the app to the SuperLink; returns the run's number there.

    Raises:
        RunError: it refuses.
    """
    arguments = ["run", str(folder.app), CONNECTION, "--format", "json"]
    done = _call(folder, arguments)
    try:
        told = json.loads(done.stdout[done.stdout.index("{") :])
        if told["success"]:
            return str(told["run-id"])
    except (ValueError, KeyError, TypeError):
        pass
    raise RunError(f"the SuperLink does not start the run: {_last_lines(done)}")


def stop_run(folder: CoordinatorFolder, run: str) -> None:
    """Let the SuperLink forget a run; one that has ended already is no fault."""
    _flwr(folder, ["stop", run, CONNECTION])


def _flwr(folder: CoordinatorFolder, arguments: Sequence[str]) -> str | None:
    """None if all is well, else what it says."""
    done = _call(folder, arguments)
    return None if done.returncode == 0 else _last_lines(done)


def _call(folder: CoordinatorFolder, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
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


def _last_lines(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line.strip() for line in (done.stderr + done.stdout).splitlines() if line.strip()]
    return " ".join(lines[-4:])[-400:]


def flower_configuration(folder: CoordinatorFolder, *, port: int) -> str:
    """The text of Flower's own configuration file."""
    return (
        f'[superlink]\ndefault = "{CONNECTION}"\n\n[superlink.{CONNECTION}]\n'
        f'address = "127.0.0.1:{port}"\n'
        f"root-certificates = {json.dumps(str(folder.authority))}\n"
    )


def app_configuration(*, version: str, server: str, client: str) -> str:
    """The text of the Flower app's pyproject.toml.

    Args:
        version: of the app.
        server, client: ``module:name`` of a ServerApp and a ClientApp that are installed.
    """
    return f"""# The app that SuperLink and SuperNodes run: it names what is installed everywhere.
[project]
name = "fedmedlora"
version = "{version}"
description = "One federation of fedmedlora"
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "fedmedlora"

[tool.flwr.app.components]
serverapp = "{server}"
clientapp = "{client}"
"""


def write_flower_files(folder: CoordinatorFolder, *, port: int, app: str) -> None:
    """Write Flower's configuration and the app, for the folder's present place and port."""
    folder.flower_home.mkdir(parents=True, exist_ok=True)
    folder.app.mkdir(parents=True, exist_ok=True)
    _write(folder.flower_home / "config.toml", flower_configuration(folder, port=port))
    _write(folder.app / "pyproject.toml", app)


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error.strerror}") from error
