"""A study from its configuration to its scores: every method trained, decoded, read and scored.

Methods run one after another, or side by side in worker processes (``runtime.processes``); each
is deterministic by itself, so the order does not matter. A run that was interrupted goes on where
it stopped when it is started again on the same folder.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from fedmedlora.config import Study
from fedmedlora.errors import RunError
from fedmedlora.evaluation.dictionary import (
    Dictionary,
    learn_dictionary,
    predict_entities,
    predict_modifiers,
)
from fedmedlora.evaluation.records import SCORED_OF, Cohort, ScoreRecord, score_cohorts
from fedmedlora.evaluation.tables import Table
from fedmedlora.progress import OnEvent
from fedmedlora.schema import Document, Scheme
from fedmedlora.study.data import CohortData, StudyData, load_data
from fedmedlora.study.method_run import run_method
from fedmedlora.study.methods import SINGLE, MethodRunner, first_rounds_of, task_settings
from fedmedlora.study.processes import run_side_by_side
from fedmedlora.study.run_folder import RunFolder
from fedmedlora.study.tables import run_tables
from fedmedlora.tasks.build import build_examples
from fedmedlora.tasks.reading import predict_documents


def method_labels(study: Study) -> list[str]:
    """Every row of the study's table: single sites and dictionaries once for each site."""
    labels: list[str] = []
    for method in study.methods:
        if method == "single-site":
            labels += [SINGLE + name for name in study.sites]
        elif method == "dictionary":
            labels += [*(f"dictionary/{name}" for name in study.sites), "dictionary"]
        else:
            labels.append(method)
    return labels


def _is_dictionary(label: str) -> bool:
    return label.split("/")[0] == "dictionary"


def run_study(study: Study, out: Path, *, on_event: OnEvent | None = None) -> None:
    """Run a study into a folder, or go on with it.

    Args:
        study: checked.
        out: the run folder; new, empty, or of an interrupted run of the same study.
        on_event: told (kind, facts) as ``progress`` lists them; the event "study" names the methods
            that are still to be run.

    Raises:
        FedMedLoRAError: the data, the backbone or the folder is wrong, or a federation failed.
            What was complete stays, and the same call goes on from there.
    """
    tell: OnEvent = on_event or (lambda kind, facts: None)
    data = load_data(study)
    folder = RunFolder(out)
    folder.begin(study)
    with folder.alone():
        labels = method_labels(study)
        # Dictionaries are looked up while scoring: there is nothing to run.
        left = [label for label in labels if not _is_dictionary(label) and not folder.done(label)]
        tell("study", {"methods": left, "cohorts": [cohort.name for cohort in data.cohorts]})
        folder.write_json("data.json", _describe(study, data))
        spread = study.runtime.processes > 1 and study.federation.engine == "in-process"
        if spread and len(left) > 1:
            run_side_by_side(study, out, left, on_event=tell)
        elif left:
            runner = MethodRunner(study, data, out, tell)
            for label in left:
                run_method(runner, label, data=data, folder=folder, on_event=tell)
        # Not where it failed: an interrupted run takes them up again.
        shutil.rmtree(first_rounds_of(out), ignore_errors=True)
        _collect_rounds(folder, labels)
        rescore(out, data=data)


def _describe(study: Study, data: StudyData) -> dict[str, Any]:
    settings, scheme = task_settings(study), study.make_scheme()
    sites = {}
    for site in data.sites:
        _, built = build_examples(site.train, covers=site.covers, scheme=scheme, settings=settings)
        sites[site.name] = {
            "train": len(site.train),
            "validation": len(site.validation),
            "covers": [name for name in scheme.types if name in site.covers],
            "training_examples": asdict(built),
        }
    cohorts = {
        cohort.name: {
            "documents": len(cohort.documents),
            "covers": [name for name in scheme.types if name in cohort.covers],
        }
        for cohort in data.cohorts
    }
    return {"sites": sites, "cohorts": cohorts}


def _collect_rounds(folder: RunFolder, labels: Sequence[str]) -> None:
    lines = []
    for label in labels:
        done = folder.done(label)
        for record in [] if done is None else done["rounds"]:
            lines.append(json.dumps({**record, "method": label}))
    folder.write("rounds.jsonl", "".join(line + "\n" for line in lines))


