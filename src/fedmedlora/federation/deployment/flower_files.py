"""Flower's own files in a coordinator's folder: its configuration, and the app that it starts."""

from __future__ import annotations

from fedmedlora.durable import private_folder, replace_private
from fedmedlora.federation.deployment.layout import CONNECTION, CoordinatorFolder
from fedmedlora.federation.deployment.rendering import toml_text


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
