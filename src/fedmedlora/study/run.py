"""A study from its configuration to its scores: every arm trained, asked, read and scored.

Arms run one after another, or side by side in worker processes (``runtime.processes``); each is
deterministic by itself, so the order does not matter. A run that was interrupted goes on where it
stopped when it is started again on the same folder.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fedmedlora.config import Study
from fedmedlora.corpus.jsonl import as_record
from fedmedlora.progress import OnEvent
from fedmedlora.study.api_method import check_arms
from fedmedlora.study.arms import Arm, study_arms
from fedmedlora.study.data import StudyData, load_data
from fedmedlora.study.lora_bench import task_settings
from fedmedlora.study.method_run import run_method
from fedmedlora.study.methods import MethodRunner, first_rounds_of
from fedmedlora.study.processes import run_side_by_side
from fedmedlora.study.run_folder import RunFolder
from fedmedlora.study.scoring import Scored, pool_seeds, score_run
from fedmedlora.study.variants import FurtherRun, further_runs, main_study
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
    for one in (*(run.study for run in further), study):
        check_arms(study_arms(one))
        data = load_data(one)
    folder = RunFolder(out)
    folder.begin(study)
    with folder.alone():
        folder.write_json("variants.json", [run.record() for run in further])
        scored = {study.seed: _run_one(study, data, folder, tell)}
        for run in further:
            done = _run_further(run, folder, tell)
            if run.kind == "seeds":
                scored[run.study.seed] = done
        if len(scored) > 1:
            folder.write_json("seeds.json", pool_seeds(scored))


def _run_further(run: FurtherRun, main: RunFolder, tell: OnEvent) -> Scored:
    data = load_data(run.study)
    folder = RunFolder(main.path / run.folder)
    folder.begin(run.study)
    return _run_one(run.study, data, folder, tell)


def _run_one(study: Study, data: StudyData, folder: RunFolder, tell: OnEvent) -> Scored:
    arms = study_arms(study)
    # Dictionaries are looked up while scoring: there is nothing to run.
    left = [arm for arm in arms if arm.kind != "dictionary" and not folder.done(arm.label)]
    labels = [arm.label for arm in left]
    tell("study", {"methods": labels, "cohorts": [cohort.name for cohort in data.cohorts]})
    folder.write_json("data.json", _describe(study, data))
    folder.write_json("methods.json", [arm.record() for arm in arms])
    for cohort in data.cohorts:
        lines = [json.dumps(as_record(d), ensure_ascii=False) + "\n" for d in cohort.documents]
        folder.write(f"gold/{cohort.name}.jsonl", "".join(lines))
    spread = study.runtime.processes > 1 and study.federation.engine == "in-process"
    if spread and len(left) > 1:
        run_side_by_side(study, folder.path, left, on_event=tell)
    elif left:
        runner = MethodRunner(study, data, folder.path, tell)
        for arm in left:
            run_method(runner, arm, folder=folder, on_event=tell)
    # Not where it failed: an interrupted run takes them up again.
    shutil.rmtree(first_rounds_of(folder.path), ignore_errors=True)
    _collect_rounds(folder, arms)
    return score_run(folder, study, data)


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


def rescore(out: Path, *, method: str | None = None) -> None:
    """Score a run again from its raw answers, and its further runs; no model is needed.

    Args:
        out: the run folder.
        method: the label of one arm, whose scores alone are made again.

    Raises:
        RunError: answers are missing or do not fit the data.
        ConfigError: the study has no such method.
    """
    folder = RunFolder(out)
    study = folder.study()
    scored = {study.seed: score_run(folder, study, load_data(study), only=method)}
    if method is not None:
        return
    for record in folder.further_runs():
        one = RunFolder(out / str(record["folder"]))
        again = one.study()
        result = score_run(one, again, load_data(again))
        if record["kind"] == "seeds":
            scored[again.seed] = result
    if len(scored) > 1:
        folder.write_json("seeds.json", pool_seeds(scored))
