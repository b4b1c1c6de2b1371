"""A study from its configuration to its scores: every arm trained, asked, read and scored.

Arms run one after another, or side by side in worker processes (``runtime.processes``); each is
deterministic by itself, so the order does not matter. A run that was interrupted goes on where it
stopped when it is started again on the same folder.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fedmedlora.config import Study
from fedmedlora.corpus.jsonl import as_record
from fedmedlora.errors import RunError
from fedmedlora.model.backbone import check_name
from fedmedlora.progress import OnEvent
from fedmedlora.study.api_method import check_arms
from fedmedlora.study.arms import Arm, study_arms
from fedmedlora.study.data import SiteData, StudyData, load_data
from fedmedlora.study.ledgers import check_ledgers, note_unprotected
from fedmedlora.study.method_run import run_method
from fedmedlora.study.methods import MethodRunner, first_rounds_of
from fedmedlora.study.privacy import check_privacy
from fedmedlora.study.processes import Job, run_side_by_side
from fedmedlora.study.run_folder import RunFolder
from fedmedlora.study.scoring import Scored, pool_seeds, score_run
from fedmedlora.study.task_settings import task_settings
from fedmedlora.study.variants import further_runs, main_study
from fedmedlora.tasks.build import build_examples


def run_study(study: Study, out: Path, *, on_event: OnEvent | None = None) -> None:
    """Run a study and its further runs into a folder, or go on with it.

    Args:
        study: checked.
        out: the run folder; new, empty, or of an interrupted run of the same study.
        on_event: told (kind, facts) as ``progress`` lists them; the event "study" names the arms
            that are still to be run.

    Raises:
        FedMedLoRAError: the data, the backbone or the folder is wrong, or a federation failed.
            What was complete stays, and the same call goes on from there.
    """
    tell: OnEvent = on_event or (lambda kind, facts: None)
    study, further = main_study(study), further_runs(study)
    # Whatever the study file gets wrong is said before hours of work, not after them.
    for checked in (study, *(run.study for run in further)):
        check_arms(study_arms(checked))
        check_privacy(study_arms(checked), load_data(checked))
    runs_and_folders = [(study, out), *((run.study, out / run.folder) for run in further)]
    check_ledgers(runs_and_folders)
    _check_backbones(runs_and_folders)
    folder = RunFolder(out)
    for run in further:
        RunFolder(out / run.folder).check(run.study)
    folder.begin(study)
    with ExitStack() as alone:
        alone.enter_context(folder.alone())
        note_unprotected(runs_and_folders)
        folder.write_json("variants.json", [run.record() for run in further])
        runs = [_prepare(0, "", study, folder)]
        for place, run in enumerate(further, 1):
            own = RunFolder(out / run.folder)
            own.begin(run.study)
            alone.enter_context(own.alone())  # a command may be at work in that folder by itself
            runs.append(_prepare(place, run.name, run.study, own))
        labels = [job.shown_label for run in runs for job in run.jobs]
        tell("study", {"methods": labels})
        scored = _run_all(runs, study, tell)
        seeds = [run for run in further if run.kind == "seeds"]
        if seeds:
            by_seed = {run.study.seed: at for at, run in enumerate(further, 1) if run in seeds}
            pooled = {seed: scored[at] for seed, at in {study.seed: 0, **by_seed}.items()}
            folder.write_json("seeds.json", pool_seeds(pooled))


def _check_backbones(runs: Sequence[tuple[Study, Path]]) -> None:
    """Refuse a model that is not there, of any row that is still to be run."""
    named = {
        ("encoder.name", arm.study.encoder.name)
        if arm.is_tagger
        else ("backbone.name", arm.study.backbone.name)
        for study, folder in runs
        for arm in study_arms(study)
        if arm.kind != "dictionary"
        and arm.method != "api"
        and not RunFolder(folder).done(arm.label)
    }
    for key, name in sorted(named):
        check_name(name, key=key)


@dataclass(frozen=True)
class _Run:
    """One run of a study: where it is, its arms, and those that are still to be run."""

    study: Study
    folder: RunFolder
    arms: list[Arm]
    jobs: list[Job]


def _prepare(place: int, name: str, study: Study, folder: RunFolder) -> _Run:
    """Write what is known before anything is trained."""
    data = load_data(study)
    arms = study_arms(study)
    described = _describe(study, data)
    _refuse_other_tasks(folder, described)
    folder.write_json("data.json", described)
    folder.write_json("methods.json", [arm.record() for arm in arms])
    for cohort in data.cohorts:
        lines = [json.dumps(as_record(d), ensure_ascii=False) + "\n" for d in cohort.documents]
        folder.write(f"gold/{cohort.name}.jsonl", "".join(lines))
    jobs = [
        Job(place, name, study, folder.path, arm)
        for arm in arms
        # Dictionaries are looked up while scoring: there is nothing to run.
        if arm.kind != "dictionary" and not folder.done(arm.label)
    ]
    return _Run(study, folder, arms, jobs)


def _refuse_other_tasks(folder: RunFolder, described: Mapping[str, Any]) -> None:
    """A site's tasks may follow from its notes, which are not in the study file."""
    if not (folder.path / "data.json").is_file():
        return
    before = folder.read_json("data.json")
    for group in ("sites", "new_sites"):
        for name, told in described[group].items():
            try:
                tasks = before[group][name]["tasks"]
            except (KeyError, TypeError):
                continue
            if tasks != told["tasks"]:
                raise RunError(
                    f"{folder.path}: in the run there, {group}.{name} takes part in "
                    f"{', '.join(tasks)}, and now in {', '.join(told['tasks'])}; take another "
                    "folder"
                )


