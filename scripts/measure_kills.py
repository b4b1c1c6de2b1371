"""Whether a study that is killed again and again ends as one that is left alone.

    python scripts/measure_kills.py STUDY [key=value ...] [--kills 10] [--seed 1] [--keep FOLDER]

``scripts/measure_kills.yaml`` is a study for it.

Runs the study undisturbed, then into another folder, where its processes are killed (SIGKILL, the
whole group) at random moments and the same command is started again, until it is done. The moments
are drawn over the undisturbed run's time; what an attempt needs before it works is not counted but
for the first one. Then all that must be equal is compared: scores, comparisons, raw answers,
predictions, adapters, and the records of rounds but for their seconds and bytes sent. Linux and
macOS.

Prints a line a kill. Exit code 1 if anything differs, or something is left behind.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_NAMES = (
    "scores.json",
    "comparisons.json",
    "seeds.json",
    "readings.json",
    "methods.json",
    "variants.json",
    "validation_rounds.json",
    "data.json",
    "rounds.jsonl",
)
_FOLDERS = ("gold", "answers", "predictions", "adapters")
#: Of a record: what no two runs have alike, and whether a first round was taken up from before the
#: kill, which the site's reply says in a few bytes more. Requests hold a number that is used once,
#: and what a site states, and a round's hashes, name them and the seconds.
_BESIDE = (
    *("seconds", "peak_memory_mb", "recalled", "bytes_up", "phases"),
    *("nonce", "statement", "signature", "before"),
)
_SHOWN = 20


@dataclass(frozen=True)
class Kill:
    """One kill: after how many seconds of its attempt, how far the run was, its newest file."""

    seconds: float
    done: int
    newest: str


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path)
    parser.add_argument("settings", nargs="*")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="keep both runs in this folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = arguments.keep or Path(made)
        folder.mkdir(parents=True, exist_ok=True)
        calm, killed = folder / "undisturbed", folder / "killed"
        command = [sys.executable, "-m", "fedmedlora", "run", str(arguments.study)]
        for setting in arguments.settings:
            command += ["--set", setting]
        seconds, before_work = run_undisturbed([*command, "--out", str(calm)], calm)
        print(f"undisturbed: {seconds:.1f} s, the first {before_work:.1f} s before any work")
        rng = random.Random(arguments.seed)
        moments = sorted(rng.uniform(0, seconds) for _ in range(arguments.kills))
        gaps = [after - before for before, after in zip([0.0, *moments], moments, strict=False)]
        waits = [gap + (before_work if place else 0) for place, gap in enumerate(gaps)]
        kills = run_killed([*command, "--out", str(killed)], killed, waits)
        faults = list(differences(calm, killed))
        print_kills(kills)
        for fault in faults[:_SHOWN]:
            print(fault)
        print(f"killed {len(kills)} times: {'same' if not faults else f'{len(faults)} differ'}")
        return 1 if faults or len(kills) < arguments.kills else 0


def run_undisturbed(command: Sequence[str], out: Path) -> tuple[float, float]:
    """Seconds of the whole run, and until the first file that says it works."""
    started, first = time.monotonic(), 0.0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            if not first and (out / "data.json").exists():
                first = time.monotonic() - started
            time.sleep(0.02)
    if process.returncode:
        raise SystemExit(f"the undisturbed run failed with exit code {process.returncode}")
    return time.monotonic() - started, first


def run_killed(command: Sequence[str], out: Path, waits: Sequence[float]) -> list[Kill]:
    """Run until it is done, killed after each of the waits (s); fewer kills if it ends before."""
    kills = []
    for wait in (*waits, None):
        started = time.monotonic()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
        try:
            code = process.wait(timeout=wait)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            kills.append(Kill(time.monotonic() - started, methods_done(out), newest_file(out)))
            continue
        if code:
            raise SystemExit(f"after {len(kills)} kills the run failed with exit code {code}")
        break
    return kills


def methods_done(out: Path) -> int:
    """Of the study and its further runs together."""
    return len(list(out.rglob("done.json")))


def newest_file(out: Path) -> str:
    """What was written last: which method was at work, and at what."""
    files = [path for path in out.rglob("*") if path.is_file() and path.name != ".lock"]
    if not files:
        return "nothing yet"
    return str(max(files, key=lambda path: path.stat().st_mtime_ns).relative_to(out))


def differences(calm: Path, killed: Path) -> Iterator[str]:
    """What is in one run and not in the other, or not the same there; and what was left behind."""
    ours, theirs = dict(contents(calm)), dict(contents(killed))
    for name in sorted(ours.keys() | theirs.keys()):
        if name not in theirs:
            yield f"missing: {name}"
        elif name not in ours:
            yield f"only after kills: {name}"
        elif ours[name] != theirs[name]:
            yield f"differs: {name}"
    for path in sorted(killed.rglob(".*")):
        if path.name != ".lock":
            yield f"left behind: {path.relative_to(killed)}"


def contents(out: Path) -> Iterator[tuple[str, str]]:
    """Name and digest of all that two runs of one study have alike."""
    for run in (out, *sorted((out / "variants").glob("*"))):
        found = [run / name for name in _NAMES if (run / name).is_file()]
        for folder in _FOLDERS:
            found += [path for path in (run / folder).rglob("*") if path.is_file()]
        for path in found:
            yield str(path.relative_to(out)), digest(path)


def digest(path: Path) -> str:
    """Of a file's bytes; of a record, without what no two runs have alike."""
    data = path.read_bytes()
    if path.name in ("done.json", "contributions.json"):
        data = json.dumps(timeless(json.loads(data)), sort_keys=True).encode()
    elif path.name == "rounds.jsonl":
        rows = [timeless(json.loads(line)) for line in data.splitlines()]
        data = json.dumps(rows, sort_keys=True).encode()
    return hashlib.sha256(data).hexdigest()


def timeless(value: object) -> object:
    """JSON without ``_BESIDE``, however deep."""
    if isinstance(value, dict):
        return {key: timeless(one) for key, one in value.items() if key not in _BESIDE}
    if isinstance(value, list):
        return [timeless(one) for one in value]
    return value


def print_kills(kills: Sequence[Kill]) -> None:
    print("kill  after s  methods done  last written")
    for number, kill in enumerate(kills, start=1):
        print(f"{number:4}  {kill.seconds:7.1f}  {kill.done:12}  {kill.newest}")


if __name__ == "__main__":
    sys.exit(main())
