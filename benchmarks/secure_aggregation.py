"""CPU seconds, bytes and memory of a round with and without secure aggregation, nothing trained.

    python benchmarks/secure_aggregation.py                # 3, 5 and 8 sites x 0.35 million values
    python benchmarks/secure_aggregation.py --large        # 3 sites x 42 million
    python benchmarks/secure_aggregation.py --lost 1       # a site falls silent after sharing keys

The in-process engine: sites one after another, every message serialised and read back as between
machines. CPU seconds are of all sites and the coordinator together, of the second round. Each row
is a process of its own; its peak memory has the sites' and the coordinator's parts in it. The error
is that of the mean against a float64 mean of the same updates, relative to how far that moved.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedmedlora.aggregation.outliers import ScreeningOptions
from fedmedlora.federation.plan import Declared, FederationPlan, Order, SiteLosses, SiteUpdate
from fedmedlora.federation.records import RoundRecord
from fedmedlora.federation.run import run_federation
from fedmedlora.federation.secure.options import SecureOptions
from fedmedlora.federation.secure.own_secrets import one_machines_keys
from fedmedlora.model.adapter import Adapter, Manifest
from fedmedlora.progress import quiet_libraries

A, B = "base_model.model.q.lora_A.weight", "base_model.model.q.lora_B.weight"
OFF = ScreeningOptions(norms="off", directions="off", riders="off")
ROUNDS = 2
LENGTH = 1e-3  # of a value of an update, on average


def step(name: str, tensor: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """What a site moves a tensor by, in every round."""
    rng = np.random.default_rng([int(name[1:]), tensor == A])
    return rng.standard_normal(shape, np.float32) * np.float32(LENGTH)


@dataclass
class Still:
    """A site that trains nothing: it moves by its own step."""

    name: str
    lost: bool = False

    @property
    def tokens(self) -> int:
        """Its size."""
        return 10_000 * int(self.name[1:])

    def declared(self) -> Declared:
        return Declared(self.tokens, self.tokens)

    def train(self, adapter: Adapter, order: Order) -> SiteUpdate:
        if self.lost:
            raise OSError("gone")
        moved = {n: t + step(self.name, n, t.shape) for n, t in adapter.tensors.items()}
        return SiteUpdate(
            Adapter(adapter.manifest, moved), self.tokens, self.tokens, None, None, 0.0
        )

    def losses(self, adapters: object) -> SiteLosses:
        raise NotImplementedError


def initial(values: int) -> Adapter:
    """An adapter of so many values, rank 16."""
    width = values // 32
    shapes = ((A, (16, width)), (B, (width, 16)))
    manifest = Manifest("b" * 64, "t" * 64, "s" * 64, 16, 64.0, 0.0, ("q",), shapes)
    return Adapter(manifest, {name: np.zeros(shape, np.float32) for name, shape in shapes})


def one_row(sites: int, values: int, *, secure: bool, lost: int) -> None:
    """Run one federation and print what it took, as JSON."""
    names = tuple(f"s{n}" for n in range(1, sites + 1))
    start = initial(values)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        keys, public = one_machines_keys(folder, names)
        plan = FederationPlan(
            run_id="benchmark",
            sites=names,
            rounds=ROUNDS,
            wire="fp32",
            screening=OFF,
            min_sites=sites - lost,
            public_keys=public,
            secure=SecureOptions(sites // 2 + 1) if secure else None,
        )
        workers = {name: Still(name, lost=place < lost) for place, name in enumerate(names)}
        used: list[float] = []
        result = run_federation(
            plan,
            start,
            workers=workers,
            folder=folder,
            keys=keys,
            on_round=lambda record, adapter: used.append(time.process_time()),
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    record = result.records[-1]
    told = {"seconds": used[-1] - used[-2], "peak_mb": peak, **_bytes(record, names[-1])}
    told["error"] = _error(result.adapter, names[lost:])
    print(json.dumps(told))


def _bytes(record: RoundRecord, site: str) -> dict[str, object]:
    phases = dict(record.sites[site].phases)
    down, up = phases.pop("train")
    small = sum(sum(pair) for pair in phases.values())
    return {"train_down": down, "train_up": up, "small": small}


def _error(found: Adapter, names: tuple[str, ...]) -> float:
    """Of all rounds together; a site's step is the same in each."""
    weights = np.array([float(Still(name).tokens) for name in names])
    off = length = 0.0
    for tensor, values in found.tensors.items():
        plain = np.zeros(values.shape)
        for name, weight in zip(names, weights / weights.sum(), strict=True):
            plain += weight * step(name, tensor, values.shape)
        plain *= ROUNDS
        length += float(np.square(plain).sum())
        off += float(np.square(values - plain).sum())
    return float(np.sqrt(off / length))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--lost", type=int, default=0)
    parser.add_argument("--row", nargs=4, metavar=("SITES", "VALUES", "SECURE", "LOST"))
    given = parser.parse_args()
    quiet_libraries()
    if given.row:
        sites, values, secure, lost = map(int, given.row)
        one_row(sites, values, secure=bool(secure), lost=lost)
        return
    print(
        f"{'sites':>5}{'values':>12}  {'secure':7}{'CPU s':>10}{'down, MB':>10}{'up, MB':>9}"
        f"{'small stages, kB':>18}{'peak MB':>9}{'error':>10}"
    )
    for sites in (3,) if given.large else (3, 5, 8):
        values = 41_943_040 if given.large else 350_208
        for secure in (False, True):
            row = [str(one) for one in (sites, values, int(secure), given.lost)]
            command = [sys.executable, __file__, "--row", *row]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            told = json.loads(done.stdout.splitlines()[-1])
            print(
                f"{sites:5}{values:12,}  {'yes' if secure else 'no':7}{told['seconds']:10.2f}"
                f"{told['train_down'] / 1e6:10.2f}{told['train_up'] / 1e6:9.2f}"
                f"{told['small'] / 1e3:18.1f}{told['peak_mb']:9.0f}{told['error']:10.1e}",
                flush=True,
            )


if __name__ == "__main__":
    main()
