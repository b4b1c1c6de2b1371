"""One method of a study from start to end: trained, every cohort decoded, everything kept."""

from __future__ import annotations

import json
import time

from fedmedlora.durable import new_folder, write_bytes
from fedmedlora.model.adapter import Adapter
from fedmedlora.model.adapter_files import save_adapter
from fedmedlora.progress import OnEvent
from fedmedlora.study.data import StudyData
from fedmedlora.study.methods import SINGLE, MethodRunner
from fedmedlora.study.run_folder import RunFolder
from fedmedlora.tasks.build import build_examples


def run_method(
    runner: MethodRunner, label: str, *, data: StudyData, folder: RunFolder, on_event: OnEvent
) -> None:
    """Train a method if it trains, decode every cohort, keep the raw answers and the adapter."""
    started = time.monotonic()
    backbone = runner.bench.backbone
    folder.check_backbone(backbone.fingerprint)
    on_event("method", {"method": label})
    trained = None if label == "zero-shot" else runner.train(label)
    biases = dict.fromkeys(runner.settings.tasks, 0.0) if trained is None else trained.open_biases
    if trained is not None:
        _keep_adapter(runner, label, trained.adapter, dict(biases), folder)
    for cohort in data.cohorts:
        examples, _ = build_examples(
            cohort.documents, covers=cohort.covers, scheme=runner.scheme, settings=runner.settings
        )

        def told(done: int, name: str = cohort.name, total: int = len(examples)) -> None:
            on_event("decoding", {"method": label, "cohort": name, "done": done, "total": total})

        answers = runner.decode(
            None if trained is None else trained.adapter, examples, biases, on_done=told
        )
        folder.write_answers(label, cohort.name, zip(examples, answers, strict=True))
    seconds = time.monotonic() - started
    folder.write_json(
        f"answers/{label}/done.json",
        {
            "method": label,
            "seconds": round(seconds, 2),
            "open_bias": dict(biases),
            "backbone": backbone.fingerprint,
            "backbone_parameters": int(backbone.model.num_parameters()),
            "adapter_parameters": runner.bench.manifest.size,
            "rounds": [] if trained is None else [r.to_dict() for r in trained.records],
        },
    )
    on_event("method-done", {"method": label, "seconds": seconds})


def _keep_adapter(
    runner: MethodRunner, label: str, adapter: Adapter, biases: dict[str, float], folder: RunFolder
) -> None:
    place = folder.path / "adapters" / label
    study = runner.study
    covers = frozenset().union(*(site.covers for site in runner.data.sites))
    if label.startswith(SINGLE):
        covers = runner.data.site(label.removeprefix(SINGLE)).covers
    record = {
        "backbone": study.backbone.name,
        "precision": study.backbone.precision,
        "scheme": {
            "mains": dict(runner.scheme.mains),
            "modifiers": dict(runner.scheme.modifiers),
            "pairs": {main: list(types) for main, types in runner.scheme.pairs.items()},
        },
        "task": study.task.model_dump(mode="json"),
        "covers": [name for name in runner.scheme.types if name in covers],
        "decoding": {
            "batch": study.decoding.batch,
            "draft": study.decoding.draft,
            "depth": study.decoding.depth,
            "open_bias": biases,
        },
    }
    # With its task or not at all; an adapter of an earlier try stays until then.
    with new_folder(place) as fresh:
        save_adapter(adapter, fresh, base_model=runner.bench.backbone.path)
        write_bytes(fresh / "task.json", (json.dumps(record, indent=1) + "\n").encode())
