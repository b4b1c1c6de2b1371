"""A round's small stages, from the coordinator's end: who answers what is checked and passed on.

Enters: a way to ask sites, and their masked rows. Leaves: the weighted mean of their updates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from typing import Any, Protocol

from fedmedlora.aggregation.ring import Mean
from fedmedlora.errors import FederationError
from fedmedlora.federation.flower import RecordDict
from fedmedlora.federation.secure import messages
from fedmedlora.federation.secure.coordinator import SecureSum
from fedmedlora.federation.secure.options import Terms
from fedmedlora.federation.secure.roster import Advertisement, Attempt
from fedmedlora.federation.secure.site import Revealed
from fedmedlora.federation.secure.unmasking import Unmasking
from fedmedlora.federation.spool import Spooled
from fedmedlora.federation.statements import Phase


class Ask(Protocol):
    """Sends requests to sites and has their replies read.

    ``read`` raises FederationError for what is to be refused.

    Returns:
        what was read of every good reply, by site.
    """

    def __call__(
        self,
        phase: Phase,
        requests: Mapping[str, RecordDict],
        read: Callable[[RecordDict, str], Any],
        /,
    ) -> Mapping[str, Any]: ...


class SecureRound:
    """One attempt at a round.

    Attributes:
        sum: what has come of it so far.
        answered: stage -> the sites that have answered it well.
        left_out: who has advertised keys, and was not in the sum of this round that was unmasked in
            an earlier attempt.
        unmasking: what unmasked the sum, once it is.

    Args:
        terms: of the federation.
        attempt: it.
        ask: how sites are asked.
    """

    def __init__(self, terms: Terms, attempt: Attempt, ask: Ask) -> None:
        self.sum = SecureSum(terms, attempt)
        self.answered: dict[str, tuple[str, ...]] = {}
        self.left_out: tuple[str, ...] = ()
        self.unmasking: Unmasking | None = None
        self._attempt, self._ask = attempt, ask

    def open(self, sites: Iterable[str]) -> tuple[str, ...]:
        """Have sites advertise and share keys.

        Returns:
            those that can be asked to train.

        Raises:
            FederationError: too few are left.
        """
        total, attempt = self.sum, self._attempt

        def keys(content: RecordDict, site: str) -> tuple[Advertisement, tuple[str, ...]]:
            one, bound = messages.read_keys(content, site)
            total.check_keys(site, one)
            return one, bound

        asked = {site: messages.request(attempt) for site in sites}
        found = self._stage("keys", asked, keys)
        for site, (one, _) in found.items():
            total.admit_keys(site, one)
        self._keep_to({bound for _, bound in found.values() if bound})
        roster = total.close_keys()
        self.left_out = tuple(site for site in found if site not in roster.sites)

        def parcels(content: RecordDict, site: str) -> dict[str, bytes]:
            sealed = messages.read_parcels(content)
            total.check_parcels(site, sealed)
            return sealed

        asked = {site: messages.shares_request(attempt, roster.entries) for site in roster.sites}
        for site, sealed in self._stage("shares", asked, parcels).items():
            total.admit_parcels(site, sealed)
        return total.shared

    def _keep_to(self, bounds: Set[tuple[str, ...]]) -> None:
        """Leave out who was not in the sum of this round that was unmasked before."""
        if len(bounds) > 1:
            raise FederationError(
                "sites say that they have unmasked sums of different sites in this round before"
            )
        for bound in bounds:
            self.sum.leave_out(bound)

    def with_parcels(
        self, requests: Iterable[tuple[str, RecordDict]]
    ) -> Iterator[tuple[str, RecordDict]]:
        """Requests to train, each with what the others have sealed for its site."""
        for site, content in requests:
            self.sum.ask(messages.asked_sha256(content))
            messages.put_parcels(content, self.sum.parcels_for(site))
            yield site, content

    def close(self, rows: Mapping[str, Spooled]) -> Mean:
        """Take the masked rows, have survivors agree on whose they are, and unmask the sum.

        Args:
            rows: by site.

        Raises:
            FederationError: too few sites are left, or the sum is of no honest rows.
        """
        total, attempt = self.sum, self._attempt
        for site, row in rows.items():
            total.add(site, row.read())
        survivors = total.close_rows()
        self.answered["train"] = survivors.sites

        def agreed(content: RecordDict, site: str) -> str:
            signature = messages.read_agreed(content)
            survivors.check_signature(site, signature)
            return signature

        asked = {s: messages.agree_request(attempt, survivors.sites) for s in survivors.sites}
        for site, signature in self._stage("agree", asked, agreed).items():
            total.admit_signature(site, signature)
        signatures = total.signatures

        def shares(content: RecordDict, site: str) -> Revealed:
            revealed = messages.read_revealed(content)
            total.check_shares(site, revealed)
            return revealed

        asked = {site: messages.unmask_request(attempt, signatures) for site, _ in signatures}
        for site, revealed in self._stage("unmask", asked, shares).items():
            total.admit_shares(site, revealed)
        self.unmasking = total.revealed()
        return total.unmask()

    def _stage(
        self,
        phase: Phase,
        requests: Mapping[str, RecordDict],
        read: Callable[[RecordDict, str], Any],
    ) -> Mapping[str, Any]:
        found = self._ask(phase, requests, read)
        self.answered[phase] = tuple(found)
        return found

    def record(self, mean: Mean) -> dict[str, Any]:
        """What the round's record says of it."""
        return {
            "threshold": self.sum.terms.threshold,
            "weight": mean.weight,
            "error": mean.error,
            "answered": {phase: list(sites) for phase, sites in self.answered.items()},
        }
