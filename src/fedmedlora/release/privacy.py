"""The promise of a run: what done.json says of differential privacy, with all that it needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedmedlora.config_privacy import PER_ROW
from fedmedlora.errors import RunError


class _SiteSpent(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")
    epsilon: Annotated[float, Field(ge=0)]


class PrivacyStatement(BaseModel):
    """Differential privacy of a row, as ``study.privacy`` notes it.

    Attributes:
        epsilon: of the site that spent most.
        delta, unit, neighbours, sampling, adversary, accountant: what it means nothing without.
        covers: the runs that it is a bound for.
        sites: site -> what it spent.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

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
