"""An arm's adapter scored on validation notes: curves by round, and the choice of settings.

Test notes are never read here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedmedlora.evaluation.records import ALL, SCORED_OF, Cohort, score_cohorts
from fedmedlora.model.adapter import Adapter
from fedmedlora.study.arms import Arm
from fedmedlora.study.methods import MethodRunner
from fedmedlora.tasks.reading import predict_documents

_CURVE = ("method", "round", "cohort", "task", "matching", "f1", "tp", "predicted", "gold")


def score_round(
    runner: MethodRunner,
    arm: Arm,
    adapter: Adapter | None,
    *,
    number: int,
    open_biases: Mapping[str, float] | None = None,
    own: Mapping[str, Adapter] | None = None,
    all_cohorts: bool = False,
) -> list[dict[str, Any]]:
    """Micro F1 of an adapter on the validation notes of the arm's sites.

    Args:
        runner: of the study.
        arm: whose sites and settings are used.
        adapter: None is the backbone without one.
        number: of the round.
        open_biases: of each task; by default none.
        own: site -> its own adapter, where sites keep factors.
        all_cohorts: each site's score beside that of all.
    """
    bench = runner.bench(arm)
    biases = open_biases or dict.fromkeys(bench.settings.tasks, 0.0)
    cohorts: dict[str, dict[str, Cohort]] = {task: {} for task in bench.settings.tasks}
    for site in runner.sites(arm):
        examples = runner.questions(arm, site.validation, site.covers, tasks=site.tasks)
        here = (own or {}).get(site.name, adapter)
        answers = bench.decode(arm.study, here, examples, biases, mode="enforced")
        pairs = list(zip(examples, answers, strict=True))
        read = predict_documents(
            site.validation, pairs, scheme=bench.scheme, tasks=bench.settings.tasks
        )
        for task in site.tasks:
            cohorts[task][site.name] = Cohort(site.validation, read[task].documents, site.covers)
    found = []
    for task, by_site in cohorts.items():
        records = score_cohorts(
            by_site, scheme=bench.scheme, method=arm.label, round=number,
            tasks=SCORED_OF[task], bootstrap=None,
        )  # fmt: skip
        found += [
            {name: getattr(record, name) for name in _CURVE}
            for record in records
            if (record.level, record.type) == ("typed", "micro")
            and (all_cohorts or record.cohort == ALL)
        ]
    return found
