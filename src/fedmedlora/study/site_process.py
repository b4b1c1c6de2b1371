"""A site's own process, that keeps its backbone loaded: messages in, replies out, one at a time.

Flower starts a process for every message. That one hands the message over to this one, which
``site start`` runs beside the SuperNode, and waits for the reply; a process for each would load
the backbone anew each time.

    python -m fedmedlora.study.site_process SITE.yaml
"""

from __future__ import annotations

import json
import os
import secrets
import sys
import time
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Listener
from pathlib import Path

from fedmedlora.config_deployment import load_site
from fedmedlora.durable import write_private
from fedmedlora.errors import FederationError
from fedmedlora.federation.client import client_app
from fedmedlora.federation.flower import Context, Message, RecordDict, from_bytes, to_bytes
from fedmedlora.study.hosting import site_desk

_FILE = "worker.json"
#: The process may just be starting.
_START_S = 120.0
_GONE = (OSError, EOFError, AuthenticationError)


def serve(file: Path) -> None:
    """Answer until this process is ended.

    Args:
        file: the site's settings.

    Raises:
        ConfigError: they are wrong.
        RunError: the work folder cannot be written.
    """
    desk = site_desk(file)
    app = client_app(desk)
    context = Context(0, 0, {"site": desk.sites[0]}, RecordDict(), {})
    secret = secrets.token_hex(32)
    with Listener(("127.0.0.1", 0), authkey=bytes.fromhex(secret)) as listener:
        place = _place(file)
        place.unlink(missing_ok=True)
        told = {"port": listener.address[1], "secret": secret, "pid": os.getpid()}
        write_private(place, json.dumps(told).encode())
        while True:
            try:
                with listener.accept() as pipe:
                    reply = app(from_bytes(pipe.recv_bytes()), context)
                    reply.metadata.__dict__["_message_id"] = "answered"
                    pipe.send_bytes(to_bytes(reply))
            except _GONE:  # who asked is gone, or is nobody that may ask
                continue


def answer_of(file: Path, message: Message) -> Message:
    """The reply of a site's process to a message.

    Raises:
        FederationError: there is no such process, or it ended while it worked.
    """
    deadline = time.monotonic() + _START_S
    while True:
        try:
            told = json.loads(_place(file).read_text(encoding="ascii"))
            pipe = Client(("127.0.0.1", told["port"]), authkey=bytes.fromhex(told["secret"]))
            break
        except (*_GONE, ValueError) as error:
            if time.monotonic() > deadline:
                raise FederationError("the site's process is not there; see its log") from error
            time.sleep(0.2)
    with pipe:
        try:
            pipe.send_bytes(to_bytes(message))
            return from_bytes(pipe.recv_bytes())
        except (OSError, EOFError) as error:
            raise FederationError("the site's process ended while it worked") from error


def _place(file: Path) -> Path:
    """Where the process says how it is asked."""
    return file.parent / load_site(file).work / _FILE


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
