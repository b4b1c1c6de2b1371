"""The release gate: a run and a policy in; a folder with adapter, card and evidence out, or not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from fedmedlora.durable import new_folder, refuse_below_file, write_bytes
from fedmedlora.errors import ConfigError
from fedmedlora.evaluation.tables import Table
from fedmedlora.extract import TASK_FILE
from fedmedlora.federation.contributions import CONTRIBUTIONS_FILE
from fedmedlora.federation.sums import write_sums
from fedmedlora.model.adapter_files import CONFIG_FILE, MANIFEST_FILE, TENSORS_FILE
from fedmedlora.release.card import write_card
from fedmedlora.release.conditions import Condition, hold_against
from fedmedlora.release.evidence import Evidence, gather_evidence
from fedmedlora.release.policy import Policy, read_policy

_ADAPTER = (CONFIG_FILE, TENSORS_FILE, MANIFEST_FILE, TASK_FILE)


@dataclass(frozen=True)
class Verdict:
    """Whether an adapter may leave, and why.

    Attributes:
        method: the row's label.
        adapter_sha256: hash (hex) of the adapter.
        conditions: all that were asked for.
        folder: where it was written; None if it was refused.
    """

    method: str
    adapter_sha256: str
    conditions: tuple[Condition, ...]
    folder: Path | None = None

    @property
    def released(self) -> bool:
        """Whether every condition holds."""
        return all(one.holds for one in self.conditions)

    def as_record(self) -> dict[str, Any]:
        """As verdict.json has it."""
        return {
            "format": 1,
            "released": self.released,
            "method": self.method,
            "adapter_sha256": self.adapter_sha256,
            "conditions": [asdict(one) for one in self.conditions],
        }

    def table(self) -> Table:
        """Every condition as a row."""
        rows = tuple(
            ("holds" if one.holds else "FAILS", one.name, one.value, one.bound)
            for one in self.conditions
        )
        return Table(f"Release of {self.method}", ("", "condition", "found", "asked"), rows, left=4)


def release(
    run: Path, policy_file: Path, *, method: str | None = None, out: Path | None = None
) -> Verdict:
    """Hold a run's adapter against a policy, and write the release if every condition holds.

    Args:
        run: a finished run's folder.
        policy_file: the policy; its paths start from its folder.
        method: the row's label; may be left out if one row alone is federated.
        out: a folder that is not there yet; RUN/releases/METHOD if not given.

    Raises:
        ConfigError: the policy is wrong, there is no such row, or ``out`` is there already.
        MisnamedError: ``run`` is no run, or no folder can be made at ``out``.
        RunError: the run is not finished, a file of it is broken, or ``out`` cannot be written.
        AdapterError: the adapter was changed.
    """
    policy = read_policy(policy_file)
    at = policy_file.resolve().parent
    evidence = gather_evidence(run, method, policy, at=at)
    place = out or run / "releases" / evidence.arm.label
    refuse_below_file(place)
    if place.exists():
        raise ConfigError(f"{place} is there already; remove it, or give another --out")
    conditions = hold_against(evidence, policy, at=at)
    verdict = Verdict(evidence.arm.label, evidence.adapter_sha256, tuple(conditions))
    if not verdict.released:
        return verdict
    with new_folder(place) as fresh:
        _write(fresh, evidence, policy, verdict, policy_text=policy_file.read_bytes())
    return Verdict(verdict.method, verdict.adapter_sha256, verdict.conditions, place)


def _write(
    folder: Path, evidence: Evidence, policy: Policy, verdict: Verdict, *, policy_text: bytes
) -> None:
    for name in _ADAPTER:
        write_bytes(folder / name, (evidence.adapter_folder / name).read_bytes())
    config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    # Where the backbone is on this machine is of no use elsewhere.
    config["base_model_name_or_path"] = evidence.study.backbone.name
    write_bytes(folder / CONFIG_FILE, json.dumps(config, indent=1, sort_keys=True).encode())
    write_bytes(folder / "README.md", write_card(evidence, policy).encode())
    proofs = folder / "evidence"
    proofs.mkdir()
    write_bytes(proofs / "policy.yaml", policy_text)
    study = evidence.study.model_dump(mode="json", exclude_none=True, exclude={"root"})
    text = yaml.safe_dump(study, sort_keys=False, allow_unicode=True)
    write_bytes(proofs / "study.yaml", text.encode())
    records: dict[str, Any] = {
        "verdict.json": verdict.as_record(),
        "scores.json": [one.as_dict() for one in evidence.scores],
        "done.json": evidence.done,
        "data.json": evidence.data,
        "versions.json": evidence.folder.read_json("versions.json"),
        CONTRIBUTIONS_FILE: evidence.rounds,
    }
    if evidence.leakage is not None:
        records["leakage.json"] = evidence.leakage.as_record()
    if evidence.canaries is not None and evidence.canaries.leakage is not None:
        records["leakage-canaries.json"] = evidence.canaries.leakage.as_record()
    for name, content in records.items():
        text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        write_bytes(proofs / name, text.encode())
    write_sums(folder)


def failed(verdict: Verdict) -> Sequence[Condition]:
    """The conditions that do not hold."""
    return [one for one in verdict.conditions if not one.holds]
