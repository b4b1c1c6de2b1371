"""A trained adapter in, its folder in a run out: with all that `extract` needs, or not at all.

RUN/adapters/LABEL/    the adapter; contributions.json: whose work it is; task.json: what to ask it
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedmedlora.durable import new_folder, write_bytes
from fedmedlora.federation.contributions import CONTRIBUTIONS_FILE, lineage
from fedmedlora.model.adapter import Adapter
from fedmedlora.model.adapter_files import save_adapter
from fedmedlora.study.arms import Arm
from fedmedlora.study.benches import Bench


def keep_adapter(
    place: Path,
    adapter: Adapter,
    *,
    arm: Arm,
    bench: Bench,
    covers: frozenset[str],
    open_biases: Mapping[str, float],
    federation: Path | None,
) -> None:
    """Write an adapter's folder; one of an earlier try stays until this one is complete.

    Args:
        place: the folder.
        adapter: of the arm, or a site's own.
        arm: that it was trained by.
        bench: that the arm's models are asked on.
        covers: the types that it was trained to mark.
        open_biases: of each task.
        federation: folder of the rounds that it was made in; ``None`` says nothing of them.

    Raises:
        RunError: it cannot be written.
    """
    with new_folder(place) as fresh:
        save_adapter(adapter, fresh, base_model=bench.base(arm.study).path)
        if federation is not None:
            write_bytes(fresh / CONTRIBUTIONS_FILE, _json(lineage(federation)))
        if not arm.is_tagger:
            task = _task(arm, bench, covers=covers, open_biases=open_biases)
            write_bytes(fresh / "task.json", _json(task))


def _json(content: Any) -> bytes:
    return (json.dumps(content, indent=1) + "\n").encode()


def _task(
    arm: Arm, bench: Bench, *, covers: frozenset[str], open_biases: Mapping[str, float]
) -> dict[str, Any]:
    study, scheme = arm.study, bench.scheme
    return {
        "backbone": study.backbone.name,
        "precision": study.backbone.precision,
        "scheme": {
            "mains": dict(scheme.mains),
            "modifiers": dict(scheme.modifiers),
            "pairs": {main: list(types) for main, types in scheme.pairs.items()},
        },
        "task": study.task.model_dump(mode="json"),
        "covers": [name for name in scheme.types if name in covers],
        "decoding": {
            "batch": study.decoding.batch,
            "draft": study.decoding.draft,
            "depth": study.decoding.depth,
            "open_bias": dict(open_biases),
        },
    }
