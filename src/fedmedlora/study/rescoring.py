"""A run folder's raw answers in, its scores made again out: neither a model nor torch is needed.

Scored is against the run's own copy of gold: of the study's files, only dictionaries need the
training notes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from fedmedlora.config import Study
from fedmedlora.durable import resolved
from fedmedlora.errors import NoRunError, RunError
from fedmedlora.study.arms import study_arms
from fedmedlora.study.data import CohortData, StudyData, load_data
from fedmedlora.study.run_folder import RunFolder
from fedmedlora.study.scoring import Scored, pool_seeds, score_run


def rescore(out: Path, *, method: str | None = None) -> list[str]:
    """Score a run again from its raw answers, and its further runs.

    Comparisons and the mean over seeds are made again with the scores. A mean over seeds of which
    one is not finished is removed: it would be of scores that are no more.

    Args:
        out: the run folder.
        method: the label of one arm, whose answers alone are read again, wherever it is.

    Returns:
        Names of further runs that are not finished and were left alone.

    Raises:
        RunError: answers or gold are missing, or do not fit each other; or another process is at
            work in this run folder.
        NoRunError: it is no run folder, or that of a seed whose mean is in another.
        ConfigError: the study has no such method.
        DataError: training notes that a dictionary needs cannot be read.
    """
    folder = RunFolder(out)
    study = folder.study()
    _refuse_seed(folder)
    with ExitStack() as alone:
        alone.enter_context(folder.alone())
        for one in _begun(folder):
            alone.enter_context(one.alone())
        return _rescore(folder, study, only=method)


def _begun(folder: RunFolder) -> Iterator[RunFolder]:
    """The further runs that have a folder."""
    for record in folder.further_runs():
        one = RunFolder(folder.path / str(record["folder"]))
        if (one.path / "study.yaml").is_file():
            yield one


def _rescore(folder: RunFolder, study: Study, *, only: str | None) -> list[str]:
    scored = {study.seed: _score(folder, study, only=only)}
    unfinished = []
    all_seeds = True
    for record in folder.further_runs():
        one = RunFolder(folder.path / str(record["folder"]))
        again = _finished_study(one)
        if again is None or (only is not None and not (one.path / "scores.json").is_file()):
            unfinished.append(str(record["name"]))
            all_seeds &= record["kind"] != "seeds"
        elif only is None or any(arm.label == only for arm in study_arms(again)):
            result = _score(one, again, only=only)
            if record["kind"] == "seeds":
                scored[again.seed] = result
    if len(scored) > 1 and all_seeds:
        folder.write_json("seeds.json", pool_seeds(scored))
    return unfinished


def _refuse_seed(folder: RunFolder) -> None:
    """Refuse a seed by itself: the mean over seeds, in the whole run's folder, would be stale."""
    place = resolved(folder.path)
    whole = RunFolder(place.parent.parent)
    if place.parent.name != "variants" or not (whole.path / "study.yaml").is_file():
        return
    seeds = [record for record in whole.further_runs() if record["kind"] == "seeds"]
    if any(resolved(whole.path / str(record["folder"])) == place for record in seeds):
        raise NoRunError(
            f"{folder.path} is one seed of {whole.path}, whose seeds.json has the mean: "
            f"`fedmedlora rescore {whole.path}`"
        )


def _finished_study(folder: RunFolder) -> Study | None:
    """The study of a run all of whose arms are done, or None."""
    if not (folder.path / "study.yaml").is_file():
        return None
    study = folder.study()
    asked = [arm for arm in study_arms(study) if arm.kind != "dictionary"]
    return study if all(folder.done(arm.label) for arm in asked) else None


def _score(folder: RunFolder, study: Study, *, only: str | None = None) -> Scored:
    arms = [arm for arm in study_arms(study) if only in (None, arm.label)]
    data = StudyData(sites=(), cohorts=read_cohorts(folder))
    if any(arm.kind == "dictionary" for arm in arms):
        data = replace(load_data(study), cohorts=data.cohorts)
    return score_run(folder, study, data, only=only)


def read_cohorts(folder: RunFolder) -> tuple[CohortData, ...]:
    """The cohorts that a run was asked about, from its own gold and data.json.

    Raises:
        RunError: a file is missing or broken.
    """
    content = folder.read_json("data.json")
    try:
        covers = {name: frozenset(told["covers"]) for name, told in content["cohorts"].items()}
    except (TypeError, KeyError, AttributeError) as error:
        file = folder.path / "data.json"
        raise RunError(f"{file} is not what a run writes there; run the study again") from error
    return tuple(
        CohortData(name, tuple(folder.read_gold(name)), types) for name, types in covers.items()
    )
