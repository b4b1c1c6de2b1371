"""A site's part of one attempt at a round: pure steps from state to state, each taken once.

    advertise -> share -> receive -> mask -> agree -> unmask

Bonawitz et al., Practical Secure Aggregation for Privacy-Preserving Machine Learning (CCS 2017),
with the signatures and the consistency check that it has against an active server. Whoever keeps
the state writes it down before what the step gives leaves the site.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedmedlora.aggregation.ring import Row
from fedmedlora.canonical import sha256
from fedmedlora.errors import FederationError
from fedmedlora.federation.secure.keys import (
    SHARE_BYTES,
    agreed_key,
    derived_key,
    is_share,
    new_key,
    public_half,
    seal,
    split,
    unseal,
)
from fedmedlora.federation.secure.masks import add_mask, take_mask
from fedmedlora.federation.secure.options import Terms
from fedmedlora.federation.secure.roster import Advertisement, Attempt, Roster, Survivors

Stage = Literal["advertised", "shared", "training", "masked", "agreed", "done"]


@dataclass(frozen=True)
class Held:
    """What one site holds of another's secrets: a share of each."""

    seed: bytes
    mask: bytes


@dataclass(frozen=True)
class SiteState:
    """What a site knows of an attempt.

    Attributes:
        attempt: it.
        stage: the last step that was taken.
        channel, mask: private keys of the advertisement; empty from ``mask`` on.
        seed: of the site's own mask; likewise.
        roster: of the attempt, from ``share`` on.
        held: site -> shares that this site holds, its own included.
        asked: hash of what it was asked to train, from ``receive`` on.
        survivors: whom it has signed, from ``agree`` on.
    """

    attempt: Attempt
    stage: Stage
    channel: bytes = field(repr=False)
    mask: bytes = field(repr=False)
    seed: bytes = field(repr=False)
    roster: Roster | None = None
    held: Mapping[str, Held] = field(default_factory=dict, repr=False)
    asked: str = ""
    survivors: Survivors | None = None

    def at(self, stage: Stage) -> SiteState:
        """The same, if this is its stage.

        Raises:
            FederationError: it is not: a step is taken once, and in its order.
        """
        if self.stage != stage:
            raise FederationError(
                f"secure aggregation is at stage {self.stage!r} of this attempt, and was asked for "
                f"what follows {stage!r}: out of order, or a second time"
            )
        return self

    @property
    def known_roster(self) -> Roster:
        """The roster.

        Raises:
            FederationError: there is none yet.
        """
        if self.roster is None:
            raise FederationError("this attempt has no roster yet")
        return self.roster


@dataclass(frozen=True)
class Revealed:
    """Shares that a site gives away: of seeds of survivors, of mask keys of the dropped."""

    seeds: Mapping[str, bytes]
    masks: Mapping[str, bytes]


def advertise(
    terms: Terms, attempt: Attempt, site: str, key: Ed25519PrivateKey
) -> tuple[SiteState, Advertisement]:
    """Make the keys of an attempt.

    Args:
        terms: that the site holds.
        attempt: as asked.
        site: its name.
        key: its long-term key.

    Raises:
        FederationError: the attempt is of another run.
    """
    if attempt.run != terms.run:
        raise FederationError("it was asked to take part in another run")
    state = SiteState(attempt, "advertised", new_key(), new_key(), new_key())
    made = Advertisement(
        site,
        channel=public_half(state.channel).hex(),
        mask=public_half(state.mask).hex(),
        seed=sha256(state.seed),
    )
    return state, made.signed(terms, attempt, key)


def share(
    terms: Terms, state: SiteState, site: str, entries: Sequence[Advertisement]
) -> tuple[SiteState, dict[str, bytes]]:
    """Share the secrets of an attempt among all sites of its roster.

    Args:
        terms, site: as of ``advertise``.
        state: after it.
        entries: what all sites have advertised.

    Returns:
        the state, and for every other site a sealed parcel.

    Raises:
        FederationError: the roster is not to be trusted, or does not have this site's own keys.
    """
    state.at("advertised")
    roster = Roster(terms, state.attempt, tuple(entries))
    own = roster.of(site)
    if (own.channel, own.mask, own.seed) != (
        public_half(state.channel).hex(),
        public_half(state.mask).hex(),
        sha256(state.seed),
    ):
        raise FederationError("the roster has other keys of this site than it has advertised")
    count, t = len(terms.sites), terms.threshold
    seeds = split(state.seed, threshold=t, shares=count)
    masks = split(state.mask, threshold=t, shares=count)
    parcels = {}
    for other in roster.entries:
        if other.site == site:
            continue
        about, number = roster.parcel(site, other.site), roster.place(other.site)
        key = agreed_key(state.channel, bytes.fromhex(other.channel), about)
        parcels[other.site] = seal(key, seeds[number - 1] + masks[number - 1], about)
    number = roster.place(site)
    held = {site: Held(seeds[number - 1], masks[number - 1])}
    return replace(state, stage="shared", roster=roster, held=held), parcels


