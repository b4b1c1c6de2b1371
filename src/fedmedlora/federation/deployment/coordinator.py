"""The coordinator's processes, and Flower's commands about them: a folder in, a run started out."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedmedlora.durable import private_folder, replace_private
from fedmedlora.errors import RunError
from fedmedlora.federation.deployment.layout import CONNECTION, CoordinatorFolder
from fedmedlora.federation.deployment.rendering import toml_text
from fedmedlora.federation.deployment.services import Service, flower_environment, program

_COMMAND_S = 120.0
_JSON = ("--format", "json")


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
    """Make the sites' public keys known to the SuperLink, each once, and others that they had not.

    Args:
        folder: the coordinator's.
        sites: all admitted.

    Raises:
        RunError: Flower refuses one.
    """
    for site in sites:
        note, key = folder.registered / site, folder.node_public(site)
        before, now = _noted(note), key.read_text(encoding="ascii").strip()
        if before.get("key") == now:
            continue
        if before:
            _unregister(folder, site, before)
        done = _call(
            folder, ["supernode", "register", str(key), CONNECTION, "--name", site, *_JSON]
        )
        node = _answer(done).get("node-id")
        # Known: this process was ended before it could note it.
        if node is None and "already in use" not in _last_lines(done).lower():
            raise RunError(f"the SuperLink does not register site {site!r}: {_last_lines(done)}")
        replace_private(note, json.dumps({"key": now, "node": node}).encode())


def _noted(note: Path) -> dict[str, Any]:
    """The key that the SuperLink knows a site by, and its number for it; {} if it knows none."""
    try:
        content = json.loads(note.read_text(encoding="ascii"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise RunError(f"{note} cannot be read; remove {note.parents[1]}") from error
    return dict(content)


def _unregister(folder: CoordinatorFolder, site: str, known: Mapping[str, Any]) -> None:
    if known.get("node") is None:
        raise RunError(
            f"the SuperLink knows site {site!r} by another key; remove {folder.state}, so that it "
            "begins anew (no round is lost)"
        )
    arguments = ["supernode", "unregister", str(known["node"]), CONNECTION, *_JSON]
    done = _call(folder, arguments)
    if not _answer(done).get("success"):
        raise RunError(
            f"the SuperLink does not forget the key before of site {site!r}: {_last_lines(done)}"
        )


def start_run(folder: CoordinatorFolder) -> str:
    """Hand the app to the SuperLink; returns the run's number there.

    Raises:
        RunError: it refuses.
    """
    done = _call(folder, ["run", str(folder.app), CONNECTION, *_JSON])
    told = _answer(done)
    if told.get("success") and "run-id" in told:
        return str(told["run-id"])
    raise RunError(f"the SuperLink does not start the run: {_last_lines(done)}")


def stop_run(folder: CoordinatorFolder, run: str) -> None:
    """Let the SuperLink forget a run; one that has ended already is no fault."""
    _call(folder, ["stop", run, CONNECTION])


def _answer(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """What Flower answers in JSON; {} if it answers something else."""
    try:
        told = json.loads(done.stdout[done.stdout.index("{") :])
    except ValueError:
        return {}
    return dict(told)


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
        f"root-certificates = {toml_text(folder.authority)}\n"
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
    private_folder(folder.flower_home)
    private_folder(folder.app)
    settings = flower_configuration(folder, port=port)
    replace_private(folder.flower_home / "config.toml", settings.encode())
    replace_private(folder.app / "pyproject.toml", app.encode())
