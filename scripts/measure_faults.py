"""Kill -9 of any process of a federation at any point: does it end with the undisturbed adapter?

    python scripts/measure_faults.py --runs 20 --seed 1 --out faults.json
    python scripts/measure_faults.py --only "coordinator away for 2 minutes" --runs 2

Starts a coordinator and three sites on this machine, over TLS, by the commands that a consortium
runs. One run is left alone; in each of the others one process is killed at a point that is drawn by
the seed. What ended with a non-zero exit code is started again by the same command, as a service
manager would. The sites stay from run to run: none but one whose own command is killed may have
been started again. A fault that came too early or too late is told so, and tried again.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from faults.machines import SITES, Federation, wait_for
from faults.striking import AWAY, OTHERS, PATIENCE_S, POINTS, Outcome, strike

from fedmedlora.streams import end_in_order

AWAY_S = 120.0
MOST_STARTS = 6
MOST_TRIES = 3


def stay_away(federation: Federation) -> float:
    """Leave the coordinator's place empty for two minutes, and look that it is."""
    if not wait_for(lambda: not federation.listens(), seconds=60):
        raise RuntimeError("what the coordinator's command had started outlives it")
    begun = time.monotonic()
    while time.monotonic() - begun < AWAY_S:
        if federation.listens():
            raise RuntimeError("something answers in the place of a coordinator that is away")
        time.sleep(1.0)
    return round(time.monotonic() - begun, 1)


def run_with(federation: Federation, outcome: Outcome, rng: random.Random) -> str | None:
    """One run with a fault; the hash of its adapter, None if it does not end."""
    shutil.rmtree(federation.folder / "run", ignore_errors=True)
    begun = restarted = time.monotonic()
    federation.start()
    outcome.starts, before = 1, None
    if outcome.fault != "none":
        strike(federation, outcome, rng)
        before = federation.journal().get("pid")
    while True:
        for site, process in federation.sites.items():
            if process.poll() is not None:
                outcome.site_starts += 1
                federation.start_site(site)
        code = federation.command.poll() if federation.command is not None else 1
        told = federation.journal()
        anew = outcome.away_s is not None and told.get("pid") != before
        if anew and outcome.back_s is None and set(told.get("joined", ())) == set(SITES):
            outcome.back_s = round(time.monotonic() - restarted, 1)
        if code == 0:
            break
        if code is not None:
            if outcome.fault == AWAY and outcome.struck and outcome.away_s is None:
                outcome.away_s = stay_away(federation)
            if outcome.starts >= MOST_STARTS:
                return None
            outcome.starts += 1
            restarted = time.monotonic()
            federation.start()
        if time.monotonic() - begun > PATIENCE_S + AWAY_S:
            return None
        time.sleep(0.2)
    outcome.seconds = round(time.monotonic() - begun, 1)
    return federation.adapter()


def drawn(runs: int, rng: random.Random, *, proxy: bool, only: Sequence[str]) -> list[Outcome]:
    """Faults for so many runs: a point of a round and another process in turn, first `AWAY`."""
    rest = [name for name in OTHERS if name != AWAY and (proxy or name != "proxy")]
    rng.shuffle(rest)
    others = [AWAY, *rest]
    kinds = [only] if only else [POINTS, others]
    order = []
    for number in range(runs):
        turn, kind = divmod(number, len(kinds))
        order.append(kinds[kind][turn % len(kinds[kind])])
    return [Outcome(fault, rng.choice((1, 2))) for fault in order]


def tried(federation: Federation, wanted: Outcome, rng: random.Random, expected: str) -> Outcome:
    """A run with a fault, again if it was not struck where it was to be; the last of them."""
    for _ in range(MOST_TRIES):
        outcome = Outcome(wanted.fault, wanted.round)
        outcome.same = run_with(federation, outcome, rng) == expected
        if outcome.struck or not outcome.good:
            break
    return outcome


def sentence(outcome: Outcome) -> str:
    """One run in a line."""
    told = [
        f"{outcome.fault}, round {outcome.round}:",
        "same adapter" if outcome.same else "ANOTHER ADAPTER, or none",
        f"after {outcome.seconds:.0f} s, {outcome.starts} starts",
    ]
    if not outcome.struck:
        told.append("- NOT STRUCK there")
    if outcome.site_starts:
        told.append(f"- sites' commands started again: {outcome.site_starts}")
    if outcome.fault == AWAY:
        told.append(f"- away {outcome.away_s} s, all sites back after {outcome.back_s} s")
    return " ".join(told)


@contextmanager
def place_for(out: Path | None) -> Iterator[Path]:
    """A folder for the federation: kept if named."""
    if out is not None:
        out.mkdir(parents=True)
        yield out
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def main() -> int:
    """Measure; the exit code is 1 if a run did not go as it should, or a fault struck nothing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", action="append", default=[], choices=(*POINTS, *OTHERS))
    parser.add_argument("--out", type=Path, default=None, help="JSON file of all outcomes")
    parser.add_argument("--folder", type=Path, default=None, help="keep the federation here")
    arguments = parser.parse_args()
    end_in_order()
    rng = random.Random(arguments.seed)
    proxy = shutil.which("nginx") is not None
    outcomes: list[Outcome] = []
    with place_for(arguments.folder) as root:
        federation = Federation(root.resolve(), proxy=proxy)
        federation.found()
        try:
            for site in SITES:
                federation.start_site(site)
            alone = Outcome("none", 0)
            undisturbed = run_with(federation, alone, rng)
            if undisturbed is None or alone.starts > 1 or alone.site_starts:
                print("the undisturbed run does not end well by itself: nothing to compare with")
                return 1
            print(f"undisturbed: {undisturbed[:12]} after {alone.seconds:.0f} s", flush=True)
            for wanted in drawn(arguments.runs, rng, proxy=proxy, only=arguments.only):
                outcomes.append(tried(federation, wanted, rng, undisturbed))
                print(sentence(outcomes[-1]), flush=True)
                if arguments.out is not None:
                    arguments.out.write_text(json.dumps([asdict(o) for o in outcomes], indent=1))
        finally:
            federation.stop()
    good = sum(outcome.good for outcome in outcomes)
    struck = sum(outcome.struck for outcome in outcomes)
    print(
        f"{good} of {len(outcomes)} ended with the undisturbed adapter, no site started by hand; "
        f"{struck} were struck where they were to be"
    )
    return 0 if good == struck == len(outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
