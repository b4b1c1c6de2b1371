"""A few sites and a coordinator of secure aggregation, in one process and without files."""

from dataclasses import dataclass, field

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedmedlora.federation.secure import site as steps
from fedmedlora.federation.secure.coordinator import SecureSum
from fedmedlora.federation.secure.options import SecureOptions, Terms
from fedmedlora.federation.secure.roster import Attempt
from fedmedlora.federation.signing import public_key

NAMES = ("ash", "birch", "cedar", "dogwood", "elm", "fir", "gorse", "hazel")
#: The four stages at which a site may fall silent, in their order, and the last.
STAGES = ("shares", "rows", "agreement", "unmasking")
#: Hash of what all sites are asked to train.
ASKED = "a" * 64
KEYS = {name: Ed25519PrivateKey.generate() for name in NAMES}


def terms_of(count, *, threshold=None, run="run", **changes):
    names = NAMES[:count]
    options = SecureOptions(threshold)
    return Terms(
        run,
        tuple((name, public_key(KEYS[name])) for name in names),
        options.threshold_of(count),
        **{"largest_weight": 1e4, "largest_norm": 100.0, **changes},
    )


def updates_of(count, size=200, seed=0):
    """Site -> its update and its weight."""
    rng = np.random.default_rng(seed)
    return {
        name: (
            rng.standard_normal(size).astype(np.float32),
            float(rng.integers(50, 5000)),
        )
        for name in NAMES[:count]
    }


@dataclass
class Attempted:
    """One attempt, step by step; a step leaves out the sites that have fallen silent.

    Attributes:
        rows: masked rows as the coordinator got them.
        asked: what sites are asked that are asked something else than the others.
    """

    terms: object
    inputs: dict
    nonce: str = "first"
    states: dict = field(default_factory=dict)
    rows: dict = field(default_factory=dict)
    silent: set = field(default_factory=set)
    asked: dict = field(default_factory=dict)

    def __post_init__(self):
        self.attempt = Attempt(self.terms.run, 1, self.nonce)
        self.sum = SecureSum(self.terms, self.attempt)

    def lose(self, *names):
        self.silent |= set(names)

    def here(self, names):
        return [name for name in names if name not in self.silent]

    def keys(self):
        for name in self.here(self.terms.sites):
            self.states[name], made = steps.advertise(self.terms, self.attempt, name, KEYS[name])
            self.sum.admit_keys(name, made)
        return self.sum.close_keys()

    def shares(self):
        for name in self.here(self.sum.roster.sites):
            entries = self.sum.roster.entries
            state, parcels = steps.share(self.terms, self.states[name], name, entries)
            self.states[name] = state
            self.sum.admit_parcels(name, parcels)
        return self.sum.shared

    def send_rows(self):
        for name in self.here(self.sum.shared):
            self.sum.ask(ASKED)
            parcels = self.sum.parcels_for(name)
            asked = self.asked.get(name, ASKED)
            state = steps.receive(self.states[name], name, parcels, asked=asked)
            row = self.row(name)
            self.states[name] = steps.mask(state, name, row)
            self.rows[name] = row.copy()
            self.sum.add(name, row)
        return self.sum.close_rows()

    def row(self, name):
        ring = self.terms.ring
        return ring.encode(ring.clip(*self.inputs[name]))

    def agree(self):
        told = self.sum.survivors.sites
        for name in self.here(told):
            self.states[name], signed = steps.agree(self.states[name], name, told, KEYS[name])
            self.sum.admit_signature(name, signed)
        return self.sum.signatures

    def reveal(self):
        for name in self.here(self.sum.survivors.sites):
            state, revealed = steps.unmask(self.states[name], self.sum.signatures)
            self.states[name] = state
            self.sum.admit_shares(name, revealed)

    def run(self, lost=None):
        """All of it; ``lost`` is stage -> sites that are silent from it on."""
        lost = lost or {}
        self.keys()
        steps_of = {
            "shares": self.shares,
            "rows": self.send_rows,
            "agreement": self.agree,
            "unmasking": self.reveal,
        }
        for stage in STAGES:
            self.lose(*lost.get(stage, ()))
            steps_of[stage]()
        return self.sum.unmask()


def plain_mean(inputs, names):
    """The weighted mean of these sites' updates, in float64."""
    weights = np.array([inputs[name][1] for name in names])
    rows = np.array([inputs[name][0] for name in names], np.float64)
    return np.tensordot(weights / weights.sum(), rows, 1)


def relative(found, wanted):
    return np.linalg.norm(found - wanted) / np.linalg.norm(wanted)
