"""The leakage meter: a finished run in, its leakage.json out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from fedmedlora.evaluation.intervals import Bootstrap
from fedmedlora.leakage.bench import LeakageBench
from fedmedlora.leakage.exposure import measure_exposure
from fedmedlora.leakage.membership import measure_membership
from fedmedlora.leakage.records import FILE, Exposed, Leakage, Membership, RareWords
from fedmedlora.leakage.words import measure_words
from fedmedlora.progress import OnEvent
from fedmedlora.seeds import derive_seed
from fedmedlora.study.run_folder import RunFolder


def measure_leakage(
    out: Path, *, methods: Sequence[str] | None = None, on_event: OnEvent | None = None
) -> Leakage:
    """Measure a run's adapters and write leakage.json into its folder.

    Args:
        out: a finished run; its notes must be where its study says.
        methods: labels of rows; all with a LoRA adapter if None.
        on_event: told ("method", {method}) and ("method-done", {method, seconds}).

    Raises:
        RunError: the run is not finished, or another process writes into its folder.
        ConfigError: a method is no row of the run, or has no adapter.
        DataError: the notes cannot be read any more.
        AdapterError: an adapter was changed.
    """
    folder = RunFolder(out)
    folder.study()  # that it is a run folder, before a lock is put there
    with folder.alone():
        found = _measure(LeakageBench(folder, methods), on_event or (lambda kind, facts: None))
        folder.write_json(FILE, found.as_record())
    return found


def _measure(bench: LeakageBench, tell: OnEvent) -> Leakage:
    seed = bench.study.seed
    bootstrap = Bootstrap(seed=derive_seed(seed, "leakage"))
    membership: list[Membership] = []
    exposure: list[Exposed] = []
    words: list[RareWords] = []
    missing: list[str] = []
    tell("study", {"methods": [arm.label for arm in bench.arms]})
    for arm in bench.arms:
        started = time.monotonic()
        tell("method", {"method": arm.label})
        members, lacking = measure_membership(bench, arm, bootstrap=bootstrap)
        membership += members
        missing += lacking
        exposure += measure_exposure(bench, arm, bootstrap=bootstrap)
        if arm.kind == "federated":
            told, lacking = measure_words(bench, arm, bootstrap=bootstrap)
            words += told
            missing += lacking
        tell("method-done", {"method": arm.label, "seconds": time.monotonic() - started})
    if not exposure:
        missing.append("exposure: no canaries were planted (leakage.canaries)")
    return Leakage(
        seed=seed,
        adapters={arm.label: bench.adapter(arm).sha256 for arm in bench.arms},
        membership=tuple(membership),
        exposure=tuple(exposure),
        words=tuple(words),
        missing=tuple(missing),
    )
