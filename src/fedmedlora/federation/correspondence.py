"""What the coordinator sends to the sites of a round and gets back: addressed, logged, counted.

Enters: contents of requests. Leaves: messages and their replies, in whatever order they come; bytes
in the round's record, entries in the audit log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial

from fedmedlora.federation.client import MESSAGE_TYPES, PHASES
from fedmedlora.federation.counted_grid import CountedGrid
from fedmedlora.federation.current_round import Round
from fedmedlora.federation.ends import CoordinatorEnd
from fedmedlora.federation.flower import Message, Metadata, RecordDict
from fedmedlora.federation.plan import FederationPlan, OnEvent
from fedmedlora.federation.screening import Check, Turned
from fedmedlora.federation.statements import Phase


class Correspondence:
    """Messages to and from the sites of a federation, round by round.

    Attributes:
        round: whose messages they are; set by who runs the rounds.

    Args:
        plan: with the time limit of a phase.
        grid: where the nodes are; it is told where late answers go.
        end: signs, checks and logs.
        site_of: node -> the site that it speaks for, "" for none.
        on_event: told ("late", site, round, phase).
    """

    def __init__(
        self,
        plan: FederationPlan,
        grid: CountedGrid,
        *,
        end: CoordinatorEnd,
        site_of: Callable[[int], str],
        on_event: OnEvent | None = None,
    ) -> None:
        self._plan, self._grid, self._end = plan, grid, end
        self._site_of, self._on_event = site_of, on_event
        self.round: Round
        grid.on_late = self._note_late

    def message(self, phase: Phase, content: RecordDict, *, site: str, node: int) -> Message:
        """A request, ready to be sent.

        Raises:
            RunError: it cannot be logged.
        """
        content = self._end.address(content, phase=phase, node=node, site=site)
        group = str(self.round.number)
        return Message(content, node, MESSAGE_TYPES[phase], ttl=self._plan.ttl_s, group_id=group)

    def ask(self, phase: Phase, requests: Iterable[tuple[str, RecordDict]]) -> Iterator[Message]:
        """Send requests, made when they are due, to sites of the round; their replies.

        Args:
            phase: what is asked for.
            requests: site and content.
        """
        nodes = {site: node for node, site in self.round.nodes.items()}
        messages = (
            self.message(phase, content, site=site, node=nodes[site]) for site, content in requests
        )
        return self._grid.send_and_receive(messages, timeout=self._plan.timeout_s)

    def check(self, phase: Phase) -> Check:
        """Says whether a reply is its site's own, to what it was asked in this phase."""
        return partial(self._end.check, phase=phase)

    def close(self, phase: Phase, turned: Mapping[str, Turned]) -> None:
        """Log what became of the replies of a phase; those who are not in ``turned`` are good."""
        good = Turned("ok", "")
        for site in self.round.nodes.values():
            fate = turned.get(site, good)
            self._end.record(
                site,
                phase=phase,
                round=self.round.number,
                status=fate.status,
                reason=fate.reason or None,
            )

    def count(self, phase: Phase) -> None:
        """Add the bytes of the latest exchange to the sites' records."""
        for node, exchange in self._grid.exchanges.items():
            site = self.round.nodes.get(node)
            if site is None:
                continue
            record = self.round.sites[site]
            if record.reason == "not connected":
                self.round.note(site, reason="no answer")
            self.round.note(
                site,
                bytes_down=record.bytes_down + exchange.down,
                bytes_up=record.bytes_up + exchange.up,
                phases={**record.phases, phase: (exchange.down, exchange.up)},
            )

    def _note_late(self, request: Metadata) -> None:
        """An answer came after its round's deadline: it is named, and counts nowhere."""
        site, number = self._site_of(request.dst_node_id), int(request.group_id or 0)
        phase = PHASES[request.message_type]
        self._end.record_late(site, phase=phase, round=number)
        if site and number:
            late = {**self.round.sites[site].late, phase: number}
            self.round.note(site, late=late)
            if self._on_event is not None:
                self._on_event("late", site=site, round=number, phase=phase)
