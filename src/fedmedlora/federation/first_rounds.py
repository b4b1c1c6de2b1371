"""A site's first round, trained once: methods that begin alike take it up from one another.

In a simulation the first round of a site is the same in every method that broadcasts the same
adapter to it: the same rows, seed and settings give the same bits. What is kept here is found by
all of these, so nothing that differs in any of them is ever taken up.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from fedmedlora.aggregation.methods import Part
from fedmedlora.durable import new_folder, write_bytes
from fedmedlora.errors import AdapterError, RunError
from fedmedlora.federation.plan import SiteUpdate
from fedmedlora.model.adapter import Adapter
from fedmedlora.model.adapter_files import read_adapter, save_adapter
from fedmedlora.model.encoding import Row
from fedmedlora.model.training import TrainingSettings

_NUMBERS = "update.json"
_ADAPTER = "adapter"


def key_of(
    adapter: Adapter,
    rows: Sequence[Row],
    *,
    settings: TrainingSettings,
    seed: int,
    trains: Part = "AB",
) -> str:
    """SHA-256 (hex) of all that a training depends on but the machine, its threads and the code.

    What is kept lives no longer than the run of one study.

    Args:
        adapter: that training starts from.
        rows: of the site, in order.
        settings: of the round.
        seed: of the order of the rows and of dropout.
        trains: the factors that are not frozen.
    """
    told = [adapter.sha256, adapter.manifest.to_json(), repr(settings), str(seed), trains]
    digest = hashlib.sha256("\n".join(told).encode())
    for row in rows:
        digest.update(repr((row.ids, row.answer, row.tags, row.choices)).encode())
    return digest.hexdigest()


class FirstRounds:
    """Keeps trained adapters in a folder, found by ``key_of``.

    Args:
        folder: is made when something is kept. Several processes may use it at once.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def recall(self, key: str, adapter: Adapter) -> SiteUpdate | None:
        """What was kept, with the count ``recalled`` 1 and its seconds as they were; or None.

        Args:
            key: of the training.
            adapter: that it starts from; what is recalled has its manifest.
        """
        place = self._folder / key
        try:
            content = json.loads((place / _NUMBERS).read_text(encoding="utf-8"))
            trained = read_adapter(place / _ADAPTER)
            numbers = content["numbers"]
            if content["sha256"] != _seal(numbers, trained):
                return None
            counts = {**numbers.pop("counts"), "recalled": 1}
            return SiteUpdate(Adapter(adapter.manifest, trained.tensors), **numbers, counts=counts)
        except (OSError, ValueError, KeyError, TypeError, RecursionError, AdapterError):
            return None  # not there, or not whole: it is trained again

    def keep(self, key: str, update: SiteUpdate) -> None:
        """Keep an update; one that cannot be written is done without."""
        if (self._folder / key).exists():
            return
        numbers = {f.name: getattr(update, f.name) for f in fields(update) if f.name != "adapter"}
        numbers["counts"] = dict(update.counts)
        content = {"numbers": numbers, "sha256": _seal(numbers, update.adapter)}
        try:
            with new_folder(self._folder / key) as fresh:
                save_adapter(update.adapter, fresh / _ADAPTER, base_model="")
                write_bytes(fresh / _NUMBERS, json.dumps(content).encode())
        except (RunError, AdapterError):
            return

    def forget(self, *, but: str) -> None:
        """Clear away everything else that was kept."""
        for place in self._folder.iterdir() if self._folder.is_dir() else ():
            if place.name != but:
                shutil.rmtree(place, ignore_errors=True)


def _seal(numbers: dict[str, Any], adapter: Adapter) -> str:
    told = json.dumps(numbers, sort_keys=True) + adapter.sha256
    return hashlib.sha256(told.encode()).hexdigest()
