"""A release policy: what must hold before an adapter may leave; YAML in, checked conditions out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from fedmedlora.config_base import Name, Place, Positive, Section
from fedmedlora.config_deployment import check_settings, read_mapping
from fedmedlora.leakage.records import Against, Score

Share = Annotated[float, Field(ge=0, le=1)]
Text = Annotated[str, Field(min_length=1, max_length=4000)]


class LeastScore(Section):
    """A typed micro F1 on test notes that must be reached.

    Attributes:
        task, matching: as in scores.json.
        cohort: "all" pools all cohorts.
        least: F1, in [0, 1].
        end: what must reach it: the value, or the lower end of its interval.
    """

    task: Literal["entities", "modifiers", "relations"]
    matching: Literal["strict", "lenient"] = "strict"
    cohort: Name = "all"
    least: Share
    end: Literal["value", "low"] = "value"


class MostMembership(Section):
    """How well membership may be told at most.

    Attributes:
        auc: in [0, 1].
        tpr: share of members found at 5 % false positives, in [0, 1]; not asked if not given.
        end: what may not pass it: the upper end of the interval, or the value.
        score, against: see ``leakage.records``; all that were measured if not given.
        site: "all", or a site; if not given all that were measured.
    """

    auc: Share
    tpr: Share | None = None
    end: Literal["high", "value"] = "high"
    score: Score | None = None
    against: Against | None = None
    site: Name | None = None


class MostExposure(Section):
    """The mean exposure of planted secrets that may not be passed.

    Attributes:
        bits: for every kind of canary.
        repetitions: of which number.
        run: folder of a run of the same study with canaries; from the policy's folder.
        end: what may not pass it: the upper end of the interval over canaries, or the mean.
    """

    bits: Annotated[float, Field(ge=0)]
    repetitions: Positive = 16
    run: Place
    end: Literal["high", "value"] = "value"


class MostEpsilon(Section):
    """The promise that must be given.

    Attributes:
        epsilon, delta: at most.
        unit: at least: a patient's protection is also a note's, a note's an example's.
        per_row: whether an epsilon will do that counts this one row alone, and not all that was
            ever trained on the same notes.
    """

    epsilon: Annotated[float, Field(gt=0)]
    delta: Annotated[float, Field(gt=0, lt=1)]
    unit: Literal["example", "note", "patient"]
    per_row: bool = False


class Backbone(Section):
    """``licence``: the name of the licence under which the backbone's weights are used."""

    licence: Text


class Policy(Section):
    """What must hold; and what the card says of the use.

    Attributes:
        name: of the policy.
        intended_use, limits: for the model card.
        backbone: its licence.
        scores, membership, exposure, privacy: conditions; those left out are not asked for.
        sites: at least so many took part in every round.
        verified: whether every round must be what its kept replies make of it.
        audit: logs that must be whole and between them name every contribution; from the policy's
            folder.
    """

    name: Text
    intended_use: Text
    limits: tuple[Text, ...] = ()
    backbone: Backbone | None = None
    scores: tuple[LeastScore, ...] = ()
    membership: MostMembership | None = None
    exposure: MostExposure | None = None
    privacy: MostEpsilon | None = None
    sites: Positive | None = None
    verified: bool = False
    audit: tuple[Place, ...] = ()

    @model_validator(mode="after")
    def _asks_something(self) -> Policy:
        asked = (self.scores, self.membership, self.exposure, self.privacy, self.sites)
        if not any(asked) and not self.verified and not self.audit:
            raise ValueError("it asks for nothing: give at least one condition, such as scores")
        return self


def read_policy(file: Path) -> Policy:
    """Read a policy.

    Raises:
        ConfigError: it is missing, is not YAML, or a key or value is wrong.
    """
    return check_settings(Policy, read_mapping(file), source=str(file))
