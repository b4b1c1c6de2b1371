"""What all parties of a federation have in common: a study file in which nobody's notes are named.

Enters: a study. Leaves: the file that goes into every site's kit, and what is read back from it.
Its hash is part of the run's id, which travels in every message: a site answers for its own file
alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import yaml

from fedmedlora.canonical import sha256
from fedmedlora.config import Study, check_study
from fedmedlora.config_deployment import SiteSettings, read_mapping
from fedmedlora.config_privacy import PER_ROW
from fedmedlora.errors import ConfigError
from fedmedlora.privacy.accounting import Unit
from fedmedlora.study.arms import Arm, study_arms

#: Sections that decide what is trained, and how its results are read.
_SHARED = (
    "name", "seed", "data_seed", "scheme", "backbone", "adapter", "task", "training", "federation",
    "privacy", "decoding", "encoder",
)  # fmt: skip
#: Of the federation section, what counts sites: a site has one.
_COORDINATORS = ("min_sites", "robust", "screening", "secure_aggregation")


@dataclass(frozen=True)
class Shared:
    """A federation's study file.

    Attributes:
        study: in which the sites have no notes.
        arm: the one method that is trained.
        sha256: of the file's bytes, hex.
    """

    study: Study
    arm: Arm
    sha256: str

    @property
    def run_id(self) -> str:
        """Marks every message of this federation."""
        return f"{self.study.name}/{self.arm.label}@{self.sha256}"


def shared_text(study: Study, *, method: str | None = None) -> str:
    """The text of the study file for all sites.

    Args:
        study: may have notes for its sites; they are left out.
        method: label of the federated method to train; may be left out if there is one alone.

    Raises:
        ConfigError: the study cannot be trained over machines, or the method is not clear.
    """
    _refuse_what_needs_all_notes(study)
    content = study.model_dump(mode="json", exclude_none=True)
    arm = _chosen(study, method)
    kept: dict[str, Any] = {key: content[key] for key in _SHARED if key in content}
    kept["federation"].pop("engine", None)
    kept["sites"] = {
        name: {"adapter": site["adapter"]} if "adapter" in site else {}
        for name, site in content["sites"].items()
    }
    [entry] = [one for one in content["methods"] if one["label"] == arm.label]
    kept["methods"] = [entry]
    header = (
        "# The study of this federation: the same file, byte for byte, at the coordinator and at\n"
        "# every site. A site answers no request that was made with another one.\n"
    )
    return header + yaml.safe_dump(kept, sort_keys=False, allow_unicode=True)


def read_shared(file: Path) -> Shared:
    """Read the study file of a federation.

    Raises:
        ConfigError: it is missing, or not what ``shared_text`` writes.
    """
    study = check_study(read_mapping(file), source=str(file))
    return Shared(study, _chosen(study, None), sha256(file.read_bytes()))


def site_study(shared: Shared, settings: SiteSettings, *, folder: Path) -> Study:
    """The study as one site has it: its own notes, its own machine, nobody else.

    Args:
        shared: the federation's.
        settings: the site's.
        folder: of its settings: paths of notes start from it.

    Raises:
        ConfigError: the study has no such site, or the settings name no notes.
    """
    sites = shared.study.sites
    if settings.name not in sites:
        raise ConfigError(
            f"name: {settings.name!r} is no site of the study ({', '.join(sites)}); a kit is for "
            "one site"
        )
    if settings.notes.elsewhere:
        raise ConfigError("notes: give the files train, validation and test of this site's notes")
    content = shared.study.model_dump(mode="json", exclude_none=True)
    notes = settings.notes.model_dump(mode="json", exclude_none=True)
    own = content["sites"][settings.name]
    content["sites"] = {settings.name: {**notes, **own}}
    for key in _COORDINATORS:
        content["federation"].pop(key, None)
    for entry in content["methods"]:
        entry["set"] = {key: value for key, value in entry["set"].items() if not _theirs(key)}
    content["root"] = str(folder.resolve())
    content["runtime"] = {"threads": settings.threads}
    if settings.backbone is not None:
        content["backbone"]["name"] = settings.backbone
    # Where a site notes what it spent is its own to say, and never a row's alone.
    if settings.ledger == PER_ROW:
        raise ConfigError(f"ledger: {PER_ROW} forgets what other runs spent; give it a folder")
    content["privacy"]["ledger"] = settings.ledger
    study = check_study(content, source="site settings")
    if any(arm.study.privacy.ledger != settings.ledger for arm in study_arms(study)):
        raise ConfigError("methods: set: privacy: the ledger is the site's to say, in its settings")
    for arm in study_arms(study):
        _refuse_less_privacy(arm, settings)
    return study


def _refuse_less_privacy(arm: Arm, site: SiteSettings) -> None:
    promised, order = arm.study.privacy, get_args(Unit)
    most, delta, least = site.largest_epsilon, site.largest_delta, site.smallest_unit
    if (most, delta, least) == (None, None, None):
        return
    epsilon = promised.epsilon
    where, told = "largest_epsilon", ""
    if epsilon is None:
        told = "no privacy"
    elif most is not None and epsilon > most:
        told = f"epsilon {epsilon:g}, more than {most:g}"
    elif delta is not None and promised.delta is not None and promised.delta > delta:
        where, told = "largest_delta", f"delta {promised.delta:g}, more than {delta:g}"
    elif least is not None and order.index(promised.unit) < order.index(least):
        where, told = "smallest_unit", f"privacy of each {promised.unit}, not of each {least}"
    if told:
        raise ConfigError(
            f"{where}: the study's {arm.label} promises {told}: this site does not take part in "
            "it; the study is the coordinator's to change"
        )


def _theirs(key: str) -> bool:
    """Whether a method's own setting is the coordinator's part."""
    section, _, rest = key.partition(".")
    return section == "federation" and rest.split(".")[0] in _COORDINATORS


def _refuse_what_needs_all_notes(study: Study) -> None:
    refused = {
        "partition": study.partition is not None,
        "absent: negative": study.absent == "negative",
        "federation.validation: server": study.federation.validation == "server",
        "cohorts": bool(study.cohorts),
        "new_sites": bool(study.new_sites),
    }
    for key, is_there in refused.items():
        if is_there:
            raise ConfigError(
                f"{key}: needs notes of several sites in one place; leave it out of the study of a "
                "federation over machines"
            )


def _chosen(study: Study, method: str | None) -> Arm:
    arms = {arm.label: arm for arm in study_arms(study) if arm.kind == "federated"}
    if method is None and len(arms) == 1:
        return next(iter(arms.values()))
    if method is None or method not in arms:
        known = ", ".join(arms) or "none"
        wrong = "name one" if method is None else f"{method!r} is none of them"
        raise ConfigError(f"methods: the federated methods of this study are {known}; {wrong}")
    return arms[method]
