"""One arm of a study from start to end: trained, its cohorts asked, everything kept."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fedmedlora.federation.records import RoundRecord
from fedmedlora.model.adapter import Adapter
from fedmedlora.progress import OnEvent
from fedmedlora.study.api_method import answer_by_endpoint
from fedmedlora.study.arms import Arm
from fedmedlora.study.by_round import score_round
from fedmedlora.study.data import CohortData
from fedmedlora.study.few_shot_method import show_examples
from fedmedlora.study.keeping import keep_adapter
from fedmedlora.study.methods import MethodRunner, Trained
from fedmedlora.study.peak_memory import peak_megabytes, start_watching
from fedmedlora.study.privacy import is_private, privacy_note
from fedmedlora.study.run_folder import RunFolder
from fedmedlora.tasks.example import Example


@dataclass
class Made:
    """What an arm's answers come from, and what is noted of it.

    Attributes:
        trained: None for an arm without training.
        notes: for done.json.
    """

    trained: Trained | None = None
    notes: dict[str, Any] = field(default_factory=dict)


def run_method(runner: MethodRunner, arm: Arm, *, folder: RunFolder, on_event: OnEvent) -> None:
    """Train an arm if it trains, ask it about its cohorts, keep raw answers and adapter."""
    started = time.monotonic()
    start_watching()
    on_event("method", {"method": arm.label})
    made = Made()
    if arm.method != "api":
        _note_base(runner, arm, folder, made)
    if arm.kind != "untrained":
        made.trained = _train(runner, arm, folder, made)
        _keep_adapters(runner, arm, made.trained, folder)
    for cohort in runner.data.cohorts:
        if arm.answers(cohort.name):
            examples = runner.questions(arm, cohort.documents, cohort.covers)
            answers = _ask(runner, arm, cohort, examples, folder, made, on_event)
            folder.write_answers(arm.label, cohort.name, zip(examples, answers, strict=True))
    seconds = time.monotonic() - started
    rounds = [] if made.trained is None else [r.to_dict() for r in made.trained.records]
    if is_private(arm):
        made.notes["privacy"] = privacy_note(arm, folder.path)
    biases = {} if made.trained is None else dict(made.trained.open_biases)
    told = {"method": arm.label, "seconds": round(seconds, 2), "peak_memory_mb": peak_megabytes()}
    folder.write_json(
        f"answers/{arm.label}/done.json",
        {**told, "open_bias": biases, **made.notes, "rounds": rounds},
    )
    on_event("method-done", {"method": arm.label, "seconds": seconds})


def _note_base(runner: MethodRunner, arm: Arm, folder: RunFolder, made: Made) -> None:
    base = runner.bench(arm).base(arm.study)
    # A study may have one backbone and one encoder; either must not change within a run.
    folder.check_base(base.fingerprint, tagger=arm.is_tagger)
    made.notes.update(
        {
            "encoder" if arm.is_tagger else "backbone": base.fingerprint,
            "backbone_parameters": base.parameters,
            "adapter_parameters": base.initial.manifest.size,
        }
    )


def _train(runner: MethodRunner, arm: Arm, folder: RunFolder, made: Made) -> Trained:
    every = int(arm.study.evaluation.by_round)
    if not every or arm.kind in ("adapted", "new-site"):
        return runner.train(arm)
    last = arm.study.federation.rounds
    file = f"federation/{arm.label}/validation.json"
    scores: list[dict[str, Any]] = folder.read_json(file) if (folder.path / file).exists() else []

    def told(record: RoundRecord, adapter: Adapter) -> None:
        if record.round % every and record.round != last:
            return
        before = [row for row in scores if row["round"] < record.round]
        own = runner.own_adapters(arm, adapter, before=record.round + 1)
        scores[:] = [*before, *score_round(runner, arm, adapter, number=record.round, own=own)]
        folder.write_json(file, scores)

    trained = runner.train(arm, on_round=told)
    made.notes["validation_rounds"] = scores
    return trained


def _ask(
    runner: MethodRunner,
    arm: Arm,
    cohort: CohortData,
    examples: Sequence[Example],
    folder: RunFolder,
    made: Made,
    on_event: OnEvent,
) -> Sequence[str]:
    def told(done: int) -> None:
        facts = {"method": arm.label, "cohort": cohort.name, "done": done, "total": len(examples)}
        on_event("decoding", facts)

    if arm.method == "api":
        return answer_by_endpoint(
            runner, arm, cohort, examples, folder=folder, notes=made.notes, on_done=told
        )
    if arm.method == "few-shot":
        examples, shown = show_examples(
            runner, arm, examples, examples_of=arm.study.few_shot.examples
        )
        made.notes.setdefault("demonstrations", {})[cohort.name] = shown
    trained = made.trained
    biases: Mapping[str, float] = dict.fromkeys(runner.bench(arm).settings.tasks, 0.0)
    adapter = None
    if trained is not None:
        biases = trained.open_biases
        adapter = trained.own.get(cohort.name, trained.adapter)
    return runner.bench(arm).decode(arm.study, adapter, examples, biases, on_done=told)


def _keep_adapters(runner: MethodRunner, arm: Arm, trained: Trained, folder: RunFolder) -> None:
    """The arm's adapter, and where sites keep factors of their own, each site's."""
    adapters = {arm.label: trained.adapter}
    for site, adapter in trained.own.items():
        adapters[f"{arm.label}.sites/{site}"] = adapter
    covers = frozenset().union(*(site.covers for site in runner.sites(arm)))
    for label, adapter in adapters.items():
        keep_adapter(
            folder.path / "adapters" / label,
            adapter,
            arm=arm,
            bench=runner.bench(arm),
            covers=covers,
            open_biases=trained.open_biases,
            federation=folder.path / "federation" / label if label == arm.label else None,
        )
