"""Toy federations under secure aggregation: up to eight sites of numpy only."""

from dataclasses import dataclass, field

import numpy as np

from fedmedlora.aggregation.outliers import ScreeningOptions
from fedmedlora.federation.adapter_parts import adapter_part
from fedmedlora.federation.plan import Declared, FederationPlan, SiteLosses, SiteUpdate
from fedmedlora.federation.run import run_federation
from fedmedlora.federation.secure.options import SecureOptions
from fedmedlora.federation.signing import make_key
from fedmedlora.model.adapter import Adapter, Manifest

A, B = "base_model.model.q.lora_A.weight", "base_model.model.q.lora_B.weight"
MANIFEST = Manifest("b" * 64, "t" * 64, "s" * 64, 2, 8.0, 0.0, ("q",), ((A, (2, 3)), (B, (4, 2))))
NAMES = ("ash", "birch", "cedar", "dogwood", "elm", "fir", "gorse", "hazel")
TOKENS = dict(zip(NAMES, (100, 200, 500, 50, 350, 120, 80, 640), strict=True))
OFF = ScreeningOptions(norms="off", directions="off", riders="off")


def start():
    a = np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)
    return Adapter(MANIFEST, {A: a, B: np.zeros((4, 2), np.float32)})


@dataclass
class Trainee:
    """Moves its factors by what its name and the round say; its loss is that of its name."""

    name: str
    scored: list = field(default_factory=list)

    def declared(self):
        return Declared(TOKENS[self.name] // 10, TOKENS[self.name])

    def train(self, adapter, order):
        rng = np.random.default_rng([NAMES.index(self.name), order.round])
        tensors = {}
        for name, tensor in adapter.tensors.items():
            moves = ("lora_A" in name and "A" in order.trains) or "lora_B" in name
            step = rng.standard_normal(tensor.shape).astype(np.float32) * np.float32(0.1)
            tensors[name] = tensor + step if moves else tensor
        trained = adapter_part(Adapter(adapter.manifest, tensors), order.returns)
        tokens = TOKENS[self.name]
        return SiteUpdate(trained, tokens // 10, tokens, 1.0, 0.5, 0.25)

    def losses(self, adapters):
        self.scored.append(len(adapters))
        own = 0.2 + 0.1 * NAMES.index(self.name)
        return SiteLosses([own + 0.01 * i for i in range(len(adapters))], 10)


def trainee(name):
    """A factory that worker processes can import."""
    return Trainee(name)


def keys_in(folder, count):
    """Site -> file of its key, and the public keys as a plan has them."""
    files = {name: folder / f"{name}.key" for name in NAMES[:count]}
    return files, tuple((name, make_key(file)) for name, file in files.items())


def masked_plan(count, public, **changes):
    given = {
        "run_id": "toy",
        "sites": NAMES[:count],
        "rounds": 2,
        "wire": "fp32",
        "screening": OFF,
        "public_keys": public,
        "secure": SecureOptions(),
    }
    return FederationPlan(**{**given, **changes})


def run_masked(folder, count, *, workers=None, keys=None, resume=False, **changes):
    """A masked federation in this process; its result."""
    files, public = keys or keys_in(folder / "keys", count)
    return run_federation(
        masked_plan(count, public, **changes),
        start(),
        workers=workers or {name: Trainee(name) for name in NAMES[:count]},
        folder=folder / "run",
        keys=files,
        resume=resume,
        audit=True,
    )


def run_plain(folder, count, **changes):
    """The same federation without secure aggregation."""
    plan = FederationPlan(
        **{"run_id": "toy", "sites": NAMES[:count], "rounds": 2, "wire": "fp32",
           "screening": OFF, **changes}
    )  # fmt: skip
    workers = {name: Trainee(name) for name in NAMES[:count]}
    return run_federation(plan, start(), workers=workers, folder=folder / "plain")


def off(one, other, before=None):
    """How far two adapters are apart, relative to how far the second has moved."""
    before = before or start()
    names = list(before.tensors)
    flat = [np.concatenate([x.tensors[n].reshape(-1).astype(np.float64) for n in names])
            for x in (one, other, before)]  # fmt: skip
    return np.linalg.norm(flat[0] - flat[1]) / np.linalg.norm(flat[1] - flat[2])
