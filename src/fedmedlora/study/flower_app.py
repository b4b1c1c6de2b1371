"""The Flower app: what a SuperLink and SuperNodes run, named in the app's pyproject.toml.

``server`` is a coordinator's: its folder is in the environment of its processes, not in the run's
configuration, which travels to the sites. ``client`` is a site's: its settings file is in its
node's configuration, which does not travel either.
"""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path

from fedmedlora.errors import ConfigError, FederationError
from fedmedlora.federation.client import PHASES
from fedmedlora.federation.deployment.layout import (
    COORDINATOR_VARIABLE,
    SETTINGS_KEY,
    SITE_KEY,
)
from fedmedlora.federation.flower import (
    ClientApp,
    Context,
    Grid,
    Message,
    RecordDict,
    ServerApp,
)
from fedmedlora.federation.statements import request_sha256
from fedmedlora.federation.wire import failure_reply, read_call


class SiteApp(ClientApp):  # type: ignore[misc]  # flwr is not followed by the type checker
    """Answers for the site whose settings its node names, by the site's own process."""

    def __call__(self, message: Message, context: Context) -> Message:
        """Answer one message; what goes wrong is told without its text."""
        try:
            from fedmedlora.study.site_process import answer_of

            return answer_of(Path(str(context.node_config[SETTINGS_KEY])), message)
        except Exception as error:  # any: Flower would send the text of one that passes here
            traceback.print_exc(file=sys.stderr)  # the log of the site's SuperExec
            return Message(_failure(message, context, error), reply_to=message)


def _failure(message: Message, context: Context, error: Exception) -> RecordDict:
    """That there is no answer, signed by the site if its settings can be read."""
    code = "process-died" if isinstance(error, FederationError) else "config"
    site = str(context.node_config.get(SITE_KEY, "?"))
    content = failure_reply(read_call(message.content), site, code=code, incident="not-logged")
    try:
        from fedmedlora.study.hosting import site_desk

        end = site_desk(Path(str(context.node_config[SETTINGS_KEY]))).end(site)
        phase = PHASES[message.metadata.message_type]
        end.seal(content, phase=phase, request=request_sha256(message.content))
    except Exception:  # any, likewise; unsigned it will not be believed
        traceback.print_exc(file=sys.stderr)
    return content


def coordinate(grid: Grid, context: Context) -> None:
    """Run the federation of the folder that the environment names."""
    folder = os.environ.get(COORDINATOR_VARIABLE)
    if not folder:
        raise ConfigError(f"{COORDINATOR_VARIABLE} is not set: it names the coordinator's folder")
    from fedmedlora.study.coordinating import run_coordinator

    run_coordinator(grid, Path(folder))


server = ServerApp()
server.main()(coordinate)
client = SiteApp()
