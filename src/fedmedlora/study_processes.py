"""Methods of a study side by side in worker processes, each with its own copy of the backbone.

Every method is deterministic by itself and writes to its own places in the run folder, so running
them side by side changes nothing but the time. Events travel back through a queue.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any

from fedmedlora.config import Study
from fedmedlora.progress import OnEvent

#: Methods that take longest begin first, so that no process is left with a long one at the end.
_LONGEST_FIRST = ("fed-medlora+", "fed-medlora", "centralised", "single-site", "zero-shot")
_POLL_S = 0.2

_worker: dict[str, Any] = {}


def run_side_by_side(study: Study, out: Path, labels: Sequence[str], *, on_event: OnEvent) -> None:
    """Run methods in ``study.runtime.processes`` processes.

    Raises:
        FedMedLoRAError: of the first method that failed; methods that ended before are kept.
    """
    # One thread a process: threads that wait for each other cost more than they bring.
    os.environ.setdefault("OMP_NUM_THREADS", str(study.runtime.threads))
    context = multiprocessing.get_context("spawn")
    events = context.Queue()
    order = sorted(labels, key=lambda label: _LONGEST_FIRST.index(label.split("/")[0]))
    pool = ProcessPoolExecutor(
        max_workers=min(study.runtime.processes, len(order)),
        mp_context=context,
        initializer=_open,
        initargs=(study, out, events),
    )
    try:
        waiting = {pool.submit(_run, label) for label in order}
        while waiting:
            done, waiting = wait(waiting, timeout=_POLL_S, return_when=FIRST_COMPLETED)
            _drain(events, on_event)
            for future in done:
                future.result()
        pool.shutdown()
    except BaseException:
        # Checkpoints are whole at any moment: what is running may be stopped at once.
        for process in list((pool._processes or {}).values()):
            process.terminate()
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    finally:
        _drain(events, on_event)
        events.close()


def _drain(events: Any, on_event: OnEvent) -> None:
    while True:
        try:
            kind, facts = events.get_nowait()
        except (queue.Empty, OSError, ValueError):
            return
        on_event(kind, facts)


def _open(study: Study, out: Path, events: Any) -> None:
    # Ctrl-C is the parent's to handle; it ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _worker.update(study=study, out=out, events=events)


def _run(label: str) -> None:
    from fedmedlora.method_run import run_method
    from fedmedlora.run_folder import RunFolder
    from fedmedlora.study_data import load_data
    from fedmedlora.study_methods import MethodRunner

    def tell(kind: str, facts: dict[str, object]) -> None:
        _worker["events"].put((kind, facts))

    if "runner" not in _worker:
        data = load_data(_worker["study"])
        _worker["data"] = data
        _worker["runner"] = MethodRunner(_worker["study"], data, _worker["out"], tell)
    run_method(
        _worker["runner"],
        label,
        data=_worker["data"],
        folder=RunFolder(_worker["out"]),
        on_event=tell,
    )
