"""Raw answers in, scores out: predictions, score records and paired comparisons of a run folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fedmedlora.config import Study
from fedmedlora.errors import ConfigError, RunError
from fedmedlora.evaluation.dictionary import (
    Dictionary,
    learn_dictionary,
    predict_entities,
    predict_modifiers,
)
from fedmedlora.evaluation.intervals import Line, compare_tallies
from fedmedlora.evaluation.records import ALL, SCORED_OF, ScoreRecord, make_records
from fedmedlora.evaluation.seeds import pool_over_seeds
from fedmedlora.evaluation.tally import MATCHINGS, Tally, pool_tallies, tally_documents
from fedmedlora.schema import Document, Scheme
from fedmedlora.study.arms import Arm, study_arms
from fedmedlora.study.data import CohortData, StudyData, with_covers
from fedmedlora.study.run_folder import RunFolder
from fedmedlora.study.task_settings import tagger_task_settings, task_settings
from fedmedlora.tasks.build import build_examples
from fedmedlora.tasks.example import Example
from fedmedlora.tasks.reading import predict_documents

#: Label -> task of the study -> cohort ("all" among them, if it was asked about all) -> counts.
Scored = Mapping[str, Mapping[str, Mapping[str, Tally]]]


@dataclass(frozen=True)
class _Predicted:
    """An arm's documents by task and cohort, and what became of its raw answers."""

    documents: dict[str, dict[str, Sequence[Document]]]
    counts: dict[str, dict[str, dict[str, int]]]


def score_run(
    folder: RunFolder, study: Study, data: StudyData, *, only: str | None = None
) -> Scored:
    """Score every arm of a run from its raw answers, and write all that follows from them.

    What the mean over seeds was made of may be others now: seeds.json is removed, and is the
    caller's to make again.

    Args:
        folder: whose arms are all done.
        study: of the folder.
        data: of the study.
        only: the label of an arm: the others' scores stay as they are, and their part in
            comparisons is counted from the predictions that these scores are of.

    Returns:
        The counts of every arm that has scores.

    Raises:
        RunError: answers or predictions are missing or do not fit the data.
        ConfigError: the study has no arm ``only``.
    """
    scheme = study.make_scheme()
    arms = study_arms(study)
    if only is not None and all(arm.label != only for arm in arms):
        known = ", ".join(arm.label for arm in arms)
        raise ConfigError(f"--method {only}: the study has no such row; its rows are {known}")
    records: dict[str, list[dict[str, Any]]] = {}
    readings: dict[str, Any] = {}
    if only is not None:
        records, readings = _read_scores(folder, but=only)
    scored: dict[str, dict[str, dict[str, Tally]]] = {}
    for arm in arms:
        if arm.label in records:
            scored[arm.label] = _tally(_predicted_before(arm, study, data, folder), data, scheme)
    asked: dict[tuple[bool, str], list[Example]] = {}
    for arm in arms:
        if only not in (None, arm.label):
            continue
        predicted = _predict(arm, study, data, folder, asked)
        if arm.kind != "dictionary":
            readings[arm.label] = predicted.counts
        for task, by_cohort in predicted.documents.items():
            for name, documents in by_cohort.items():
                folder.write_predictions(arm.label, task, name, documents)
        scored[arm.label] = _tally(predicted, data, scheme)
        records[arm.label] = _records(arm, scored[arm.label], folder)
    done = [arm for arm in arms if arm.label in scored]
    scored = {arm.label: scored[arm.label] for arm in done}
    comparisons = _comparisons(done, scored, study)
    # First: a process that is killed in between leaves none, rather than those of other scores.
    folder.remove("comparisons.json", "seeds.json")
    folder.write_json("readings.json", readings)
    folder.write_json("scores.json", [row for arm in done for row in records[arm.label]])
    folder.write_json("comparisons.json", comparisons)
    return scored


def _read_scores(
    folder: RunFolder, *, but: str
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, Any]]:
    """Label -> rows of scores.json, and label -> reading, of all arms but one."""
    rows, read = folder.read_json("scores.json"), folder.read_json("readings.json")
    kept: dict[str, list[dict[str, Any]]] = {}
    try:
        for row in rows:
            if row["method"] != but:
                kept.setdefault(row["method"], []).append(row)
        return kept, dict(read)
    except (TypeError, KeyError, ValueError) as error:
        raise RunError(
            f"{folder.path}: scores.json or readings.json is not what a run writes there; make "
            "them again with rescore, without --method"
        ) from error


def _predicted_before(arm: Arm, study: Study, data: StudyData, folder: RunFolder) -> _Predicted:
    """What was read from an arm's answers when it was last scored."""
    cohorts = [cohort.name for cohort in data.cohorts if arm.answers(cohort.name)]
    return _Predicted(
        {
            task: {name: folder.read_predictions(arm.label, task, name) for name in cohorts}
            for task in _tasks_of(arm, study)
        },
        {},
    )


def _tasks_of(arm: Arm, study: Study) -> Sequence[str]:
    if arm.kind == "dictionary":
        return study.task.tasks
    return (tagger_task_settings(study) if arm.is_tagger else task_settings(study)).tasks


