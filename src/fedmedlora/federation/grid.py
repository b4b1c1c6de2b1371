"""Flower's Grid for sites in this process or its children.

``InProcessGrid`` gives the same ServerApp, Strategy and ClientApp what SuperLink and SuperNodes
give them between hospitals: messages are serialised and read back on both ways, so what a site gets
shares nothing with the server.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Protocol

from fedmedlora.federation.client import Desk, client_app
from fedmedlora.federation.flower import (
    ClientApp,
    Context,
    Grid,
    Message,
    RecordDict,
    Run,
    TaskIdentity,
    from_bytes,
    to_bytes,
)


class Switch(Protocol):
    """Carries serialised messages to the sites' ClientApps.

    Attributes:
        at_once: so many requests keep it busy; more would only wait in memory.
    """

    at_once: int

    def send(self, node: int, data: bytes) -> None:
        """Hand over a request; returns at once."""
        ...

    def receive(self) -> bytes:
        """The next reply, in whatever order; called once for every request."""
        ...

    def close(self) -> None:
        """End what it started."""
        ...


def answer(app: ClientApp, node: int, nodes: int, data: bytes) -> bytes:
    """Let a ClientApp answer one serialised message, as node ``node`` (from 1) of ``nodes``."""
    message = from_bytes(data)
    context = Context(
        run_id=message.metadata.run_id,
        node_id=node,
        node_config={"partition-id": node - 1, "num-partitions": nodes},
        state=RecordDict(),
        run_config={},
    )
    reply = app(message, context)
    reply.metadata.__dict__["_message_id"] = uuid.uuid4().hex  # the SuperLink's part
    return to_bytes(reply)


class SequentialSwitch:
    """Calls the sites in this process, one after another, in the order of the requests."""

    at_once = 1

    def __init__(self, desk: Desk) -> None:
        self._app = client_app(desk)
        self._nodes = len(desk.sites)
        self._waiting: list[tuple[int, bytes]] = []

    def send(self, node: int, data: bytes) -> None:
        """Keep the request until its reply is asked for."""
        self._waiting.append((node, data))

    def receive(self) -> bytes:
        """Answer the oldest request."""
        node, data = self._waiting.pop(0)
        return answer(self._app, node, self._nodes, data)

    def close(self) -> None:
        """Forget what was not answered."""
        self._waiting.clear()


class MessageGrid(Grid):  # type: ignore[misc]  # flwr is not followed by the type checker
    """What every Grid answers alike."""

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """A message as its constructor makes it: the method is deprecated, but asked for."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)


class InProcessGrid(MessageGrid):
    """A Grid whose nodes 1 to K are the sites behind a ``Switch``."""

    def __init__(self, switch: Switch, *, nodes: int) -> None:
        self._switch = switch
        self._nodes = nodes
        self._pending: set[str] = set()
        self._run = Run.create_empty(run_id=1)
        # What Flower's Message reads to address itself; the SuperLink sets it elsewhere.
        TaskIdentity.run_id = self._run.run_id
        TaskIdentity.node_id = TaskIdentity.task_id = 0

    @property
    def at_once(self) -> int:
        """So many requests keep the switch busy."""
        return self._switch.at_once

    def set_run(self, run: Run) -> None:
        """Take the run's description."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run's description."""
        return self._run

    def get_node_ids(self) -> Iterable[int]:
        """1 to K."""
        return range(1, self._nodes + 1)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Number the messages and hand them to the switch."""
        ids = []
        for message in messages:
            message.metadata.__dict__["_message_id"] = uuid.uuid4().hex
            self._switch.send(message.metadata.dst_node_id, to_bytes(message))
            ids.append(message.metadata.message_id)
        self._pending.update(ids)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The next reply, as a list of one; waits for it. Empty if none is due."""
        if not self._pending.intersection(message_ids):
            return []
        reply = from_bytes(self._switch.receive())
        self._pending.discard(reply.metadata.reply_to_message_id)
        return [reply]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """All replies; the sites' own work is not interrupted by ``timeout``."""
        ids = set(self.push_messages(messages))
        return [reply for _ in ids for reply in self.pull_messages(ids)]