def _run_all(runs: Sequence[_Run], study: Study, tell: OnEvent) -> dict[int, Scored]:
    """Run every arm that is left; a run is scored when its last arm has ended."""
    scored: dict[int, Scored] = {}

    def finish(place: int) -> None:
        run = runs[place]
        # Not where it failed: an interrupted run takes them up again.
        shutil.rmtree(first_rounds_of(run.folder.path), ignore_errors=True)
        _collect_rounds(run.folder, run.arms)
        scored[place] = score_run(run.folder, run.study, load_data(run.study))

    jobs = [job for run in runs for job in run.jobs]
    for place, run in enumerate(runs):
        if not run.jobs:
            finish(place)
    runtime = study.runtime
    if runtime.processes > 1 and study.federation.engine == "in-process" and len(jobs) > 1:
        run_side_by_side(
            jobs,
            processes=runtime.processes,
            threads=runtime.threads,
            on_event=tell,
            on_run_done=finish,
        )
        return scored
    for place, run in enumerate(runs):
        if run.jobs:
            _run_one_by_one(run, tell)
            finish(place)
    return scored


def _run_one_by_one(run: _Run, tell: OnEvent) -> None:
    runner = MethodRunner(run.study, load_data(run.study), run.folder.path, tell)
    for job in run.jobs:

        def told(kind: str, facts: dict[str, object], label: str = job.shown_label) -> None:
            tell(kind, {**facts, "method": label})

        runner.on_event = told
        run_method(runner, job.arm, folder=run.folder, on_event=told)


def _describe(study: Study, data: StudyData) -> dict[str, Any]:
    settings, scheme = task_settings(study), study.make_scheme()
    sites: dict[str, Any] = {}
    new_sites: dict[str, Any] = {}
    for site in (*data.sites, *data.new_sites):
        _, built = build_examples(site.train, covers=site.covers, scheme=scheme, settings=settings)
        told = {
            "train": len(site.train),
            "validation": len(site.validation),
            "tasks": list(site.tasks),
            "covers": [name for name in scheme.types if name in site.covers],
            "annotates": _levels(study, site.name, site.covers),
            "training_examples": asdict(built),
            **_for_the_meter(site),
        }
        (sites if site in data.sites else new_sites)[site.name] = told
    cohorts = {
        cohort.name: {
            "documents": len(cohort.documents),
            "covers": [name for name in scheme.types if name in cohort.covers],
            "annotates": _levels(study, cohort.name, cohort.covers),
        }
        for cohort in data.cohorts
    }
    return {"sites": sites, "new_sites": new_sites, "cohorts": cohorts}


def _for_the_meter(site: SiteData) -> dict[str, int]:
    """What the leakage section changed of a site's notes, if anything."""
    told = {"withheld": len(site.withheld), "canaries": len(site.canaries)}
    return {name: count for name, count in told.items() if count}


def _levels(study: Study, name: str, covers: frozenset[str]) -> dict[str, str]:
    """Type -> how its annotators looked for it; exhaustive where the study does not say."""
    part = study.sites.get(name) or study.new_sites.get(name) or study.cohorts.get(name)
    told = part.annotates if part is not None and isinstance(part.annotates, dict) else {}
    return {
        kind: told.get(kind, "exhaustive") if kind in covers else "none"
        for kind in study.make_scheme().types
    }


def _collect_rounds(folder: RunFolder, arms: Sequence[Arm]) -> None:
    lines, curves = [], []
    for arm in arms:
        done = folder.done(arm.label) or {}
        lines += [json.dumps({**record, "method": arm.label}) for record in done.get("rounds", [])]
        curves += done.get("validation_rounds", [])
    folder.write("rounds.jsonl", "".join(line + "\n" for line in lines))
    folder.write_json("validation_rounds.json", curves)
