"""Methods of a study side by side in worker processes, each with its own copy of the backbone.

Every method is deterministic by itself and writes to its own places in the run folder, so running
them side by side changes nothing but the time. Events travel back through a queue.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedmedlora.aggregation.methods import METHODS
from fedmedlora.config import Study
from fedmedlora.errors import RunError
from fedmedlora.orphans import end_with_parent
from fedmedlora.progress import OnEvent
from fedmedlora.study.arms import Arm

_POLL_S = 0.2

_worker: dict[str, Any] = {}


@dataclass(frozen=True)
class Job:
    """One arm of one of a study's runs.

    Attributes:
        run: place of the run among them: earlier ones begin first.
        name: of the run, for messages; "" for the main one.
        study: of the run.
        folder: of the run.
        arm: to be run.
    """

    run: int
    name: str
    study: Study
    folder: Path
    arm: Arm

    @property
    def shown_label(self) -> str:
        """The arm's label after the run's name."""
        return f"{self.name}: {self.arm.label}" if self.name else self.arm.label


def run_side_by_side(
    jobs: Sequence[Job],
    *,
    processes: int,
    threads: int,
    on_event: OnEvent,
    on_run_done: Callable[[int], None],
) -> None:
    """Run arms in several processes; each after the one it starts from.

    Args:
        jobs: of one study's runs.
        processes, threads: of the study's runtime.
        on_event: told of progress.
        on_run_done: told the place of a run whose last arm has ended.

    Raises:
        FedMedLoRAError: of the first method that failed, or RunError if a process was killed;
            methods that ended before are kept.
    """
    # One thread a process: threads that wait for each other cost more than they bring.
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    context = multiprocessing.get_context("spawn")
    events = context.Queue()
    pool = ProcessPoolExecutor(
        max_workers=min(processes, len(jobs)),
        mp_context=context,
        initializer=_open,
        initargs=(events,),
    )
    try:
        undone = {(job.run, job.arm.label) for job in jobs}
        left = sorted(jobs, key=lambda job: (job.run, -_cost(job.arm)))
        running: dict[Future[None], Job] = {}
        while left or running:
            waits = [job for job in left if (job.run, job.arm.of) in undone]
            ready = [job for job in left if job not in waits]
            left = waits
            with _ctrl_c_held_back():
                running |= {pool.submit(_run, job): job for job in ready}
            done, _ = wait(running, timeout=_POLL_S, return_when=FIRST_COMPLETED)
            _drain(events, on_event)
            for future in done:
                future.result()
                job = running.pop(future)
                undone.discard((job.run, job.arm.label))
                if job.run not in {run for run, _ in undone}:
                    on_run_done(job.run)
        pool.shutdown()
        _drain(events, on_event)
    except BrokenProcessPool as error:
        _end(pool)
        raise RunError(
            "a worker process was killed, most often because memory ran out; try a smaller "
            "runtime.processes: the same command goes on with what is not done"
        ) from error
    except BaseException:
        _end(pool)
        raise
    finally:
        # Not read again after an end by force: a worker that died while it wrote leaves half of an
        # event, and whoever reads that waits for ever.
        events.close()


def _cost(arm: Arm) -> float:
    """About how long an arm takes: long ones begin first, and leave no process alone at the end.

    Centralised training shares no first round, so it stands between those that do.
    """
    if arm.kind == "centralised":
        return 9
    if arm.kind == "federated":
        return 10 if METHODS[arm.federated_method].scored else 8
    return {"single": 5, "new-site": 2, "adapted": 2}.get(arm.kind, 1)


def _end(pool: ProcessPoolExecutor) -> None:
    """Stop all workers at once: checkpoints are whole at any moment."""
    for process in list((pool._processes or {}).values()):
        process.terminate()
    pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def _ctrl_c_held_back() -> Iterator[None]:
    """Processes started inside never see Ctrl-C, not even before their first line of ours.

    They inherit the mask of signals; here a Ctrl-C takes effect when the block ends.
    """
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _drain(events: Any, on_event: OnEvent) -> None:
    while True:
        try:
            kind, facts = events.get_nowait()
        except (queue.Empty, OSError, ValueError):
            return
        on_event(kind, facts)


def _open(events: Any) -> None:
    # Ctrl-C is the parent's to handle; it ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    _worker.update(events=events)


def _run(job: Job) -> None:
    from fedmedlora.study.data import load_data
    from fedmedlora.study.method_run import run_method
    from fedmedlora.study.methods import MethodRunner
    from fedmedlora.study.run_folder import RunFolder

    def tell(kind: str, facts: dict[str, object]) -> None:
        _worker["events"].put((kind, {**facts, "method": job.shown_label}))

    if _worker.get("folder") != job.folder:
        # One run's notes and backbone at a time.
        _worker["runner"] = None
        _worker["runner"] = MethodRunner(job.study, load_data(job.study), job.folder, tell)
        _worker["folder"] = job.folder
    runner = _worker["runner"]
    runner.on_event = tell
    run_method(runner, job.arm, folder=RunFolder(job.folder), on_event=tell)
