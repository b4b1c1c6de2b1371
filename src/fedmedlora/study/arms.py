"""The arms of a study: every row of its tables, what it is and what it waits for.

Enters: a study. Leaves: arms, in the order in which tables list them. A label is an arm's name, row
and folder: single-site/icu, fed-medlora+, adapted/icu/fed-medlora+, new-site/ynhh/10/scratch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from fedmedlora.aggregation.methods import METHODS
from fedmedlora.aggregation.robust import RobustOptions
from fedmedlora.config import Study
from fedmedlora.config_sections import MethodEntry
from fedmedlora.errors import ConfigError
from fedmedlora.federation.secure.options import SecureOptions

Kind = Literal[
    "untrained", "dictionary", "single", "federated", "adapted", "new-site", "centralised"
]
#: Why a method cannot be with secure aggregation; the others need the sum alone.
_NOT_SECURE = {
    "fedex-lora": "its residual is made of each site's own pair of factors",
    "flexlora": "it decomposes the product of each site's own factors",
}
SINGLE, DICTIONARY = "single-site", "dictionary"
_UNTRAINED = ("zero-shot", "few-shot", "api")


@dataclass(frozen=True)
class Arm:
    """One row of a study.

    Attributes:
        label: unique.
        kind: what it is.
        method: the name of its method in the study file.
        study: the study, with the settings that this method has for itself.
        site: whose notes it is trained on, where it is one site's.
        of: the label of the arm whose adapter it starts from.
        notes: how many local notes, at a new site.
        cohorts: that it is asked about; None is all.
    """

    label: str
    kind: Kind
    method: str
    study: Study
    site: str | None = None
    of: str | None = None
    notes: int | None = None
    cohorts: tuple[str, ...] | None = None

    @property
    def is_tagger(self) -> bool:
        """Whether it is the token classifier, and not a language model."""
        return self.method.startswith("bert")

    @property
    def has_lora(self) -> bool:
        """Whether a LoRA adapter is trained for it."""
        return self.kind not in ("untrained", "dictionary") and not self.is_tagger

    @property
    def federated_method(self) -> str:
        """The aggregation method of its federation; a single site's is of one site."""
        return self.method if self.method in METHODS else "fed-medlora"

    def answers(self, cohort: str) -> bool:
        """Whether it is asked about a cohort."""
        return self.cohorts is None or cohort in self.cohorts

    def record(self) -> dict[str, object]:
        """What methods.json says of it."""
        names = ("label", "method", "kind", "site", "of", "notes")
        return {name: getattr(self, name) for name in names}


def study_arms(study: Study) -> list[Arm]:
    """All arms of a study.

    Raises:
        ConfigError: a method starts from one that is not there, or a method's own settings are
            wrong.
    """
    arms: list[Arm] = []
    for place, entry in enumerate(study.methods):
        own = study
        if entry.set:
            own = study.with_settings(entry.set, where=f"methods.{place}.set")
        if entry.method != "local-adaptation":
            arms += _arms_of(entry, own)
    federated = {arm.label: arm for arm in arms if arm.kind == "federated" and not arm.is_tagger}
    for place, entry in enumerate(study.methods):
        if entry.method == "local-adaptation":
            own = study.with_settings(entry.set, where=f"methods.{place}.set")
            usual = "fed-medlora+" if "fed-medlora+" in federated else next(iter(federated), "?")
            start = _known(entry.of or usual, federated, where=f"methods.{place}.of")
            arms += [
                Arm(f"adapted/{site}/{start}", "adapted", entry.method, own, site=site, of=start,
                    cohorts=(site,) if site in study.sites else None)
                for site in study.site_names
            ]  # fmt: skip
    arms += _new_site_arms(study, federated)
    labels = [arm.label for arm in arms]
    for label in labels:
        if labels.count(label) > 1:
            raise ConfigError(f"methods: {label} is the row of two methods; give one a label")
    for arm in arms:
        if arm.kind == "federated":
            _check_robust(arm)
            _check_server(arm)
            _check_secure(arm)
    return arms


def robust_options(study: Study) -> RobustOptions:
    """What stands for the average."""
    return RobustOptions(**study.federation.robust.model_dump())


