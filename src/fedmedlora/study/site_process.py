"""A site's own process, that keeps its backbone loaded: messages in, replies out, one at a time.

Flower starts a process for every message. That one hands the message over to this one, which
``site start`` runs beside the SuperNode, and waits for the reply; a process for each would load
the backbone anew each time. They meet at a socket in a folder that nobody else on the machine can
enter, so that nobody else can keep it waiting.

WORK/worker/socket, secret

    python -m fedmedlora.study.site_process SITE.yaml
"""

from __future__ import annotations

import os
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path

from fedmedlora.config_deployment import load_site
from fedmedlora.durable import private_folder, write_private
from fedmedlora.errors import FederationError
from fedmedlora.federation.client import client_app
from fedmedlora.federation.flower import Context, Message, RecordDict, from_bytes, to_bytes
from fedmedlora.study.hosting import site_desk

_FOLDER, _SOCKET, _SECRET = "worker", "socket", "secret"
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
    secret, place = secrets.token_bytes(32), _place(file)
    private_folder(place)
    place.chmod(0o700)
    for name in (_SOCKET, _SECRET):  # of a process before
        (place / name).unlink(missing_ok=True)
    write_private(place / _SECRET, secret)
    with _address(place) as address, Listener(address, "AF_UNIX", authkey=secret) as listener:
        while True:
            try:
                with listener.accept() as pipe:
                    reply = app(from_bytes(pipe.recv_bytes()), context)
                    reply.metadata.__dict__["_message_id"] = "answered"
                    pipe.send_bytes(to_bytes(reply))
            except _GONE:  # who asked is gone, or is nobody that may ask
                continue


def answer_of(file: Path, message: Message) -> Message:
    """The reply of a site's process to a message; one that ends while it works is asked once more.

    It makes the round again from what it kept before it, as after a lost answer.

    Raises:
        FederationError: there is no such process, or it ended both times.
    """
    for _ in range(2):
        with _connected(_place(file)) as pipe:
            try:
                pipe.send_bytes(to_bytes(message))
                return from_bytes(pipe.recv_bytes())
            except (OSError, EOFError):  # killed: `site start` starts another in its place
                continue
    raise FederationError("the site's process ended while it worked, twice; see its log")


def _connected(place: Path) -> Connection:
    deadline = time.monotonic() + _START_S
    while True:
        try:
            secret = (place / _SECRET).read_bytes()
            with _address(place) as address:
                return Client(address, "AF_UNIX", authkey=secret)
        except (EOFError, ConnectionResetError):
            # It ended while this one waited behind another message; that may have been for long.
            deadline = time.monotonic() + _START_S
        except (OSError, AuthenticationError) as error:
            if time.monotonic() > deadline:
                raise FederationError("the site's process is not there; see its log") from error
        time.sleep(0.2)


def _place(file: Path) -> Path:
    """The folder where the process is met."""
    return file.parent / load_site(file).work / _FOLDER


@contextmanager
def _address(place: Path) -> Iterator[str]:
    """A socket's address by an open folder: as a path it could have 107 bytes at most."""
    handle = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{handle}/{_SOCKET}"
    finally:
        os.close(handle)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
