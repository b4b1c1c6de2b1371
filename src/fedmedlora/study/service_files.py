"""Files for other programs: a coordinator's settings in; proxy, container and unit out."""

from __future__ import annotations

import os
import pwd

from fedmedlora import __version__
from fedmedlora.config_deployment import CoordinatorSettings
from fedmedlora.durable import replace_bytes
from fedmedlora.errors import ConfigError, RunError
from fedmedlora.federation.deployment.certificates import hosts_of
from fedmedlora.federation.deployment.layout import CoordinatorFolder
from fedmedlora.federation.deployment.rendering import refuse_unwritable, render
from fedmedlora.federation.deployment.services import program


def renew_services(folder: CoordinatorFolder, settings: CoordinatorSettings) -> list[str]:
    """Write the proxy's configuration and the container's, where they are not what they should be.

    Args:
        folder: the coordinator's.
        settings: as its federation.yaml has them now.

    Returns:
        names of the files that were there and said something else.

    Raises:
        ConfigError: the server's certificate is for another host, or the folder's path cannot be
            written into the files.
        RunError: a file cannot be read or written.
    """
    refuse_unwritable(folder.root)
    _refuse_another_host(folder, settings.host)
    facts = {
        **settings.model_dump(),
        "version": __version__,
        "folder": folder.root,
        "state": folder.state,
        "logs": folder.logs,
        "keys": folder.keys,
        "authority": folder.authority,
        "public_port": settings.public_port,
        "uid": os.getuid(),
        "gid": os.getgid(),
    }
    changed = []
    for path in (folder.proxy, folder.compose):
        text = render(path.name, **facts).encode()
        try:
            before = path.read_bytes() if path.exists() else None
        except OSError as error:
            raise RunError(f"cannot read {path}: {error.strerror}") from error
        if before != text:
            replace_bytes(path, text)
        if before not in (None, text):
            changed.append(path.name)
    return changed


def unit_text(folder: CoordinatorFolder, *, study: str) -> str:
    """The coordinator's systemd unit, for who calls this and where this is installed."""
    facts = {"study": study, "folder": folder.root, "user": _own_name()}
    return render(folder.unit.name, **facts, command=_own_command())


def _refuse_another_host(folder: CoordinatorFolder, host: str) -> None:
    certificate = folder.keys / "server.pem"
    try:
        hosts = hosts_of(certificate.read_bytes())
    except OSError as error:
        raise RunError(f"cannot read {certificate}: {error.strerror}") from error
    if host not in hosts:
        raise ConfigError(
            f"{folder.settings}: host: {host!r} is none that the server's certificate names "
            f"({', '.join(hosts)}), so that no site would believe it; write that again, or found "
            "a federation anew with `federation init`"
        )


def _own_name() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # as in a container
        return str(os.getuid())


def _own_command() -> str:
    try:
        return program("fedmedlora")
    except RunError:
        return "fedmedlora"
