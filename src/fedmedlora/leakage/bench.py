"""A finished run opened for measuring: its arms, their adapters, and losses of any text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fedmedlora.config import Study
from fedmedlora.errors import ConfigError, RunError
from fedmedlora.federation.kept import SeenRound, read_seen
from fedmedlora.model.adapter import Adapter
from fedmedlora.model.adapter_files import read_adapter
from fedmedlora.model.candidates import losses_by_row
from fedmedlora.model.encoding import Row, encode_examples
from fedmedlora.schema import Document
from fedmedlora.study.arms import Arm, study_arms
from fedmedlora.study.benches import questions_about
from fedmedlora.study.data import SiteData, StudyData, asked_of, load_data
from fedmedlora.study.methods import MethodRunner
from fedmedlora.study.run_folder import RunFolder


@dataclass(frozen=True)
class NoteLosses:
    """Losses of documents.

    Attributes:
        losses: summed over each document's rows: (documents,).
        targets: tokens under the loss: (documents,); 0 of a document that makes no row.
    """

    losses: NDArray[np.float64]
    targets: NDArray[np.float64]


class LeakageBench:
    """The adapters of a finished run on their backbone.

    Attributes:
        study, data: of the run.
        arms: with a LoRA adapter, those that were asked for.

    Args:
        folder: the run folder.
        methods: labels; all trained arms if None.

    Raises:
        RunError: the run is not finished.
        ConfigError: there is no such row, or it has no LoRA adapter.
        DataError: the notes cannot be read any more.
    """

    def __init__(self, folder: RunFolder, methods: Sequence[str] | None = None) -> None:
        self.folder = folder
        self.study: Study = folder.study()
        self.arms = _arms(folder, self.study, methods)
        self.data: StudyData = load_data(self.study)
        self._runner = MethodRunner(self.study, self.data, folder.path, lambda kind, facts: None)
        self._before: dict[tuple[object, ...], NoteLosses] = {}

    def sites(self, arm: Arm) -> tuple[SiteData, ...]:
        """Whose notes an arm was trained on."""
        return self._runner.sites(arm)

    def adapter(self, arm: Arm, site: str | None = None) -> Adapter:
        """An arm's adapter; where sites keep factors of their own, that of the site.

        Raises:
            AdapterError: it cannot be read.
        """
        adapters = self.folder.path / "adapters"
        own = adapters / f"{arm.label}.sites" / (site or "")
        return read_adapter(own if site and own.is_dir() else adapters / arm.label)

    def seen(self, arm: Arm, number: int) -> SeenRound:
        """What the server saw of a round of an arm's federation.

        Raises:
            RunError: there is no such round, or it cannot be read.
        """
        initial = self._runner.lora.base(arm.study).initial
        return read_seen(self.folder.path / "federation" / arm.label, number, initial=initial)

    def losses(
        self,
        arm: Arm,
        adapter: Adapter | None,
        site: SiteData,
        documents: Sequence[Document],
        *,
        tasks: Sequence[str] | None = None,
    ) -> NoteLosses:
        """The loss that a site trains on, of documents that it might have.

        Args:
            arm: for its settings.
            adapter: of the arm; None is the untrained backbone.
            site: how its notes are asked.
            documents: annotated.
            tasks: by default the site's.
        """
        study = arm.study
        work = self._runner.lora.workbench(study)
        rows, places = self._rows(arm, site, documents, site.tasks if tasks is None else tasks)
        size = len(documents)
        if not rows:
            return NoteLosses(np.zeros(size), np.zeros(size))
        [found] = losses_by_row(
            work.model, [adapter or work.initial], rows, objective=study.training.objective
        )
        targets = np.array([row.targets for row in rows])
        return NoteLosses(_summed(found, places, size), _summed(targets, places, size))

    def before(
        self, arm: Arm, site: SiteData, documents: Sequence[Document], *, split: str
    ) -> NoteLosses:
        """As ``losses``, of the untrained backbone; computed once for each part of a split."""
        section = arm.study.training
        # Rows of a study may be trained on different notes of a site, as many.
        notes = tuple(one.id for one in documents)
        key = (site.name, split, notes, section.objective, section.max_tokens, arm.study.absent)
        if key not in self._before:
            self._before[key] = self.losses(arm, None, site, documents)
        return self._before[key]

    def _rows(
        self, arm: Arm, site: SiteData, documents: Sequence[Document], tasks: Sequence[str]
    ) -> tuple[list[Row], NDArray[np.int64]]:
        """Rows of documents, and the place of each row's document."""
        _, covers = asked_of(site, self.data.sites, absent=arm.study.absent)
        bench = self._runner.lora
        # Ids need not differ between what is compared; places do.
        named = [replace(one, id=str(place)) for place, one in enumerate(documents)]
        if arm.study.absent == "negative":
            named = [replace(one, covers=None) for one in named]
        examples = questions_about(
            named, covers=covers, scheme=bench.scheme, settings=bench.settings, tasks=tasks
        )
        tokenizer = bench.workbench(arm.study).backbone.tokenizer
        limit = arm.study.training.max_tokens
        rows, _ = encode_examples(examples, tokenizer, max_tokens=limit)
        place_of = {example.id: int(example.document) for example in examples}
        return rows, np.array([place_of[row.example] for row in rows], dtype=np.int64)


def _summed(
    values: NDArray[np.float64] | NDArray[np.int64], places: NDArray[np.int64], size: int
) -> NDArray[np.float64]:
    total = np.zeros(size)
    np.add.at(total, places, values)
    return total


def _arms(folder: RunFolder, study: Study, methods: Sequence[str] | None) -> list[Arm]:
    arms = {arm.label: arm for arm in study_arms(study)}
    trained = {label: arm for label, arm in arms.items() if arm.has_lora}
    for label in methods or ():
        if label not in arms:
            raise ConfigError(f"{label!r} is no row of the run; it has {', '.join(arms)}")
        if label not in trained:
            raise ConfigError(f"{label} has no LoRA adapter that could be measured")
    chosen = [trained[label] for label in methods] if methods else list(trained.values())
    if not chosen:
        raise ConfigError(f"{folder.path}: no row of the run has a LoRA adapter")
    for arm in chosen:
        if folder.done(arm.label) is None:
            raise RunError(
                f"{folder.path} is not finished: {arm.label} is missing; run the study again on "
                "this folder"
            )
    return chosen
