"""A coordinator's side of a federation: its folder and Flower's Grid in, a trained adapter out.

FOLDER/run/federation/LABEL/    checkpoints, as a study on one machine writes them
FOLDER/run/journal.json         how far it is
FOLDER/run/adapters/LABEL/      the trained adapter, as ``keeping`` writes it
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from fedmedlora.config_deployment import load_coordinator
from fedmedlora.durable import clear_leftovers
from fedmedlora.errors import FedMedLoRAError
from fedmedlora.federation.deployment.journal import Journal, at_work
from fedmedlora.federation.deployment.layout import CoordinatorFolder
from fedmedlora.federation.flower import Grid
from fedmedlora.federation.run import run_on_grid
from fedmedlora.study.admitting import all_admitted
from fedmedlora.study.arms import Arm
from fedmedlora.study.benches import Bench
from fedmedlora.study.data import StudyData
from fedmedlora.study.keeping import keep_adapter
from fedmedlora.study.methods import MethodRunner
from fedmedlora.study.planning import federation_plan
from fedmedlora.study.shared import read_shared

#: Seconds between two questions for replies: sites take minutes.
POLL_S = 1.0


def run_coordinator(grid: Grid, root: Path) -> None:
    """Run a federation, or go on with it, over the sites behind a grid.

    Args:
        grid: Flower's.
        root: the coordinator's folder.

    Raises:
        FedMedLoRAError: as of ``federation.run.run_on_grid``; the journal has it too.
    """
    folder = CoordinatorFolder(root)
    settings, shared, run = load_coordinator(folder.settings), read_shared(folder.study), folder.run
    names = tuple(shared.study.sites)
    rounds = shared.arm.study.federation.rounds
    with at_work(run):
        journal = Journal(run, run_id=shared.run_id, rounds=rounds, sites=names)
        try:
            clear_leftovers(run)
            members = all_admitted(folder, names)
            runner = MethodRunner(shared.study, StudyData((), ()), run, lambda kind, facts: None)
            bench = runner.bench(shared.arm)
            base = bench.base(shared.arm.study)
            plan = replace(
                federation_plan(shared.arm, names),
                run_id=shared.run_id,
                connect_s=60 * settings.wait_minutes,
                processes=1,
                public_keys=tuple((site, made.signing) for site, made in members.items()),
            )
            result = run_on_grid(
                grid,
                plan,
                base.initial,
                folder=run / "federation" / shared.arm.label,
                on_event=journal.tell,
                resume=True,
                key=folder.signing_key,
                poll_s=POLL_S,
            )
            keep_adapter(
                run / "adapters" / shared.arm.label,
                result.adapter,
                arm=shared.arm,
                bench=bench,
                # What each site annotated is known to that site.
                covers=frozenset(bench.scheme.types),
                open_biases=_open_biases(bench, shared.arm),
                federation=run / "federation" / shared.arm.label,
            )
        except FedMedLoRAError as error:
            journal.end("failed", reason=str(error))
            raise
        journal.end("done")


def _open_biases(bench: Bench, arm: Arm) -> dict[str, float]:
    """The study's number for each task; 0 where it is to be chosen on notes: they are elsewhere."""
    bias, _ = bench.open_bias(arm.study)
    return dict.fromkeys(bench.settings.tasks, 0.0 if isinstance(bias, str) else bias)
