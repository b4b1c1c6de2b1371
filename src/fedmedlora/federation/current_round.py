"""One round while it runs: what is known of every site so far, and whether enough are left."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from fedmedlora.errors import FederationError
from fedmedlora.federation import wire
from fedmedlora.federation.contributions import Answers
from fedmedlora.federation.records import SiteRecord
from fedmedlora.federation.replies import Candidate
from fedmedlora.federation.screening import Turned
from fedmedlora.federation.secure.unmasking import Unmasking
from fedmedlora.federation.suspects import Sketch


@dataclass
class Round:
    """One round while it runs.

    Attributes:
        number: from 1.
        calls: what the messages to and from each site carry.
        quorum: fewer sites than this cannot end it.
        nonce: of its requests.
        nodes: node id -> site, of those that were asked to train.
        started: monotonic time.
        sites: what is known so far, for every expected site.
        answers: what came of them.
        sketches: of the sites' updates, to know them again.
        secure: what secure aggregation came to.
        unmasking: what unmasked its sum.
    """

    number: int
    calls: dict[str, wire.Call]
    quorum: int
    nonce: str = ""
    nodes: dict[int, str] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)
    sites: dict[str, SiteRecord] = field(default_factory=dict)
    answers: Answers = field(default_factory=Answers)
    sketches: dict[str, Sketch] = field(default_factory=dict)
    secure: Mapping[str, Any] | None = None
    unmasking: Unmasking | None = None

    def note(self, site: str, **facts: object) -> None:
        """Replace fields of a site's record."""
        self.sites[site] = replace(self.sites[site], **facts)  # type: ignore[arg-type]

    def note_stage(
        self, stage: str, turned: Mapping[str, Turned], *, sites: Iterable[str] | None = None
    ) -> None:
        """Record how sites did at a stage of secure aggregation; all that were asked by default."""
        for site in self.nodes.values() if sites is None else sites:
            fate = turned.get(site)
            told = "ok" if fate is None else f"{fate.status}: {fate.reason}"
            self.note(site, secure={**self.sites[site].secure, stage: told})

    def admit(self, site: str, candidate: Candidate) -> None:
        """Record a site whose reply is good by itself."""
        self.note(
            site,
            status="ok",
            reason=None,
            examples=candidate.examples,
            tokens=candidate.tokens,
            loss_first=candidate.loss_first,
            loss_last=candidate.loss_last,
            seconds=candidate.seconds,
            counts=dict(candidate.counts),
        )

    def turn(self, turned: Mapping[str, Turned]) -> None:
        """Record sites that do not count in this round, and why."""
        for site, fate in turned.items():
            self.note(site, status=fate.status, reason=fate.reason)

    def need_quorum(self, done: str, number: int) -> None:
        """Refuse to go on with fewer sites than the quorum.

        Args:
            done: what ``number`` sites have done.

        Raises:
            FederationError: they are too few; the message names the others.
        """
        if number < self.quorum:
            raise FederationError(
                f"round {self.number}: {number} of {len(self.sites)} sites {done}, "
                f"{self.quorum} are needed{self.lost()}"
            )

    def lost(self) -> str:
        """The sites that did not do what was asked of them so far, and why; for a message."""
        lost = []
        for site, record in self.sites.items():
            stages = [fate for fate in record.secure.values() if fate != "ok"]
            if stages:
                lost.append(f"{site} {stages[0]}")
            elif record.secure:
                continue  # it is still at it
            elif record.status != "ok":
                lost.append(f"{site} {record.status} ({record.reason})")
            elif record.scoring not in (None, "ok"):
                lost.append(f"{site} ({record.scoring})")
        return f": {'; '.join(lost)}" if lost else ""
