"""A site's processes: its folder in, a SuperNode and its SuperExec out; both only call out."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Mapping
from pathlib import Path

from fedmedlora.durable import replace_private
from fedmedlora.federation.deployment.layout import SiteFolder
from fedmedlora.federation.deployment.rendering import toml_text
from fedmedlora.federation.deployment.services import Service, flower_environment, program


def site_services(
    folder: SiteFolder,
    *,
    coordinator: str,
    port: int,
    work: Path,
    node: Mapping[str, str],
    environment: Mapping[str, str],
) -> list[Service]:
    """SuperNode and SuperExec of a site.

    Args:
        folder: the site's.
        coordinator: host:port.
        port: of the SuperNode's own API, on loopback alone.
        work: folder for what Flower unpacks.
        node: the node's configuration, which stays here.
        environment: of the ClientApp, beside Flower's.

    Raises:
        RunError: a program is not installed, or the folder cannot be written.
    """
    around = flower_environment(work / "flwr", environment)
    secret, settings = work / "superexec.secret", work / "node.toml"
    replace_private(secret, secrets.token_bytes(32))
    # In a file: on the command line Flower cannot read a text with quotes in it.
    lines = [f"{name} = {toml_text(value)}\n" for name, value in node.items()]
    replace_private(settings, "".join(lines).encode())
    supernode = (
        sys.executable,
        "-m", "fedmedlora.federation.deployment.supernode",
        "--superlink", coordinator,
        "--root-certificates", str(folder.authority),
        "--auth-supernode-private-key", str(folder.node_key),
        "--host", "127.0.0.1",
        "--port", str(port),
        "--isolation", "process",
        "--superexec-auth-secret-file", str(secret),
        "--node-config", str(settings),
    )  # fmt: skip
    superexec = (
        program("flower-superexec"),
        "--insecure",  # on loopback, with a secret
        "--runtime-api-address", f"127.0.0.1:{port}",
        "--superexec-auth-secret-file", str(secret),
    )  # fmt: skip
    return [Service("supernode", supernode, around), Service("superexec", superexec, around)]
