"""Epsilon x method x F1 x membership AUC x exposure x seconds, over the seeds of a finished run.

    python benchmarks/privacy.py runs/privacy [--processes 2]

The run is of a study with `seeds` and with canaries or withheld notes (`leakage`), such as
studies/privacy.yaml. Runs without leakage.json are measured first (`fedmedlora leakage`), so many
at a time. Every cell is the mean over seeds, with the least and the most in brackets. F1: strict,
micro, all cohorts, of test notes. AUC: of all sites' training notes against withheld ones, by loss
and calibrated; TPR: the share of them found at 5 % false positives. Exposure: bits at
the largest number of repetitions, canaries `inside` and `beside` annotated spans. Rare words: AUC
of "whose is it?", mean of sites, from one site's update and from the sum that secure aggregation
leaves. Seconds: of a row, training and decoding, as the run had the machine.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import multiprocessing
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from fedmedlora.errors import RunError
from fedmedlora.leakage.meter import measure_leakage
from fedmedlora.leakage.records import ALL, Leakage, Membership, read_leakage
from fedmedlora.progress import quiet_libraries
from fedmedlora.study.run_folder import RunFolder

HEAD = (
    "method", "epsilon", "strict F1", "AUC, loss", "AUC, calibrated", "TPR, calibrated",
    "exposure, inside", "beside", "rare words, update", "sum", "seconds",
)  # fmt: skip
Measure = Callable[[Leakage, str], Iterable[float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    runs = [arguments.run, *sorted(arguments.run.glob("variants/seed-*"))]
    missing = [run for run in runs if not measured(run)]
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(arguments.processes, mp_context=context) as pool:
        list(pool.map(measure, missing))
    print("| " + " | ".join(HEAD) + " |\n|" + "---|" * len(HEAD))
    for cells in rows(runs):
        print("| " + " | ".join(cells) + " |")


def measured(run: Path) -> bool:
    """Whether leakage.json has every adapter of a run."""
    try:
        found = read_leakage(RunFolder(run))
    except RunError:  # of an earlier version, which did not measure all of it
        return False
    adapters = {folder.name for folder in (run / "adapters").iterdir()}
    return found is not None and adapters <= set(found.adapters)


def measure(run: Path) -> None:
    """Write one run's leakage.json."""
    quiet_libraries()
    measure_leakage(run)


def rows(runs: Sequence[Path]) -> Iterable[tuple[str, ...]]:
    """The table's rows, in the order of the study's methods."""
    found = [(RunFolder(run), read_leakage(RunFolder(run))) for run in runs]
    for entry in found[0][0].read_json("methods.json"):
        label = entry["label"]
        values: dict[str, list[float]] = defaultdict(list)
        epsilon = ""
        for folder, leakage in found:
            done = folder.read_json(f"answers/{label}/done.json")
            promise: dict[str, Any] | None = done.get("privacy")
            epsilon = f"{promise['budget']:g}" if promise else "none"
            values["strict F1"].append(strict_f1(folder, label))
            values["seconds"].append(done["seconds"])
            if leakage is not None and label in leakage.adapters:
                for column, told in MEASURES.items():
                    values[column].append(mean(told(leakage, label)))
        yield entry["method"], epsilon, *(cell(column, values[column]) for column in HEAD[2:])


def strict_f1(folder: RunFolder, label: str) -> float:
    """Micro F1 of entities on all cohorts' test notes."""
    asked = {"method": label, "cohort": ALL, "task": "entities", "matching": "strict",
             "level": "typed", "type": "micro"}  # fmt: skip
    scores = json.loads((folder.path / "scores.json").read_text())
    [found] = [one["f1"] for one in scores if asked.items() <= one.items()]
    return float(found)


def membership(score: str) -> Measure:
    return lambda found, label: [one.auc for one in of_all_sites(found, label, score)]


def found_at_few_alarms(score: str) -> Measure:
    return lambda found, label: [one.tpr for one in of_all_sites(found, label, score)]


def of_all_sites(found: Leakage, label: str, score: str) -> Sequence[Membership]:
    """Against withheld notes: over all sites, or at the only one."""
    asked = (label, "withheld", score)
    at = [one for one in found.membership if (one.method, one.against, one.score) == asked]
    return [one for one in at if one.site == ALL or len(at) == 1]


def exposed(kind: str) -> Measure:
    def bits(found: Leakage, label: str) -> Iterable[float]:
        of_it = [one for one in found.exposure if (one.method, one.kind) == (label, kind)]
        most = max((one.repetitions for one in of_it), default=0)
        return [one.bits for one in of_it if one.repetitions == most]

    return bits


def words(seen: str) -> Measure:
    return lambda found, label: [
        one.auc for one in found.words
        if (one.method, one.seen, one.question) == (label, seen, "whose")
    ]  # fmt: skip


MEASURES: dict[str, Measure] = {
    "AUC, loss": membership("loss"),
    "AUC, calibrated": membership("calibrated"),
    "TPR, calibrated": found_at_few_alarms("calibrated"),
    "exposure, inside": exposed("inside"),
    "beside": exposed("beside"),
    "rare words, update": words("update"),
    "sum": words("sum"),
}


def mean(values: Iterable[float]) -> float:
    """NaN of nothing: it was not measured."""
    listed = list(values)
    return sum(listed) / len(listed) if listed else float("nan")


def cell(column: str, values: Sequence[float]) -> str:
    """Mean over seeds, and from where to where."""
    if not values or any(value != value for value in values):
        return ""
    digits = {"seconds": 0, "exposure, inside": 1, "beside": 1}.get(column, 3)
    first, low, high = (f"{value:.{digits}f}" for value in (mean(values), min(values), max(values)))
    return first if len(values) == 1 else f"{first} ({low} to {high})"


if __name__ == "__main__":
    main()
