"""What a run has to show for one of its adapters: files in, evidence out; nothing is judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedmedlora.config import Study
from fedmedlora.errors import AdapterError, ConfigError, RunError
from fedmedlora.evaluation.records import ScoreRecord
from fedmedlora.leakage.records import Leakage, read_leakage
from fedmedlora.model.adapter_files import read_adapter
from fedmedlora.release.policy import Policy
from fedmedlora.release.privacy import (
    PrivacyStatement,
    privacy_of,
    promise_now,
    without_counts,
)
from fedmedlora.study.arms import Arm, study_arms
from fedmedlora.study.run_folder import RunFolder

#: Sections that may differ between a run and the one with canaries that speaks for it.
_APART = ("name", "root", "runtime", "report", "evaluation", "variants", "scaling", "seeds",
          "leakage", "methods", "data_seed")  # fmt: skip


@dataclass(frozen=True)
class CanaryRun:
    """Exposures from a run with canaries.

    Attributes:
        folder: of it.
        leakage: what was measured there; None if nothing.
        faults: why it says nothing about the adapter, one sentence each.
    """

    folder: Path
    leakage: Leakage | None
    faults: tuple[str, ...]


@dataclass(frozen=True)
class Evidence:
    """Of one row.

    Attributes:
        folder: the run's.
        study: of the run.
        arm: the row.
        adapter_sha256: of the adapter on disk (hex).
        done: its done.json.
        data: data.json.
        scores: of the row.
        leakage: what was measured of the run; None if nothing.
        canaries: None if the policy names no such run.
        privacy: what the sites' ledgers say now; None if it was trained without noise.
        ledgers: why they do not bear the promise; "" if they do, or if there is none.
        rounds: contributions of each round, as ``contributions.json`` has them.
    """

    folder: RunFolder
    study: Study
    arm: Arm
    adapter_sha256: str
    done: Mapping[str, Any]
    data: Mapping[str, Any]
    scores: tuple[ScoreRecord, ...]
    leakage: Leakage | None
    canaries: CanaryRun | None
    privacy: PrivacyStatement | None
    ledgers: str
    rounds: tuple[Mapping[str, Any], ...]

    @property
    def adapter_folder(self) -> Path:
        """Where the adapter is."""
        return self.folder.path / "adapters" / self.arm.label

    @property
    def sites(self) -> tuple[str, ...]:
        """Whose work any round counted."""
        names = (one["signed"]["site"] for told in self.rounds for one in told["contributions"])
        return tuple(dict.fromkeys(names))

    @property
    def planted(self) -> int:
        """Canaries in the training notes, by the study or by what the run noted."""
        sites = self.data.get("sites", {})
        noted = sum(int(site.get("canaries", 0)) for site in sites.values())
        return max(noted, self.study.leakage.canaries)


def gather_evidence(run: Path, method: str | None, policy: Policy, *, at: Path) -> Evidence:
    """All that a run has to show for one of its rows.

    Args:
        run: a finished run's folder.
        method: the row's label; may be left out if one row alone is federated.
        policy: for the run with canaries.
        at: folder from which the policy's paths start.

    Raises:
        RunError: the run is not finished, or a file of it is broken.
        ConfigError: there is no such row, or it has no adapter.
        AdapterError: the adapter was changed.
    """
    folder = RunFolder(run)
    study = folder.study()
    arm = _chosen(study, method)
    done = folder.done(arm.label)
    if done is None:
        raise RunError(f"{run} is not finished: {arm.label} is missing; run the study again on it")
    scores = _scores(folder, arm.label)
    adapter = run / "adapters" / arm.label
    if not adapter.is_dir():
        raise RunError(f"{adapter} is missing: there is nothing to release")
    wanted = policy.exposure
    data = _mapping(folder, "data.json")
    noted = privacy_of(done)
    promise, fault = promise_now(noted, arm, run)
    if promise is not None:
        # Counts that no noise is in are no part of a private release.
        data = without_counts(data, unit=promise.unit)
    if promise is not noted and promise is not None:
        done = {**done, "privacy": promise.model_dump(mode="json")}
    return Evidence(
        folder=folder,
        study=study,
        arm=arm,
        adapter_sha256=read_adapter(adapter).sha256,
        done=done,
        data=data,
        scores=scores,
        leakage=read_leakage(folder),
        canaries=None if wanted is None else _canary_run(at / wanted.run, arm),
        privacy=promise,
        ledgers=fault,
        rounds=_rounds(folder, arm.label),
    )


def _chosen(study: Study, method: str | None) -> Arm:
    arms = {arm.label: arm for arm in study_arms(study) if arm.has_lora}
    federated = [label for label, arm in arms.items() if arm.kind == "federated"]
    if method is None and len(federated) == 1:
        return arms[federated[0]]
    if method is None or method not in arms:
        wrong = "give --method" if method is None else f"{method!r} is none of them"
        raise ConfigError(f"rows with a LoRA adapter are {', '.join(arms) or 'none'}; {wrong}")
    return arms[method]


def _scores(folder: RunFolder, label: str) -> tuple[ScoreRecord, ...]:
    content = folder.read_json("scores.json")
    try:
        records = [ScoreRecord(**record) for record in content]
    except TypeError as error:
        raise RunError(
            f"{folder.path / 'scores.json'} is not what a run writes there; make it again with "
            f"`fedmedlora rescore {folder.path}`"
        ) from error
    return tuple(one for one in records if one.method == label)


def _mapping(folder: RunFolder, name: str) -> Mapping[str, Any]:
    content = folder.read_json(name)
    if not isinstance(content, dict):
        raise RunError(f"{folder.path / name} is not what a run writes there")
    return content


def _rounds(folder: RunFolder, label: str) -> tuple[Mapping[str, Any], ...]:
    name = f"adapters/{label}/contributions.json"
    if not (folder.path / name).is_file():
        return ()
    content = folder.read_json(name)
    try:
        for told in content:
            for one in told["contributions"]:
                _ = one["signed"]["site"], one["signed"]["statement"]
    except (TypeError, KeyError) as error:
        raise RunError(f"{folder.path / name} is not what a run writes there") from error
    return tuple(content)


def _canary_run(path: Path, arm: Arm) -> CanaryRun:
    folder, label = RunFolder(path), arm.label
    try:
        other = folder.study()
        leakage = read_leakage(folder)
        faults = _apart(arm, other)
        if not other.leakage.canaries:
            faults.append("it has no canaries")
        if leakage is None:
            faults.append(f"it was not measured: fedmedlora leakage {path}")
        elif label not in leakage.adapters:
            faults.append(f"{label} was not measured there")
        elif leakage.adapters[label] != read_adapter(path / "adapters" / label).sha256:
            faults.append("its adapter is another than the one that was measured")
    except (RunError, AdapterError) as error:
        return CanaryRun(path, None, (str(error),))
    return CanaryRun(path, leakage, tuple(faults))


def _apart(arm: Arm, other: Study) -> list[str]:
    """In what a run with canaries is of another study, or trains the row otherwise."""
    same = next((one for one in study_arms(other) if one.label == arm.label), None)
    if same is None:
        return [f"it has no row {arm.label}"]
    first, second = (_compared(one.study) for one in (arm, same))
    differing = sorted(key for key in first if first[key] != second.get(key))
    if same.method != arm.method:
        differing.append("methods")
    return [f"it is a run of another study: {', '.join(differing)} differ"] if differing else []


def _compared(study: Study) -> dict[str, Any]:
    content = study.model_dump(mode="json", exclude=set(_APART))
    content["privacy"].pop("ledger", None)  # where a site writes down what it spent
    content["federation"].pop("keep_replies")
    return content