def rescore(out: Path, *, data: StudyData | None = None) -> None:
    """Score a run again from its raw answers; no model is needed.

    Raises:
        RunError: answers are missing or do not fit the data.
    """
    folder = RunFolder(out)
    study = folder.study()
    data = load_data(study) if data is None else data
    scheme = study.make_scheme()
    records: list[ScoreRecord] = []
    readings: dict[str, dict[str, dict[str, dict[str, int]]]] = {}
    for label in method_labels(study):
        if _is_dictionary(label):
            predicted = _look_up(label, study, data, scheme)
        else:
            predicted, readings[label] = _read(label, study, data, folder)
        done = folder.done(label)
        number = len(done["rounds"]) if done and done["rounds"] else None
        for task, cohorts in predicted.items():
            for cohort in data.cohorts:
                folder.write_predictions(label, task, cohort.name, cohorts[cohort.name])
            records += score_cohorts(
                {
                    cohort.name: Cohort(cohort.documents, cohorts[cohort.name], cohort.covers)
                    for cohort in data.cohorts
                },
                scheme=scheme,
                method=label,
                round=number,
                tasks=SCORED_OF[task],
            )
    folder.write_json("readings.json", readings)
    folder.write_json("scores.json", [record.as_dict() for record in records])


def _read(
    label: str, study: Study, data: StudyData, folder: RunFolder
) -> tuple[dict[str, dict[str, Sequence[Document]]], dict[str, dict[str, dict[str, int]]]]:
    """Predicted documents by task and cohort, and what became of the answers."""
    settings, scheme = task_settings(study), study.make_scheme()
    predicted: dict[str, dict[str, Sequence[Document]]] = {task: {} for task in settings.tasks}
    counts: dict[str, dict[str, dict[str, int]]] = {}
    for cohort in data.cohorts:
        examples, _ = build_examples(
            cohort.documents, covers=cohort.covers, scheme=scheme, settings=settings
        )
        answers = folder.read_answers(label, cohort.name, examples)
        read = predict_documents(cohort.documents, answers, scheme=scheme, tasks=settings.tasks)
        for task in settings.tasks:
            predicted[task][cohort.name] = read[task].documents
        counts[cohort.name] = {task: asdict(read[task].counts) for task in settings.tasks}
    return predicted, counts


def _look_up(
    label: str, study: Study, data: StudyData, scheme: Scheme
) -> dict[str, dict[str, Sequence[Document]]]:
    """A dictionary's predictions: of one site's training mentions, or of all sites'."""
    name = label.partition("/")[2]
    sites = [data.site(name)] if name else list(data.sites)
    documents = [_with_covers(d, site.covers) for site in sites for d in site.train]
    dictionary: Dictionary = learn_dictionary(documents, scheme=scheme)
    predicted: dict[str, dict[str, Sequence[Document]]] = {}
    for task in study.task.tasks:
        predicted[task] = {
            cohort.name: [_predict(dictionary, d, cohort, task, scheme) for d in cohort.documents]
            for cohort in data.cohorts
        }
    return predicted


def _predict(
    dictionary: Dictionary, document: Document, cohort: CohortData, task: str, scheme: Scheme
) -> Document:
    if task == "entities":
        return predict_entities(dictionary, document, covers=cohort.covers)
    return predict_modifiers(dictionary, document, scheme=scheme, covers=cohort.covers)


def _with_covers(document: Document, covers: frozenset[str]) -> Document:
    return document if document.covers is not None else replace(document, covers=covers)


def study_tables(out: Path) -> list[Table]:
    """The tables of a finished run: scores of every method, and traffic.

    Raises:
        RunError: the folder is no run, or the run is not finished.
    """
    folder = RunFolder(out)
    content = folder.read_json("scores.json")
    done = {label: folder.done(label) for label in method_labels(folder.study())}
    try:
        records = [ScoreRecord(**record) for record in content]
        if not records:
            raise RunError(f"{out} has no scores")
        return run_tables(records, done)
    except (TypeError, KeyError, ValueError, AttributeError, ZeroDivisionError) as error:
        raise RunError(
            f"{out}: scores.json or a done.json is not what a run writes there; make the scores "
            "again with rescore"
        ) from error