def receive(state: SiteState, site: str, parcels: Mapping[str, bytes], *, asked: str) -> SiteState:
    """Take what the others have sealed for this site; who has sent nothing takes no further part.

    The same once more, while nothing is masked, changes nothing: the training may have been killed.

    Args:
        state: after ``share``.
        site: its name.
        parcels: sender -> what it has sealed.
        asked: hash of what the site is asked to train.

    Raises:
        FederationError: fewer than the threshold are left, or a parcel is not its sender's own to
            this site in this attempt.
    """
    if state.stage == "training":
        before = replace(state, stage="shared", held={site: state.held[site]}, asked="")
        if receive(before, site, parcels, asked=asked) != state:
            raise FederationError("it was asked to train something else in the same attempt")
        return state
    roster = state.at("shared").known_roster
    held = dict(state.held)
    for other, parcel in parcels.items():
        if other == site:
            raise FederationError("it was given a parcel from itself")
        about, sender = roster.parcel(other, site), roster.of(other)
        key = agreed_key(state.channel, bytes.fromhex(sender.channel), about)
        plain = unseal(key, parcel, about)
        one = Held(plain[:SHARE_BYTES], plain[SHARE_BYTES:])
        number = roster.place(site)
        if not (is_share(one.seed, number) and is_share(one.mask, number)):
            raise FederationError(f"site {other!r} has sealed what are no shares of this site's")
        held[other] = one
    roster.terms.need(len(held), "have shared their keys")
    return replace(state, stage="training", held=held, asked=asked)


def mask(state: SiteState, site: str, row: Row) -> SiteState:
    """Mask a row in place: the site's own mask, and one with every site that has shared its keys.

    Args:
        state: after ``receive``.
        site: its name.
        row: of ``aggregation.ring``.

    Returns:
        the state, without the site's own secrets: what it holds of the others' is all it still
        needs.
    """
    roster = state.at("training").known_roster
    add_mask(row, derived_key(state.seed, roster.own(site)))
    for other in state.held:
        if other != site:
            public = bytes.fromhex(roster.of(other).mask)
            key = agreed_key(state.mask, public, roster.pair(site, other, state.asked))
            first = roster.place(site) < roster.place(other)
            (add_mask if first else take_mask)(row, key)
    return replace(state, stage="masked", channel=b"", mask=b"", seed=b"")


def agree(
    state: SiteState, site: str, survivors: Sequence[str], key: Ed25519PrivateKey
) -> tuple[SiteState, str]:
    """Sign who has survived; one list in an attempt.

    Raises:
        FederationError: it is too short, lacks this site, or names one that shared nothing.
    """
    roster = state.at("masked").known_roster
    told = Survivors(roster, roster.ordered(state.held), tuple(survivors), state.asked)
    if site not in told.sites:
        raise FederationError("it has sent its masked row, and is not among the survivors")
    return replace(state, stage="agreed", survivors=told), told.signed(key)


def unmask(state: SiteState, signatures: Sequence[tuple[str, str]]) -> tuple[SiteState, Revealed]:
    """Give what removes the masks of the sum, and of nothing else: of each site one kind of share.

    Args:
        state: after ``agree``.
        signatures: (survivor, signature) of the list that this site has signed.

    Returns:
        the state, without its secrets, and the shares.

    Raises:
        FederationError: not enough survivors have signed the same list.
    """
    told = state.at("agreed").survivors
    if told is None:
        raise FederationError("this attempt has no list of survivors")
    told.check_signatures(signatures)
    revealed = Revealed(
        {site: state.held[site].seed for site in told.sites},
        {site: state.held[site].mask for site in told.dropped},
    )
    return SiteState(state.attempt, "done", b"", b"", b"", survivors=told), revealed
