"""A study's further runs: seeds, numbers of sites and variants as studies of their own.

Each is a whole run in ``variants/NAME`` of the run folder, and resumes, scores and reports alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fedmedlora.config import Study
from fedmedlora.config_sections import MethodEntry


@dataclass(frozen=True)
class FurtherRun:
    """A study that another one asks for.

    Attributes:
        name: of its folder.
        kind: why it is run.
        study: complete; it asks for no further ones.
        seed: of kind seeds.
        sites: of kind scaling: how many.
    """

    name: str
    kind: Literal["seeds", "scaling", "variant"]
    study: Study
    seed: int | None = None
    sites: int | None = None

    @property
    def folder(self) -> str:
        """Within the run folder."""
        return f"variants/{self.name}"

    def record(self) -> dict[str, Any]:
        """What variants.json says of it."""
        told = {"name": self.name, "kind": self.kind, "folder": self.folder}
        more = {"seed": self.seed, "sites": self.sites}
        return {**told, **{name: value for name, value in more.items() if value is not None}}


def main_study(study: Study) -> Study:
    """What runs in the run folder itself: the first seed's."""
    if not study.seeds:
        return study
    return study.model_copy(update={"seed": study.seeds[0], "data_seed": _data_seed(study)})


def further_runs(study: Study) -> list[FurtherRun]:
    """All further runs of a study, in order.

    Raises:
        ConfigError: a variant's settings are wrong.
    """
    plain: dict[str, Any] = {"seeds": (), "scaling": None, "variants": {}}
    alone = main_study(study).model_copy(update=plain)
    found = []
    for seed in study.seeds[1:]:
        again = alone.model_copy(update={"seed": seed})
        found.append(FurtherRun(f"seed-{seed}", "seeds", again, seed=seed))
    if study.scaling is not None:
        found += [_scaled(alone, study, number) for number in study.scaling.sites]
    for name, variant in study.variants.items():
        other = alone if variant.methods is None else _with_methods(alone, variant.methods)
        other = other.with_settings(variant.set, where=f"variants.{name}.set")
        found.append(FurtherRun(name, "variant", other))
    return found


def _scaled(alone: Study, study: Study, number: int) -> FurtherRun:
    scaling = study.scaling
    assert scaling is not None
    methods = alone.methods if scaling.methods is None else scaling.methods
    settings: dict[str, Any] = {
        "partition": {"sites": number, "by": scaling.by, "alpha": scaling.alpha},
        "evaluation.by_round": False,  # what is shown of these runs is their last round
    }
    if alone.training.steps is not None:
        total = alone.training.steps * len(alone.site_names)
        settings["training.steps"] = max(1, round(total / number))
    if alone.encoder.steps is not None:
        total = alone.encoder.steps * len(alone.site_names)
        settings["encoder.steps"] = max(1, round(total / number))
    if scaling.rate == "linear":
        more = number / len(alone.site_names)
        settings["training.learning_rate"] = alone.training.learning_rate * more
        settings["encoder.learning_rate"] = alone.encoder.learning_rate * more
        # Who trains on all notes, or adapts, makes as many steps as ever.
        settings["adaptation.learning_rate"] = (
            alone.adaptation.learning_rate or alone.training.learning_rate
        )
        methods = tuple(_at_rate_of(alone, entry) for entry in methods)
    # Ranks belong to the sites of before.
    plain = _with_methods(alone, methods).model_copy(
        update={
            "sites": {
                name: site.model_copy(update={"adapter": None})
                for name, site in alone.sites.items()
            },
        }
    )
    run = plain.with_settings(settings, where="scaling")
    return FurtherRun(f"sites-{number}", "scaling", run, sites=number)


def _at_rate_of(study: Study, entry: MethodEntry) -> MethodEntry:
    sections = {"centralised": "training", "bert-centralised": "encoder"}
    if entry.method not in sections:
        return entry
    section = sections[entry.method]
    rate = {f"{section}.learning_rate": getattr(study, section).learning_rate}
    return entry.model_copy(update={"set": {**rate, **entry.set}})


def _with_methods(study: Study, methods: Sequence[MethodEntry]) -> Study:
    """The study with these methods alone; a new site starts from those of them that it names.

    Its test notes stay a cohort in any case, so that scores over all cohorts can be compared.
    """
    labels = {entry.label for entry in methods}
    new_sites = {}
    for name, site in study.new_sites.items():
        kept = tuple(label for label in site.of or () if label in labels)
        new_sites[name] = site.model_copy(update={"of": kept, "from_scratch": False})
    return study.model_copy(update={"methods": tuple(methods), "new_sites": new_sites})


def _data_seed(study: Study) -> int:
    """One draw of samples for all seeds: they differ in training, not in what is scored."""
    if study.data_seed is not None:
        return study.data_seed
    return study.seeds[0]
