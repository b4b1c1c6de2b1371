"""A toy federation: sites of numpy only, importable by worker processes."""

import math
import os
from dataclasses import dataclass, field

import numpy as np

from fedmedlora.federation.plan import Declared, FederationPlan, SiteLosses, SiteUpdate
from fedmedlora.model.adapter import Adapter, Manifest

A, B = "base_model.model.q.lora_A.weight", "base_model.model.q.lora_B.weight"
MANIFEST = Manifest("b" * 64, "t" * 64, "s" * 64, 2, 8.0, 0.0, ("q",), ((A, (2, 3)), (B, (4, 2))))
SITES = ("north", "south", "west")
#: Pull towards this value, and training tokens, of every site.
PULL = {"north": (1.0, 100), "south": (2.0, 200), "west": (5.0, 500)}


def start(value=0.0):
    a = np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)
    return Adapter(MANIFEST, {A: a, B: np.full((4, 2), value, np.float32)})


@dataclass
class ToySite:
    """Moves B half-way to its pull; its loss is the distance of B's mean from it."""

    name: str
    rounds: list = field(default_factory=list)

    def declared(self):
        tokens = PULL[self.name][1]
        return Declared(tokens // 10, tokens, tokens)

    def train(self, adapter, order):
        self.rounds.append(order.round)
        pull, tokens = PULL[self.name]
        tensors = {
            A: adapter.tensors[A] + np.float32(0.1 * order.round),
            B: (adapter.tensors[B] + np.float32(pull)) / np.float32(2),
        }
        return SiteUpdate(
            adapter=Adapter(adapter.manifest, tensors),
            examples=tokens // 10,
            tokens=tokens,
            loss_first=1.0,
            loss_last=0.5,
            seconds=0.25,
            counts={"rows_cut": 3, "share": 0.5},
        )

    def losses(self, adapters):
        pull, tokens = PULL[self.name]
        return SiteLosses([abs(float(one.tensors[B].mean()) - pull) for one in adapters], tokens)


def toy_site(name):
    """A factory that worker processes can import."""
    return ToySite(name)


def dying_site(name):
    return Dying(name)


class Dying(ToySite):
    def train(self, adapter, order):
        if self.name == "south":
            os._exit(9)
        return super().train(adapter, order)


class Raising(ToySite):
    """Fails in a round, with a patient's name in the exception."""

    def __init__(self, name, *, round=1, error=ValueError):
        super().__init__(name)
        self.when, self.error = round, error

    def train(self, adapter, order):
        if order.round == self.when:
            raise self.error("cannot parse 'Mrs Zyxwvut was admitted'")
        return super().train(adapter, order)


class Poisoned(ToySite):
    """Returns non-finite values."""

    def train(self, adapter, order):
        update = super().train(adapter, order)
        update.adapter.tensors[B][0, 0] = math.nan
        return update


def sites(**others):
    return {name: others.get(name, ToySite(name)) for name in SITES}


def plan(**changes):
    return FederationPlan(**{"run_id": "toy", "sites": SITES, "rounds": 2, **changes})
