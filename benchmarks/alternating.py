"""Sides of a comparison timed in turns, so that whatever else the machine does meets them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping


def alternate(sides: Mapping[str, Callable[[], object]], *, times: int) -> dict[str, float]:
    """Median seconds of each side, over so many turns of all; one turn before is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(times + 1):
        for name, side in sides.items():
            started = time.perf_counter()
            side()
            if turn:
                seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(found) for name, found in seconds.items()}
