"""Flower's Grid, two ways: sites in this process or its children, and a counter around any Grid.

``InProcessGrid`` gives the same ServerApp, Strategy and ClientApp what SuperLink and SuperNodes
give them between hospitals: messages are serialised and read back on both ways, so what a site gets
shares nothing with the server. ``CountedGrid`` measures what really travels, on any engine.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from fedmedlora.errors import FederationError
from fedmedlora.federation.client import Desk, client_app
from fedmedlora.federation.flower import (
    ClientApp,
    Context,
    Grid,
    Message,
    Metadata,
    RecordDict,
    Run,
    TaskIdentity,
    from_bytes,
    to_bytes,
)

POLL_S = 0.1


class RunStopped(FederationError):
    """The run was stopped before all sites had answered."""


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


class _MessageGrid(Grid):  # type: ignore[misc]  # flwr is not followed by the type checker
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


class InProcessGrid(_MessageGrid):
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


@dataclass(frozen=True)
class Exchange:
    """What one request and its reply weighed: bytes of the serialised messages."""

    down: int
    up: int


class CountedGrid(_MessageGrid):
    """Any Grid, with the bytes of every message counted, and a way to stop waiting.

    A reply that comes after its ``send_and_receive`` has ended is told to ``on_late`` and given to
    nobody.

    Attributes:
        exchanges: node id -> bytes of the latest ``send_and_receive``.
        asked: message id -> metadata, of requests that may still be answered.
        on_late: told the metadata of a request whose reply came late.

    Args:
        grid: the Grid.
        stop: ends the waiting when it is set.
        on_reply: told (node, bytes, seconds since the requests) of every reply.
        poll_s: seconds between two questions for replies.
    """

    def __init__(
        self,
        grid: Grid,
        *,
        stop: threading.Event | None = None,
        on_reply: Callable[[int, Exchange, float], None] | None = None,
        poll_s: float = POLL_S,
    ) -> None:
        self._grid = grid
        self._poll_s = poll_s
        self._stop = stop or threading.Event()
        self._on_reply = on_reply
        self.exchanges: dict[int, Exchange] = {}
        self.on_late: Callable[[Metadata], None] | None = None
        self.asked: dict[str, Metadata] = {}
        self._late: set[str] = set()

    def set_run(self, run: Run) -> None:
        """Pass the run on."""
        self._grid.set_run(run)

    @property
    def run(self) -> Run:
        """The inner Grid's run."""
        return self._grid.run

    @property
    def is_local(self) -> bool:
        """Whether the inner Grid calls the sites itself, so that all are waited for."""
        return hasattr(self._grid, "at_once")

    def get_node_ids(self) -> Iterable[int]:
        """The inner Grid's nodes, in ascending order."""
        return sorted(self._grid.get_node_ids())

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Pass messages on, uncounted."""
        ids: Iterable[str] = self._grid.push_messages(messages)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Pull replies, uncounted."""
        replies: Iterable[Message] = self._grid.pull_messages(message_ids)
        return replies

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterator[Message]:
        """Send requests, give their replies as they come, count the bytes of both.

        Where nobody can be late and the inner Grid says how many requests keep it busy, the next is
        made and sent when one is answered, so that few are in memory.

        Args:
            messages: requests, at most one a node; may be lazy.
            timeout: seconds; ``None`` waits for ever.

        Raises:
            RunStopped: the run was stopped meanwhile.
        """
        # Where time is short everybody gets theirs at once.
        at_once: int | None = getattr(self._grid, "at_once", None) if timeout is None else None
        left = iter(messages)
        started = time.monotonic()
        pending: set[str] = set()
        self._drop_late()
        self.exchanges = {}
        while timeout is None or time.monotonic() - started < timeout:
            pending |= self._push(islice(left, at_once and at_once - len(pending)))
            if not pending:
                break
            if self._stop.is_set():
                raise RunStopped("the run was stopped before all sites had answered")
            got = self._pull(pending, started)
            yield from got
            if not got:
                time.sleep(self._poll_s)
        # What came in time may have waited while others were looked at.
        yield from self._pull(pending, started)
        self._late |= pending
        self._drop_late()
        self.asked = {n: asked for n, asked in self.asked.items() if n in self._late}

    def _drop_late(self) -> None:
        """Take what came too late from the inner Grid, and tell of it; what cannot come is
        forgotten."""
        now = time.time()
        for number in list(self._late):
            asked = self.asked.get(number)
            if asked is None or asked.created_at + asked.ttl < now:
                self._late.discard(number)
        if not self._late:
            return
        for reply in self._grid.pull_messages(set(self._late)):
            number = reply.metadata.reply_to_message_id
            self._late.discard(number)
            asked = self.asked.get(number)
            # An error says that it is not there any more.
            if asked is not None and not reply.has_error() and self.on_late is not None:
                self.on_late(asked)

    def _push(self, messages: Iterable[Message]) -> set[str]:
        requests = list(messages)
        if not requests:
            return set()
        ids = {number for number in self._grid.push_messages(requests) if number}
        # After pushing: only then do the requests carry the ids that travel with them.
        for message in requests:
            node = message.metadata.dst_node_id
            self.exchanges[node] = Exchange(len(to_bytes(message)), 0)
            self.asked[message.metadata.message_id] = message.metadata
        return ids

    def _pull(self, pending: set[str], started: float) -> list[Message]:
        got = list(self._grid.pull_messages(pending)) if pending else []
        for reply in got:
            pending.discard(reply.metadata.reply_to_message_id)
            self._count(reply, seconds=time.monotonic() - started)
        return got

    def _count(self, reply: Message, *, seconds: float) -> None:
        node = reply.metadata.src_node_id
        if node not in self.exchanges:
            return
        before = self.exchanges[node]
        self.exchanges[node] = Exchange(before.down, before.up + len(to_bytes(reply)))
        if self._on_reply is not None:
            self._on_reply(node, self.exchanges[node], seconds)
