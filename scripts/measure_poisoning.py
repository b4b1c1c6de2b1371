"""What one site that lies does to the others, without a defence and with each.

    python scripts/measure_poisoning.py STUDY [key=value ...] [--site NAME] [--kinds ...]
        [--defences ...] [--notes test] [--processes 2] [--updates]

``scripts/poisoning.yaml`` is a study for it. One site (by default the last but one) sends poison in
every round: its update times 1,000; turned round; noise five times as long, around what it got; or
trained on notes whose entity types are swapped. Free riders send nothing, noise as long as an
update, or the global model's last step. Every kind runs without defence, with the default
screening, with one that refuses for directions too, and with each robust rule alone.

Prints strict micro F1 of entities / modifiers over all sites' notes, and who was refused or flagged
in which rounds. ``--notes validation`` (the default) is for choosing limits, ``test`` for tables.
``--updates`` prints the numbers that screening goes by.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmedlora.config import Study, load_study
from fedmedlora.errors import FederationError
from fedmedlora.federation.plan import Declared, Order, SiteLosses, SiteUpdate, SiteWorker
from fedmedlora.federation.records import RoundRecord
from fedmedlora.model.adapter import Adapter
from fedmedlora.progress import quiet_libraries
from fedmedlora.schema import Document, Scheme
from fedmedlora.seeds import derive_seed
from fedmedlora.study.arms import Arm, study_arms
from fedmedlora.study.by_round import score_round
from fedmedlora.study.data import StudyData, load_data
from fedmedlora.study.methods import MethodRunner

Tensors = Mapping[str, NDArray[Any]]

OFF: dict[str, object] = {
    f"federation.screening.{kind}": "off" for kind in ("norms", "directions", "riders")
}
DEFENCES: dict[str, dict[str, object]] = {
    "none": OFF,
    "screening": {},
    "directions": {"federation.screening.directions": "refuse"},
    **{
        rule: {**OFF, "federation.robust.rule": rule}
        for rule in ("median", "trimmed-mean", "krum", "clip")
    },
}
POISONS = ("times-1000", "sign-flip", "noise", "label-flip")
RIDERS = ("rider-nothing", "rider-noise", "rider-last-step")
CLEAN = "clean"


@dataclass(frozen=True)
class Case:
    """One federation: what the site sends, and what the others do about it."""

    kind: str
    defence: str


@dataclass(frozen=True)
class Outcome:
    """What became of it: F1 by task, and the records; or why it ended."""

    f1: Mapping[str, float]
    records: Sequence[RoundRecord]
    ended: str = ""

    @property
    def told(self) -> str:
        """F1 of the tasks, in points."""
        return self.ended or " / ".join(f"{100 * value:4.1f}" for value in self.f1.values())


class Liar:
    """A site that changes what it trained, or sends what it did not train.

    Implements ``SiteWorker``.
    """

    def __init__(self, honest: SiteWorker, kind: str, *, seed: int) -> None:
        self.name, self._honest, self._kind, self._seed = honest.name, honest, kind, seed
        self._before: Adapter | None = None

    def declared(self) -> Declared:
        """The honest site's."""
        return self._honest.declared()

    def losses(self, adapters: Sequence[Adapter]) -> SiteLosses:
        """The honest site's."""
        return self._honest.losses(adapters)

    def train(self, adapter: Adapter, order: Order) -> SiteUpdate:
        """What the honest site would send, poisoned; riders know of it no more than its length."""
        start = {name: tensor.copy() for name, tensor in adapter.tensors.items()}
        update = self._honest.train(adapter, order)
        steps = {name: one - start[name] for name, one in update.adapter.tensors.items()}
        last = self._before or Adapter(adapter.manifest, start)
        self._before = Adapter(adapter.manifest, start)
        made: dict[str, Callable[[], Tensors]] = {
            "times-1000": lambda: {name: 1000 * step for name, step in steps.items()},
            "sign-flip": lambda: {name: -step for name, step in steps.items()},
            "noise": lambda: self._noise(steps, order.round, times=5.0),
            "rider-noise": lambda: self._noise(steps, order.round, times=1.0),
            "rider-nothing": lambda: {name: 0 * step for name, step in steps.items()},
            "rider-last-step": lambda: {n: 0.8 * (start[n] - last.tensors[n]) for n in steps},
        }
        sent = made[self._kind]()
        tensors = {name: (start[name] + step).astype(np.float32) for name, step in sent.items()}
        return replace(update, adapter=Adapter(update.adapter.manifest, tensors))

    def _noise(self, steps: Tensors, round: int, *, times: float) -> Tensors:
        """Of ``times`` the length of the steps, in no direction."""
        rng = np.random.default_rng(derive_seed(self._seed, "noise", self.name, round))
        drawn = {name: rng.standard_normal(step.shape) for name, step in steps.items()}
        length, wanted = _norm(drawn), times * _norm(steps)
        return {name: value * (wanted / length) for name, value in drawn.items()}


def _norm(tensors: Tensors) -> float:
    return math.sqrt(sum(float((one.astype(np.float64) ** 2).sum()) for one in tensors.values()))


class LyingRunner(MethodRunner):
    """Trains a federation in which one site lies."""

    liar = ""
    kind = CLEAN

    def worker(self, arm: Arm, name: str, *, share_first: bool = True) -> SiteWorker:
        """See ``MethodRunner``."""
        honest = super().worker(arm, name, share_first=share_first)
        if name != self.liar or self.kind in (CLEAN, "label-flip"):
            return honest
        return Liar(honest, self.kind, seed=arm.study.seed)


