"""Who takes part in one attempt at a round, with which keys: advertised, signed, checked by all.

A site signs its keys of an attempt with its long-term key, and every other site checks that: nobody
in between, the coordinator included, can put keys of its own in their place.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedmedlora.canonical import canonical, sha256
from fedmedlora.errors import FederationError
from fedmedlora.federation.secure.options import Terms
from fedmedlora.federation.signing import is_signed, sign


@dataclass(frozen=True)
class Attempt:
    """One attempt at a round.

    Attributes:
        run: id of the federation's run.
        round: from 1.
        nonce: of this attempt; the coordinator's.
    """

    run: str
    round: int
    nonce: str


@dataclass(frozen=True)
class Advertisement:
    """A site's keys of one attempt; all hexadecimal.

    Attributes:
        site: its name.
        channel: X25519 public key; what is sealed for the site is sealed with it.
        mask: X25519 public key; its masks with other sites come from it.
        seed: SHA-256 of the seed of its own mask.
        signature: by its long-term key, of all of it and of the attempt and the terms.
    """

    site: str
    channel: str
    mask: str
    seed: str
    signature: str = ""

    def statement(self, terms: Terms, attempt: Attempt) -> bytes:
        """What is signed."""
        content = asdict(self)
        del content["signature"]
        return canonical({**content, "terms": terms.sha256, "attempt": asdict(attempt)})

    def signed(self, terms: Terms, attempt: Attempt, key: Ed25519PrivateKey) -> Advertisement:
        """With its signature."""
        statement = self.statement(terms, attempt)
        return replace(self, signature=sign(statement, key, purpose="secure-keys"))


@dataclass(frozen=True)
class Roster:
    """The advertisements of an attempt, in the order of the terms.

    Attributes:
        terms: of the federation.
        attempt: it.
        entries: one of each site that takes part.

    Raises:
        FederationError: fewer than the threshold, a site twice or out of order, two equal keys, or
            an advertisement that its site did not sign for this attempt and these terms.
    """

    terms: Terms
    attempt: Attempt
    entries: tuple[Advertisement, ...]

    def __post_init__(self) -> None:
        places = [self.place(one.site) for one in self.entries]
        if places != sorted(set(places)):
            raise FederationError("a site is named twice, or the sites are not in their order")
        self.terms.need(len(places), "have advertised keys")
        keys = [key for one in self.entries for key in (one.channel, one.mask)]
        if len(set(keys)) < len(keys):
            raise FederationError("two sites have advertised the same key")
        for one in self.entries:
            check_advertisement(self.terms, self.attempt, one)

    @property
    def sites(self) -> tuple[str, ...]:
        """Who takes part."""
        return tuple(one.site for one in self.entries)

    @cached_property
    def sha256(self) -> str:
        """SHA-256 (hex) of terms, attempt and all advertisements: part of every key of it."""
        entries = [asdict(one) for one in self.entries]
        content = {"terms": self.terms.sha256, "attempt": asdict(self.attempt), "roster": entries}
        return sha256(canonical(content))

    def place(self, site: str) -> int:
        """A site's place among all, from 1: the number of the shares that it holds.

        Raises:
            FederationError: there is no such site.
        """
        if site not in self.terms.sites:
            raise FederationError(f"{site!r} is no site of this federation")
        return self.terms.sites.index(site) + 1

    def of(self, site: str) -> Advertisement:
        """A site's advertisement.

        Raises:
            FederationError: it takes no part.
        """
        for one in self.entries:
            if one.site == site:
                return one
        raise FederationError(f"site {site!r} takes no part in this attempt")

    def ordered(self, sites: Iterable[str]) -> tuple[str, ...]:
        """These sites in the order of the terms."""
        return tuple(sorted(sites, key=self.place))

    def parcel(self, sender: str, recipient: str) -> dict[str, Any]:
        """What a sealed parcel, and its key, are about."""
        return {"for": "parcel", "from": sender, "to": recipient, "roster": self.sha256}

    def pair(self, one: str, other: str, asked: str) -> dict[str, Any]:
        """What the mask of two sites is about.

        Args:
            one, other: the sites.
            asked: hash of what they were asked to train: masks of two sites that were asked for
                different things do not cancel.
        """
        sites = self.ordered((one, other))
        return {"for": "pair", "sites": sites, "asked": asked, "roster": self.sha256}

    def own(self, site: str) -> dict[str, Any]:
        """What a site's own mask is about."""
        return {"for": "own", "site": site, "roster": self.sha256}


def check_advertisement(terms: Terms, attempt: Attempt, one: Advertisement) -> None:
    """Refuse keys that their site did not sign for this attempt and these terms.

    Raises:
        FederationError: it did not.
    """
    public = dict(terms.public_keys).get(one.site)
    if public is None:
        raise FederationError(f"{one.site[:64]!r} is no site of this federation")
    statement = one.statement(terms, attempt)
    if not is_signed(statement, one.signature, public, purpose="secure-keys"):
        raise FederationError(
            f"the keys of site {one.site!r} are not signed by it for this attempt: they were "
            "exchanged on their way, are of another attempt, or it holds other terms"
        )


@dataclass(frozen=True)
class Survivors:
    """Of whom the coordinator has a masked row, as every one of them must have heard it.

    Attributes:
        roster: of the attempt.
        shared: who has shared its keys: these masked their rows with one another.
        sites: who has sent a masked row.
        asked: hash of what they were asked to train.

    Raises:
        FederationError: fewer than the threshold, or a site that was not there before.
    """

    roster: Roster
    shared: tuple[str, ...]
    sites: tuple[str, ...]
    asked: str

    def __post_init__(self) -> None:
        for name, part, whole in (
            ("shared", self.shared, self.roster.sites),
            ("sites", self.sites, self.shared),
        ):
            if part != self.roster.ordered(set(part)) or not set(part) <= set(whole):
                raise FederationError(f"the list of survivors is none: {name}")
        self.roster.terms.need(len(self.sites), "are left")

    @property
    def dropped(self) -> tuple[str, ...]:
        """Who has shared its keys, and sent no row."""
        return tuple(site for site in self.shared if site not in self.sites)

    @property
    def statement(self) -> bytes:
        """What every survivor signs."""
        told = {"shared": self.shared, "survivors": self.sites, "asked": self.asked}
        return canonical({"roster": self.roster.sha256, **told})

    def signed(self, key: Ed25519PrivateKey) -> str:
        """A survivor's signature, hexadecimal."""
        return sign(self.statement, key, purpose="secure-survivors")

    def check_signature(self, site: str, signature: str) -> None:
        """Refuse a signature that is not a survivor's of this list.

        Raises:
            FederationError: it is not.
        """
        public = dict(self.roster.terms.public_keys)
        if site not in self.sites or not is_signed(
            self.statement, signature, public[site], purpose="secure-survivors"
        ):
            raise FederationError(
                "a survivor has signed another list of survivors than this one, or none, or was "
                "asked to train something else"
            )

    def check_signatures(self, signatures: Sequence[tuple[str, str]]) -> None:
        """Refuse a list that not enough survivors have signed as it is.

        Raises:
            FederationError: a signature is wrong, of nobody of them, or they are fewer than the
                threshold.
        """
        for site, signature in signatures:
            self.check_signature(site, signature)
        signers = {site for site, _ in signatures}
        self.roster.terms.need(len(signers), "have signed the list of survivors")
