"""Events of a run in, progress on stderr out: a bar for each method, or lines at start and end.

Events are (kind, facts); several methods may run at once, so that theirs interleave:
("study", {methods still to be run}), ("method", {method}),
("round", {method, round, rounds}),
("step", {method, site, round, step, steps, loss}), ("tuning", {method, candidates}),
("decoding", {method, cohort, done, total}), ("method-done", {method, seconds}).
Other kinds and facts are passed over.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

#: Told of progress: (kind, facts).
OnEvent = Callable[[str, dict[str, object]], None]


def quiet_libraries() -> None:
    """Keep what libraries say to each other out of the way, here and in worker processes.

    To be called before they are imported. What the user has set in the environment stays.
    """
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    # Python's own tracker cleans up after an interruption, and need not say so.
    os.environ.setdefault("PYTHONWARNINGS", "ignore::FutureWarning,ignore:resource_tracker")
    warnings.simplefilter("ignore", FutureWarning)


@contextmanager
def show_progress() -> Iterator[OnEvent]:
    """Give a function to tell events to, and show them until the block ends.

    On a terminal: bars. Elsewhere: a line for each method that begins, and one when it is done.
    """
    if not sys.stderr.isatty():
        yield _tell_lines
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.table import Column

    with Progress(
        # In a narrow terminal the words give way (they wrap), not the time left.
        TextColumn("{task.description}", table_column=Column(no_wrap=False)),
        BarColumn(bar_width=12, table_column=Column(no_wrap=True)),
        TextColumn("left"),
        TimeRemainingColumn(table_column=Column(no_wrap=True)),
        console=Console(stderr=True),
        # Tables go to stdout, which may be a file.
        redirect_stdout=False,
        transient=True,
    ) as progress:
        yield Bars(progress).tell


def _tell_lines(kind: str, facts: dict[str, object]) -> None:
    if kind == "method":
        sys.stderr.write(f"{facts.get('method', '?')}: started\n")
    elif kind == "method-done":
        sys.stderr.write(f"{done_line(facts)}\n")
    sys.stderr.flush()


def done_line(facts: dict[str, object]) -> str:
    """What is said of a method that is done."""
    return f"{facts.get('method', '?')}: done in {_number(facts, 'seconds'):.0f} s"


@dataclass(slots=True)
class MethodProgress:
    """How far one method is, as its events tell it.

    Training counts the steps of all its sites in all rounds that are still to be run: one that goes
    on after an interruption does not begin at round 1. How many sites a round has shows in the
    first round that is run; until then the total may grow.

    Attributes:
        method: its name.
        description: what it is doing now.
        done, total: of the present stage: steps of training, or examples decoded.
        stage: "training", or the cohort that is decoded: another stage is another time left.
    """

    method: str
    description: str = ""
    done: int = 0
    total: int | None = None
    stage: str = ""
    _first: int | None = None
    _round: int = 1
    _rounds: int = 1
    _steps: dict[str, int] = field(default_factory=dict)
    _reached: dict[tuple[int, str], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.description = f"{self.method}  starting"

    def tell(self, kind: str, facts: dict[str, object]) -> None:
        """Take one event of this method."""
        if kind == "round":
            self._round = int(_number(facts, "round"))
            self._rounds = max(int(_number(facts, "rounds")), self._round)
            self._first = self._first or self._round
            self._train(f"round {self._round}/{self._rounds}")
        elif kind == "step":
            site = str(facts.get("site", ""))
            step, steps = int(_number(facts, "step")), int(_number(facts, "steps"))
            number = int(_number(facts, "round")) or self._round
            self._rounds = max(self._rounds, number)
            self._first = self._first or number
            self._steps[site] = steps
            self._reached[number, site] = step
            # The name of a single site is in the method's already.
            where = "" if self.method.endswith(f"/{site}") else f"{site}  "
            self._train(f"round {number}/{self._rounds}  {where}step {step}/{steps}")
        elif kind == "tuning":
            self.stage = "tuning"
            self.done, self.total = 0, None
            self.description = f"{self.method}  choosing the open bias on validation notes"
        elif kind == "decoding":
            cohort = str(facts.get("cohort", ""))
            self.stage = f"decoding {cohort}"
            self.done, self.total = int(_number(facts, "done")), int(_number(facts, "total"))
            self.description = f"{self.method}  {self.stage} {self.done}/{self.total}"

    def _train(self, what: str) -> None:
        self.stage = "training"
        self.done = sum(self._reached.values())
        rounds = self._rounds - (self._first or 1) + 1
        self.total = rounds * sum(self._steps.values()) or None
        self.description = f"{self.method}  {what}"


class Bars:
    """One bar for each running method, and one for the study.

    Args:
        progress: rich's display.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._study: TaskID | None = None
        self._running: dict[str, tuple[TaskID, MethodProgress]] = {}
        self._done = self._methods = 0

    def tell(self, kind: str, facts: dict[str, object]) -> None:
        """Take one event."""
        if kind == "study":
            methods: Any = facts.get("methods") or ()
            self._methods = len(methods)
            if methods:
                self._study = self._progress.add_task(self._summary(), total=self._methods)
            return
        method = facts.get("method")
        if not isinstance(method, str):
            return
        if kind == "method-done":
            self._end(method, facts)
            return
        if method not in self._running:
            shown = MethodProgress(method)
            task = self._progress.add_task(shown.description, total=None)
            self._running[method] = task, shown
        task, shown = self._running[method]
        stage = shown.stage
        shown.tell(kind, facts)
        if shown.stage != stage:
            # Another stage has another speed: its time left is reckoned anew.
            self._progress.reset(task, total=shown.total)
        self._progress.update(
            task, description=shown.description, completed=shown.done, total=shown.total
        )

    def _summary(self) -> str:
        return f"methods done {self._done}/{self._methods}"

    def _end(self, method: str, facts: dict[str, object]) -> None:
        running = self._running.pop(method, None)
        if running is not None:
            self._progress.remove_task(running[0])
        if self._study is not None:
            self._done += 1
            self._progress.update(self._study, completed=self._done, description=self._summary())
        self._progress.console.print(done_line(facts), highlight=False, markup=False)


def _number(facts: dict[str, object], name: str) -> float:
    value = facts.get(name)
    return float(value) if isinstance(value, int | float) else 0.0