def _check_robust(arm: Arm) -> None:
    robust, study = robust_options(arm.study), arm.study
    if robust.rule == "none" or len(study.site_names) == 1:  # or one site's part of a federation
        return
    if not METHODS[arm.federated_method].averages:
        raise ConfigError(
            f"methods: {arm.label}: federation.robust.rule is {robust.rule}, and {arm.method} does "
            "not average what sites send; give this method set: {federation.robust.rule: none}"
        )
    sites = len(study.site_names)
    if not robust.fits(sites, quorum=study.federation.min_sites or sites):
        raise ConfigError(
            f"methods: {arm.label}: {sites} sites (federation.min_sites: "
            f"{study.federation.min_sites or sites}) are too few for federation.robust.rule "
            f"{robust.rule} with federation.robust.malicious {robust.malicious}: "
            f"{robust.least_sites} are needed"
        )


def secure_options(study: Study) -> SecureOptions | None:
    """How the study aggregates securely, if it does."""
    section = study.federation.secure_aggregation
    return None if section is None else SecureOptions(**section.model_dump())


def _check_secure(arm: Arm) -> None:
    """Refuse what needs more of the sites than the sum of their weighted updates."""
    options, study = secure_options(arm.study), arm.study
    if options is None:
        return
    reason = _NOT_SECURE.get(arm.federated_method)
    if reason is not None:
        raise ConfigError(
            f"methods: {arm.label}: {arm.method} cannot be with federation.secure_aggregation: "
            f"{reason}, and the coordinator gets only the sum of what sites made"
        )
    for name, site in study.sites.items():
        if site.adapter is not None:
            raise ConfigError(
                f"sites.{name}.adapter: adapters of several ranks have no sum: leave it out, or "
                "federation.secure_aggregation"
            )
    sites = len(study.site_names)
    threshold = options.threshold_of(sites)
    if (study.federation.min_sites or sites) < threshold:
        raise ConfigError(
            f"methods: {arm.label}: federation.min_sites is {study.federation.min_sites}, and "
            f"{threshold} of {sites} sites are needed to unmask (secure_aggregation.threshold)"
        )


def _check_server(arm: Arm) -> None:
    """A step beyond the average, or the memory of one, has no meaning in factors cut anew."""
    server = arm.study.federation.server
    if METHODS[arm.federated_method].averages:
        return
    for name, value, plain in (
        ("learning_rate", server.learning_rate, 1),
        ("momentum", server.momentum, 0),
    ):
        if value not in (None, plain):
            raise ConfigError(
                f"methods: {arm.label}: federation.server.{name} is {value:g}, and {arm.method} "
                "does not step towards an average of what sites send; give this method "
                f"set: {{federation.server.{name}: {plain}}}"
            )


def _arms_of(entry: MethodEntry, study: Study) -> list[Arm]:
    method, label = entry.method, entry.label
    if method in _UNTRAINED:
        return [Arm(label, "untrained", method, study)]
    if method in (SINGLE, "bert-single-site"):
        return [
            Arm(f"{label}/{site}", "single", method, study, site=site) for site in study.site_names
        ]
    if method == DICTIONARY:
        own = [
            Arm(f"{label}/{site}", "dictionary", method, study, site=site)
            for site in study.site_names
        ]
        return [*own, Arm(label, "dictionary", method, study)]
    pooled = method in ("centralised", "bert-centralised")
    return [Arm(label, "centralised" if pooled else "federated", method, study)]


def _new_site_arms(study: Study, federated: Mapping[str, Arm]) -> list[Arm]:
    arms = []
    for name, site in study.new_sites.items():
        wanted = federated if site.of is None else site.of
        starts = [_known(label, federated, where=f"new_sites.{name}.of") for label in wanted]
        froms: list[str | None] = [*starts, None] if site.from_scratch else list(starts)
        arms += [
            Arm(f"new-site/{name}/{notes}/{start or 'scratch'}", "new-site", "local-adaptation",
                study, site=name, of=start, notes=notes, cohorts=(name,))
            for start in froms for notes in site.notes
        ]  # fmt: skip
    return arms


def _known(label: str, federated: Mapping[str, Arm], *, where: str) -> str:
    if label not in federated:
        known = ", ".join(federated) or "none"
        raise ConfigError(f"{where}: {label!r} is no federated method of the study ({known})")
    return label
