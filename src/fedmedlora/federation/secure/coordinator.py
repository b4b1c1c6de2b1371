"""The coordinator's part of one attempt at a round: what sites sent in, the sum of survivors out.

It checks whatever it can: an honest coordinator then knows of whom a fault came. What it is given
determines no site's row until the threshold of sites has revealed its shares.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fedmedlora.aggregation.ring import Mean, Row
from fedmedlora.errors import FederationError
from fedmedlora.federation.secure.keys import SHARE_BYTES, is_share, join
from fedmedlora.federation.secure.options import Terms
from fedmedlora.federation.secure.roster import (
    Advertisement,
    Attempt,
    Roster,
    Survivors,
    check_advertisement,
)
from fedmedlora.federation.secure.site import Revealed
from fedmedlora.federation.secure.unmasking import Unmasking

#: Of a sealed parcel: nonce, two shares, tag.
PARCEL_BYTES = 12 + 2 * SHARE_BYTES + 16


class SecureSum:
    """One attempt.

    Attributes:
        terms: of the federation.
        attempt: it.
    """

    def __init__(self, terms: Terms, attempt: Attempt) -> None:
        self.terms, self.attempt = terms, attempt
        self._advertised: dict[str, Advertisement] = {}
        self._roster: Roster | None = None
        self._parcels: dict[str, dict[str, bytes]] = {}
        self._asked = ""
        self._total: Row | None = None
        self._sent: set[str] = set()
        self._survivors: Survivors | None = None
        self._signatures: dict[str, str] = {}
        self._revealed: dict[str, Revealed] = {}

    # Keys

    def check_keys(self, site: str, one: Advertisement) -> None:
        """Refuse keys that are not a site's own.

        Raises:
            FederationError: they are not.
        """
        if one.site != site:
            raise FederationError("it has advertised keys of another site")
        check_advertisement(self.terms, self.attempt, one)

    def admit_keys(self, site: str, one: Advertisement) -> None:
        """Take a site's keys; errors as of ``check_keys``."""
        self.check_keys(site, one)
        self._advertised[site] = one

    def leave_out(self, but: Iterable[str]) -> None:
        """Forget the keys of all sites but these."""
        self._advertised = {s: one for s, one in self._advertised.items() if s in set(but)}

    def close_keys(self) -> Roster:
        """The roster; nobody can join after it.

        Raises:
            FederationError: too few have advertised keys.
        """
        entries = [self._advertised[s] for s in self.terms.sites if s in self._advertised]
        self._roster = Roster(self.terms, self.attempt, tuple(entries))
        return self._roster

    @property
    def roster(self) -> Roster:
        """Who takes part."""
        if self._roster is None:
            raise FederationError("keys are still awaited")
        return self._roster

    # Shares

    def check_parcels(self, site: str, parcels: Mapping[str, bytes]) -> None:
        """Refuse what is not one sealed parcel for each other site.

        Raises:
            FederationError: it is not.
        """
        if set(parcels) != set(self.roster.sites) - {site}:
            raise FederationError("it has not sealed one parcel for every other site")
        if any(not isinstance(p, bytes) or len(p) != PARCEL_BYTES for p in parcels.values()):
            raise FederationError("what it has sealed has not the size of two shares")

    def admit_parcels(self, site: str, parcels: Mapping[str, bytes]) -> None:
        """Take what a site has sealed for the others; errors as of ``check_parcels``."""
        self.check_parcels(site, parcels)
        self._parcels[site] = dict(parcels)

    @property
    def shared(self) -> tuple[str, ...]:
        """Who has shared its keys.

        Raises:
            FederationError: they are too few.
        """
        found = self.roster.ordered(self._parcels)
        self.terms.need(len(found), "have shared their keys")
        return found

    def parcels_for(self, site: str) -> dict[str, bytes]:
        """Sender -> what it has sealed for a site."""
        return {one: self._parcels[one][site] for one in self.shared if one != site}

    # Rows

    def ask(self, asked: str) -> None:
        """Note what a site is asked to train.

        Args:
            asked: hash of it.

        Raises:
            FederationError: another was asked for something else: no sum would come of that.
        """
        if self._asked not in ("", asked):
            raise FederationError("sites were to be asked to train different things")
        self._asked = asked

    def add(self, site: str, row: Row) -> None:
        """Add a site's masked row to the sum.

        Args:
            site: who has shared its keys, once.
            row: (m + 1,); may be taken over.

        Raises:
            FederationError: it is none of those, was added before, or the survivors are counted.
        """
        if site not in self.shared or site in self._sent or self._survivors is not None:
            raise FederationError(f"no row of site {site!r} is awaited")
        self._sent.add(site)
        if self._total is None:
            self._total = row if row.flags.writeable else row.copy()
        else:
            self._total += row

    def close_rows(self) -> Survivors:
        """Whose rows are in the sum.

        Raises:
            FederationError: too few.
        """
        sent = self.roster.ordered(self._sent)
        self._survivors = Survivors(self.roster, self.shared, sent, self._asked)
        return self._survivors

    @property
    def survivors(self) -> Survivors:
        """Whose rows are in the sum."""
        if self._survivors is None:
            raise FederationError("rows are still awaited")
        return self._survivors

    # Agreement

    def admit_signature(self, site: str, signature: str) -> None:
        """Take a survivor's signature of the list.

        Raises:
            FederationError: it is not of this list.
        """
        self.survivors.check_signature(site, signature)
        self._signatures[site] = signature

    @property
    def signatures(self) -> tuple[tuple[str, str], ...]:
        """(survivor, signature) of all who have signed.

        Raises:
            FederationError: they are too few.
        """
        found = tuple((s, self._signatures[s]) for s in self.roster.ordered(self._signatures))
        self.survivors.check_signatures(found)
        return found

    # Unmasking

    def check_shares(self, site: str, revealed: Revealed) -> None:
        """Refuse shares that are not those that a survivor was asked for.

        Raises:
            FederationError: they are not.
        """
        told, number = self.survivors, self.roster.place(site)
        if set(revealed.seeds) != set(told.sites) or set(revealed.masks) != set(told.dropped):
            raise FederationError("it has revealed other shares than it was asked for")
        if not all(
            is_share(s, number) for s in [*revealed.seeds.values(), *revealed.masks.values()]
        ):
            raise FederationError("it has revealed what are no shares of its own")

    def admit_shares(self, site: str, revealed: Revealed) -> None:
        """Take the shares that a survivor reveals; errors as of ``check_shares``."""
        self.check_shares(site, revealed)
        self._revealed[site] = revealed

    def revealed(self) -> Unmasking:
        """What the revealed shares give, and who signed that they may.

        Raises:
            FederationError: too few have revealed their shares, or one of them is wrong.
        """
        told = self.survivors
        self.terms.need(len(self._revealed), "have revealed their shares")
        givers = list(self._revealed.values())[: self.terms.threshold]
        return Unmasking(
            told,
            self.signatures,
            {site: join([one.seeds[site] for one in givers]) for site in told.sites},
            {site: join([one.masks[site] for one in givers]) for site in told.dropped},
        )

    def unmask(self) -> Mean:
        """The weighted mean of the survivors' updates; the sum is used up.

        Raises:
            FederationError: as of ``revealed``, or the sum is of no honest rows.
        """
        revealed, total = self.revealed(), self._total
        if total is None:
            raise FederationError("the sum of this attempt is used up")
        self._total = None
        return revealed.open(total)