def _predict(
    arm: Arm,
    study: Study,
    data: StudyData,
    folder: RunFolder,
    asked: dict[tuple[bool, str], list[Example]],
) -> _Predicted:
    """``asked``: the examples of each kind of model and cohort; what is missing is added."""
    cohorts = [cohort for cohort in data.cohorts if arm.answers(cohort.name)]
    if arm.kind == "dictionary":
        return _look_up(arm, cohorts, study, data)
    scheme = study.make_scheme()
    settings = tagger_task_settings(study) if arm.is_tagger else task_settings(study)
    found = _Predicted({task: {} for task in settings.tasks}, {})
    for cohort in cohorts:
        key = arm.is_tagger, cohort.name
        if key not in asked:
            asked[key], _ = build_examples(
                cohort.documents, covers=cohort.covers, scheme=scheme, settings=settings
            )
        answers = folder.read_answers(arm.label, cohort.name, asked[key])
        read = predict_documents(cohort.documents, answers, scheme=scheme, tasks=settings.tasks)
        for task in settings.tasks:
            found.documents[task][cohort.name] = read[task].documents
        found.counts[cohort.name] = {task: asdict(read[task].counts) for task in settings.tasks}
    return found


def _look_up(arm: Arm, cohorts: Sequence[CohortData], study: Study, data: StudyData) -> _Predicted:
    """A dictionary's predictions: of one site's training mentions, or of all sites'."""
    scheme = study.make_scheme()
    sites = [data.site(arm.site)] if arm.site else list(data.sites)
    documents = [with_covers(d, site.covers) for site in sites for d in site.train]
    dictionary: Dictionary = learn_dictionary(documents, scheme=scheme)

    def predict(document: Document, cohort: CohortData, task: str) -> Document:
        if task == "entities":
            return predict_entities(dictionary, document, covers=cohort.covers)
        return predict_modifiers(dictionary, document, scheme=scheme, covers=cohort.covers)

    return _Predicted(
        {
            task: {c.name: [predict(d, c, task) for d in c.documents] for c in cohorts}
            for task in _tasks_of(arm, study)
        },
        {},
    )


def _tally(predicted: _Predicted, data: StudyData, scheme: Scheme) -> dict[str, dict[str, Tally]]:
    cohorts = {cohort.name: cohort for cohort in data.cohorts}
    found: dict[str, dict[str, Tally]] = {}
    for task, by_cohort in predicted.documents.items():
        tallies = {
            name: tally_documents(
                cohorts[name].documents,
                documents,
                scheme=scheme,
                covers=cohorts[name].covers,
                tasks=SCORED_OF[task],
            )
            for name, documents in by_cohort.items()
        }
        if len(tallies) == len(cohorts):
            tallies[ALL] = pool_tallies(list(tallies.values()), scheme=scheme)
        found[task] = tallies
    return found


def _records(
    arm: Arm, tallies: Mapping[str, Mapping[str, Tally]], folder: RunFolder
) -> list[dict[str, Any]]:
    done = folder.done(arm.label)
    number = len(done["rounds"]) if done and done["rounds"] else None
    records: list[ScoreRecord] = []
    for by_cohort in tallies.values():
        for name, tally in by_cohort.items():
            records += make_records(tally, method=arm.label, round=number, cohort=name)
    return [record.as_dict() for record in records]


def _comparisons(arms: Sequence[Arm], scored: Scored, study: Study) -> list[dict[str, Any]]:
    """Paired differences: what each site gains by joining, and each method against the first."""
    found = []
    single = {(arm.site, arm.is_tagger): arm.label for arm in arms if arm.kind == "single"}
    for site in study.sites:
        for arm in arms:
            alone = single.get((site, arm.is_tagger))
            joined = arm.kind in ("federated", "centralised")
            if alone and (joined or (arm.kind == "adapted" and arm.site == site)):
                pair = (arm.label, alone)
                found += _differences("joining", pair, site, scored, site=site)
    federated = [arm.label for arm in arms if arm.kind == "federated" and not arm.is_tagger]
    if federated:
        usual = "fed-medlora" if "fed-medlora" in federated else federated[0]
        for arm in arms:
            if arm.label != usual and arm.cohorts is None:
                found += _differences("methods", (arm.label, usual), ALL, scored)
    return found


def _differences(
    question: str, pair: tuple[str, str], cohort: str, scored: Scored, *, site: str | None = None
) -> list[dict[str, Any]]:
    first, second = pair
    rows = []
    for task, by_cohort in scored[first].items():
        tally, other = by_cohort.get(cohort), scored[second][task].get(cohort)
        if tally is None or other is None:
            continue
        for name, counted in tally.tasks.items():
            lines = {one.line: one for one in compare_tallies(counted, other.tasks[name])}
            for matching in MATCHINGS:
                one = lines[Line(matching, "typed", "micro")]
                interval = one.interval
                rows.append(
                    {
                        "question": question, "site": site, "cohort": cohort, "task": name,
                        "matching": matching, "type": "micro", "first": first, "second": second,
                        "f1": one.f1, "low": interval.low if interval else None,
                        "high": interval.high if interval else None, "p": one.p,
                    }
                )  # fmt: skip
    return rows


def pool_seeds(scored: Mapping[int, Scored]) -> list[dict[str, Any]]:
    """Micro F1 of every method that all seeds have: each seed's, their mean and its interval."""
    seeds = sorted(scored)
    rows = []
    first = scored[seeds[0]]
    for label, by_task in first.items():
        if not all(label in scored[seed] for seed in seeds):
            continue
        for task, by_cohort in by_task.items():
            for cohort, tally in by_cohort.items():
                for name in tally.tasks:
                    same = [scored[seed][label][task][cohort].tasks[name] for seed in seeds]
                    for matching in MATCHINGS:
                        pooled = pool_over_seeds(same, matching)
                        told = {"method": label, "cohort": cohort, "task": name}
                        more = {"matching": matching, "type": "micro", "seeds": seeds}
                        rows.append({**told, **more, **asdict(pooled)})
    return rows
