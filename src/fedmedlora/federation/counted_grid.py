"""Any Grid, with the bytes of its messages counted, late answers told, and a way to stop it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from fedmedlora.errors import FederationError
from fedmedlora.federation.flower import Grid, Message, Metadata, Run, to_bytes
from fedmedlora.federation.grid import MessageGrid

POLL_S = 0.1


class RunStopped(FederationError):
    """The run was stopped before all sites had answered."""


@dataclass(frozen=True)
class Exchange:
    """What one request and its reply weighed: bytes of the serialised messages."""

    down: int
    up: int


class CountedGrid(MessageGrid):
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
