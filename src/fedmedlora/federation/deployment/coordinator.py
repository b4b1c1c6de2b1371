"""The coordinator's processes: its folder in, SuperLink, SuperExec and proxy out."""

from __future__ import annotations

from collections.abc import Mapping

from fedmedlora.federation.deployment.layout import CoordinatorFolder
from fedmedlora.federation.deployment.services import Service, flower_environment, program


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
