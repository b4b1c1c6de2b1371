"""What ends an attempt: the rows of the survivors and what t sites revealed in, their mean out.

It is all signed or committed to beforehand: the rows by their sites, the list of survivors by t of
them, seeds and keys by the advertisements. Whoever has it can unmask the sum once more, and not one
row: masks between two survivors are in none of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from fedmedlora.aggregation.ring import Mean, Row
from fedmedlora.canonical import sha256
from fedmedlora.errors import FederationError
from fedmedlora.federation.secure.keys import KEY_BYTES, agreed_key, derived_key, public_half
from fedmedlora.federation.secure.masks import add_mask, take_mask
from fedmedlora.federation.secure.options import Terms
from fedmedlora.federation.secure.roster import Advertisement, Attempt, Roster, Survivors


@dataclass(frozen=True)
class Unmasking:
    """What unmasks the sum of one attempt.

    Attributes:
        survivors: whose rows are in the sum.
        signatures: (survivor, its signature of that list).
        seeds: survivor -> seed of its own mask.
        masks: site that shared keys and sent no row -> its masking key.

    Raises:
        FederationError: fewer than the threshold have signed the list, or a seed or a key is
            missing, of another site, or not the one that its site advertised.
    """

    survivors: Survivors
    signatures: tuple[tuple[str, str], ...]
    seeds: Mapping[str, bytes]
    masks: Mapping[str, bytes]

    def __post_init__(self) -> None:
        told = self.survivors
        told.check_signatures(self.signatures)
        if set(self.seeds) != set(told.sites) or set(self.masks) != set(told.dropped):
            raise FederationError("what was revealed is of other sites than the list of survivors")
        for site, seed in self.seeds.items():
            if sha256(seed) != told.roster.of(site).seed:
                raise FederationError(f"the shares of site {site!r} give another seed than its own")
        for site, key in self.masks.items():
            if len(key) != KEY_BYTES or public_half(key).hex() != told.roster.of(site).mask:
                raise FederationError(f"the shares of site {site!r} give another key than its own")

    def open(self, total: Row) -> Mean:
        """The weighted mean of the survivors' updates.

        Args:
            total: (m + 1,), the sum of their masked rows modulo 2^64; used up.

        Raises:
            FederationError: it is the sum of no honest rows, or all weights in it are cut to the
                bound, and would count alike.
        """
        told = self.survivors
        for site in told.sites:
            take_mask(total, derived_key(self.seeds[site], told.roster.own(site)))
        for site in told.dropped:
            self._unpair(total, site)
        terms = told.roster.terms
        mean = terms.ring.decode(total, summands=len(told.sites))
        if mean.weight >= len(told.sites) * terms.largest_weight:
            raise FederationError(
                "the weights of all sites are at secure_aggregation.largest_weight "
                f"{terms.largest_weight:g} or were cut to it: the mean would be unweighted; choose "
                "it above what sites have, or secure_aggregation.reference_loss nearer the losses"
            )
        return mean

    def _unpair(self, total: Row, dropped: str) -> None:
        """Remove what survivors' rows have of their masks with a site that sent none."""
        roster = self.survivors.roster
        for site in self.survivors.sites:
            public = bytes.fromhex(roster.of(site).mask)
            about = roster.pair(site, dropped, self.survivors.asked)
            pair = agreed_key(self.masks[dropped], public, about)
            first = roster.place(site) < roster.place(dropped)
            (take_mask if first else add_mask)(total, pair)

    def to_json(self) -> bytes:
        """As a file has it; run, round and nonce are in what lies beside it."""
        told = self.survivors
        content = {
            "roster": [asdict(one) for one in told.roster.entries],
            "shared": told.shared,
            "survivors": told.sites,
            "asked": told.asked,
            "signatures": self.signatures,
            "seeds": {site: seed.hex() for site, seed in self.seeds.items()},
            "masks": {site: key.hex() for site, key in self.masks.items()},
        }
        return json.dumps(content, indent=1).encode()

    @classmethod
    def from_json(cls, data: bytes, terms: Terms, attempt: Attempt) -> Unmasking:
        """What ``to_json`` wrote; nothing of it is believed that is not signed or committed to.

        Raises:
            FederationError: it is something else; or as of the class, of ``Roster`` and of
                ``Survivors``.
        """
        try:
            content = json.loads(data)
            entries = tuple(Advertisement(**one) for one in content["roster"])
            shared, sites = tuple(content["shared"]), tuple(content["survivors"])
            asked, signatures = str(content["asked"]), dict(content["signatures"])
            seeds, masks = (
                {site: bytes.fromhex(part) for site, part in content[name].items()}
                for name in ("seeds", "masks")
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise FederationError("what unmasks the sum of its rows cannot be read") from error
        roster = Roster(terms, attempt, entries)
        survivors = Survivors(roster, shared, sites, asked)
        return cls(survivors, tuple(signatures.items()), seeds, masks)