def swapped(document: Document, scheme: Scheme) -> Document:
    """A note whose main entities have one another's types, in a ring.

    A modifier that its head may not take any more loses it.
    """
    mains = list(scheme.mains)
    ring = dict(zip(mains, [*mains[1:], mains[0]], strict=True))
    entities = tuple(replace(one, type=ring.get(one.type, one.type)) for one in document.entities)
    types = {one.id: one.type for one in entities}
    relations = tuple(
        one for one in document.relations if one.type in scheme.pairs[types[one.head]]
    )
    return replace(document, entities=entities, relations=relations)


def run_case(study: Study, liar: str, case: Case, folder: Path, notes: str) -> Outcome:
    """Train one federation and score its last adapter."""
    quiet_libraries()
    study = study.with_settings(DEFENCES[case.defence], where=f"defence {case.defence}")
    arm = replace(study_arms(study)[0], label=f"{case.kind}.{case.defence}")
    data = load_data(study)
    lied = data
    if case.kind == "label-flip":
        scheme = study.make_scheme()
        sites = [
            replace(site, train=tuple(swapped(one, scheme) for one in site.train))
            if site.name == liar
            else site
            for site in data.sites
        ]
        lied = replace(data, sites=tuple(sites))
    runner = LyingRunner(study, lied, folder, lambda kind, facts: None)
    runner.liar, runner.kind = liar, case.kind
    try:
        trained = runner.train(arm)
    except FederationError as error:
        return Outcome({}, (), ended="ended in round " + str(error).split(":")[0].split()[-1])
    scorer = MethodRunner(study, scored_on(data, notes), folder, lambda kind, facts: None)
    rows = score_round(
        scorer, arm, trained.adapter, number=study.federation.rounds,
        open_biases=trained.open_biases,
    )  # fmt: skip
    f1 = {row["task"]: row["f1"] for row in rows if row["matching"] == "strict"}
    return Outcome({task: f1[task] or 0.0 for task in study.task.tasks}, trained.records)


def scored_on(data: StudyData, notes: str) -> StudyData:
    """The sites with the notes that are scored in the place of validation notes."""
    if notes == "validation":
        return data
    tests = {cohort.name: cohort.documents for cohort in data.cohorts}
    sites = tuple(replace(site, validation=tests[site.name]) for site in data.sites)
    return replace(data, sites=sites)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path)
    parser.add_argument("settings", nargs="*")
    parser.add_argument("--site", help="who lies")
    parser.add_argument(
        "--kinds", nargs="*", default=[CLEAN, *POISONS], choices=(CLEAN, *POISONS, *RIDERS)
    )
    parser.add_argument("--defences", nargs="*", default=list(DEFENCES), choices=DEFENCES)
    parser.add_argument("--notes", default="validation", choices=("validation", "test"))
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--updates", action="store_true")
    arguments = parser.parse_args()
    study = load_study(arguments.study, arguments.settings)
    liar = arguments.site or study.site_names[-2]
    cases = [Case(kind, defence) for kind in arguments.kinds for defence in arguments.defences]
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        context = get_context("spawn")
        with ProcessPoolExecutor(arguments.processes, mp_context=context) as pool:
            futures = {
                case: pool.submit(run_case, study, liar, case, Path(folder), arguments.notes)
                for case in cases
            }
            outcomes = {case: future.result() for case, future in futures.items()}
    print(f"{liar} of {', '.join(study.site_names)} lies; {arguments.notes} notes;", end=" ")
    print(f"{time.monotonic() - started:.0f} s")
    print_scores(outcomes, arguments.kinds, arguments.defences, study.task.tasks)
    print_suspects(outcomes)
    if arguments.updates:
        print_updates(outcomes)


def print_scores(
    outcomes: Mapping[Case, Outcome],
    kinds: Sequence[str],
    defences: Sequence[str],
    tasks: Sequence[str],
) -> None:
    print(f"\nstrict F1, {' / '.join(tasks)}")
    print(f"{'defence':14}" + "".join(f"{kind:>18}" for kind in kinds))
    for defence in defences:
        cells = [outcomes[Case(kind, defence)].told for kind in kinds]
        print(f"{defence:14}" + "".join(f"{cell:>18}" for cell in cells))


def print_suspects(outcomes: Mapping[Case, Outcome]) -> None:
    print("\nrefused or flagged: rounds, the first reason")
    for case, outcome in outcomes.items():
        found: dict[tuple[str, str], list[tuple[int, str]]] = {}
        for record in outcome.records:
            for name, site in record.sites.items():
                if site.flags or site.status == "refused":
                    reason = "; ".join(site.flags.values()) or str(site.reason)
                    status = "refused" if site.status == "refused" else "flagged"
                    found.setdefault((name, status), []).append((record.round, reason))
        for (name, status), told in found.items():
            rounds = ", ".join(str(number) for number, _ in told)
            print(f"{case.kind}, {case.defence}: {name} {status} in {rounds}: {told[0][1]}")


def print_updates(outcomes: Mapping[Case, Outcome]) -> None:
    print("\nupdates: norm, times the median, mean cosine to the others, theirs, to the last step")
    for case, outcome in outcomes.items():
        for record in outcome.records:
            for name, site in record.sites.items():
                told = site.update
                names = ("norm", "times_median", "agreement", "others", "last_step", "nearest")
                values = " ".join(f"{told.get(key, float('nan')):8.3f}" for key in names)
                print(f"{case.kind:16}{case.defence:14}{record.round:3} {name:16}{values}")


if __name__ == "__main__":
    main()
