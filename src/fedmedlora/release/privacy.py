"""The promise of a run: what done.json says of differential privacy, with all that it needs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedmedlora.config_privacy import PER_ROW
from fedmedlora.errors import FedMedLoRAError, RunError
from fedmedlora.study.arms import Arm
from fedmedlora.study.privacy import is_private, privacy_note


class _SiteSpent(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow")
    epsilon: Annotated[float, Field(ge=0)]


class PrivacyStatement(BaseModel):
    """Differential privacy of a row, as ``study.privacy`` notes it.

    Attributes:
        epsilon: of the site that spent most.
        delta, unit, neighbours, sampling, adversary, accountant: what it means nothing without.
        covers: the runs that it is a bound for.
        sites: site -> what it spent.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    epsilon: Annotated[float, Field(ge=0)]
    delta: Annotated[float, Field(gt=0, lt=1)]
    unit: str
    neighbours: str
    sampling: str
    adversary: str
    accountant: str
    covers: str
    sites: dict[str, _SiteSpent]

    @property
    def most(self) -> float:
        """The largest epsilon anywhere in it."""
        return max([self.epsilon, *(site.epsilon for site in self.sites.values())])

    def sentence(self) -> str:
        """All of it in words."""
        return (
            f"({self.most:.3g}, {self.delta:g})-differential privacy of each {self.unit} "
            f"({self.neighbours}; {self.sampling} sampling; accountant {self.accountant}), against "
            f"an adversary who {self.adversary}. It covers: "
            + ("this row alone." if self.covers == PER_ROW else f"{self.covers}.")
        )


def privacy_of(done: Mapping[str, Any]) -> PrivacyStatement | None:
    """The promise in a row's done.json; None if it was trained without.

    Raises:
        RunError: what stands there is no promise.
    """
    told = done.get("privacy")
    if told is None:
        return None
    try:
        return PrivacyStatement.model_validate(told)
    except ValidationError as error:
        raise RunError("the run's privacy record is not what a run writes there") from error


def promise_now(
    noted: PrivacyStatement | None, arm: Arm, run: Path
) -> tuple[PrivacyStatement | None, str]:
    """What the sites' ledgers say now of a row, and why they do not bear its promise; "" if so.

    What a run noted when it was done is older: later trainings on the same notes may have spent
    more, and a file of the run folder can be written by hand.

    Args:
        noted: in the row's done.json.
        arm: the row.
        run: the run folder.
    """
    if not is_private(arm):
        return noted, "" if noted is None else "the study trains this row without noise"
    if noted is None:
        return None, f"{arm.label} was to be trained with noise, and its record has no promise"
    try:
        told = privacy_note(arm, run)
    except FedMedLoRAError as error:
        return noted, str(error)
    without = [site for site, spent in told["sites"].items() if not spent]
    if without:
        return noted, f"no ledger of {', '.join(without)} knows of this run"
    return privacy_of({"privacy": told}), ""


def without_counts(data: Mapping[str, Any], *, unit: str) -> Mapping[str, Any]:
    """data.json without what was counted of training notes: only the number of units is public.

    Args:
        data: data.json.
        unit: of the promise; notes stay counted where they are the unit.
    """
    hidden = {"training_examples"} | (set() if unit == "note" else {"train"})
    return {
        part: {
            name: {key: value for key, value in told.items() if key not in hidden}
            for name, told in sites.items()
        }
        if part in ("sites", "new_sites")
        else sites
        for part, sites in data.items()
    }
