"""The server's side of a round: how fast adapters are averaged, and what many sites cost.

    python benchmarks/aggregation.py

First the average of K adapters of the 8B shape (42 million values) against a copy of memory: from
float32 arrays, and as the server does it, from bfloat16 on disk. Then whole rounds of 10, 100 and
1,000 simulated sites that train nothing, with an adapter of the embedded backbone's size. Every
line is a process of its own, one thread; memory is the peak of that process.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

VALUES = 41_943_040  # Llama-3.1-8B, rank 16, all linear layers
SMALL = 348_160  # the embedded backbone, rank 32
MOVED = 4 + 8 + 8  # bytes a value and adapter: read it, read and write the sum


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--sites", type=int, nargs="*", default=[10, 100, 1000])
    arguments = parser.parse_args()
    if arguments.one:
        kind, count = arguments.one.split(":")
        print(json.dumps({"average": average, "sites": sites}[kind](int(count))))
        return
    copy = copied()
    print(f"copy of 168 MB: {copy / 1e9:.1f} GB/s (read and written), one thread")
    print("adapters   float32: seconds   GB/s  of a copy   from bf16 on disk: seconds   peak")
    for count in (2, 4, 8):
        found = child(f"average:{count}")
        rate = MOVED * VALUES * count / found["float32"]
        print(
            f"{count:8} {found['float32']:18.2f} {rate / 1e9:6.1f} {rate / copy:9.0%}"
            f" {found['disk']:27.2f} {found['peak'] / 1e6:6.0f} MB",
            flush=True,
        )
    print("\nsites   server seconds a round   a site    peak")
    for count in arguments.sites:
        found = child(f"sites:{count}")
        print(
            f"{count:5} {found['seconds']:20.2f} {found['seconds'] / count * 1e3:11.1f} ms"
            f" {found['peak'] / 1e6:6.0f} MB",
            flush=True,
        )


def child(what: str) -> dict[str, float]:
    one = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, __file__, "--one", what],
        check=True, stdout=subprocess.PIPE, text=True, env=one,
    )  # fmt: skip
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def copied() -> float:
    """Bytes a second that a copy reads and writes."""
    import numpy as np

    source = np.ones(VALUES, np.float32)
    target = np.empty_like(source)
    best = min(timed(lambda: np.copyto(target, source)) for _ in range(5))
    return 2 * source.nbytes / best


def timed(what: Any) -> float:
    started = time.perf_counter()
    what()
    return time.perf_counter() - started


def average(count: int) -> dict[str, float]:
    import numpy as np

    from fedmedlora.aggregation.average import average_factors
    from fedmedlora.model.bfloat import from_bf16, to_bf16

    values = np.random.default_rng(0).standard_normal(VALUES, dtype=np.float32)
    weights = [1 / count] * count
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{number}.npy" for number in range(count)]
        for path in paths:
            np.save(path, to_bf16(values))

        def states() -> Iterator[dict[str, Any]]:
            for path in paths:
                yield {"adapter": from_bf16(np.load(path))}

        disk = min(timed(lambda: average_factors(states(), weights)) for _ in range(3))
    peak = peak_memory()
    same = [{"adapter": values}] * count
    fast = min(timed(lambda: average_factors(same, weights)) for _ in range(3))
    return {"float32": fast, "disk": disk, "peak": peak}


def sites(count: int) -> dict[str, float]:
    import numpy as np

    from fedmedlora.federation.plan import Declared, FederationPlan, Order, SiteLosses, SiteUpdate
    from fedmedlora.federation.run import run_federation
    from fedmedlora.model.adapter import Adapter, Manifest

    name = "base_model.model.q.lora_A.weight", "base_model.model.q.lora_B.weight"
    shapes = ((32, SMALL // 64), (SMALL // 64, 32))
    manifest = Manifest(
        "b" * 64, "t" * 64, "s" * 64, 32, 64.0, 0.0, ("q",), tuple(zip(name, shapes, strict=True))
    )
    start = Adapter(manifest, {n: np.ones(s, np.float32) for n, s in manifest.tensors})

    class Idle:
        name = "idle"

        def declared(self) -> Declared:
            return Declared(10, 100)

        def train(self, adapter: Adapter, order: Order) -> SiteUpdate:
            return SiteUpdate(adapter, 10, 100, 1.0, 0.5, 0.0)

        def losses(self, adapters: Any) -> SiteLosses:
            raise NotImplementedError

    names = tuple(f"site-{number:04d}" for number in range(count))
    rounds = 2
    with tempfile.TemporaryDirectory() as folder:
        plan = FederationPlan(run_id="bench", sites=names, rounds=rounds)
        result = run_federation(
            plan, start, workers=dict.fromkeys(names, Idle()), folder=Path(folder) / "run"
        )
    # The last round: the first one introduces the sites.
    return {"seconds": result.records[-1].seconds, "peak": peak_memory()}


def peak_memory() -> float:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


if __name__ == "__main__":
    main()
