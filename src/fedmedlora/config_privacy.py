"""What a study promises of its sites' notes, as a pydantic model."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from fedmedlora.config_base import Place, Positive, Section

#: Instead of a ledger's folder: one in the run folder for every row.
PER_ROW = "per-row"
_EXAMPLE = "such as privacy: {epsilon: 3, delta: 1e-5, ledger: ledgers} (docs/privacy.md)"


def _refuse_another_ledger(settings: dict[str, Any]) -> dict[str, Any]:
    section = settings.get("privacy")
    if "privacy.ledger" in settings or (isinstance(section, dict) and "ledger" in section):
        raise ValueError(
            "privacy.ledger is one for the whole study: another would begin another budget for the "
            "same notes; set it in the study's own section privacy"
        )
    return settings


#: Settings of a part of a study, for which its notes keep their ledger.
OneLedger = Annotated[dict[str, Any], AfterValidator(_refuse_another_ledger)]


class PrivacyConfig(Section):
    """Differential privacy of every training note, at each site; see docs/privacy.md.

    Attributes:
        epsilon: budget of each site over all that its ledger holds; without it, nothing is private.
        delta: of the budget; at most 1 / units of the largest site, and must be given.
        unit: what counts as one: an example, a note, or all notes of a patient (``group``).
        batch: units expected in a step; by default ``training.batch``, which is how many rows pass
            the model at once.
        max_grad_norm: to which a unit's gradient is clipped.
        noise_multiplier: of the noise, in clipping norms; by default what the budget asks for.
        accountant: which bound of epsilon.
        unit_rows: rows of a unit that are looked at in a step, at most.
        ledger: folder in which each site keeps what was spent; or ``per-row``: for comparing rows
            of a study from which nothing is ever released, each counts for itself.
    """

    epsilon: Annotated[float, Field(gt=0)] | None = None
    delta: Annotated[float, Field(gt=0, lt=1)] | None = None
    unit: Literal["example", "note", "patient"] = "note"
    batch: Positive | None = None
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    noise_multiplier: Annotated[float, Field(gt=0)] | None = None
    accountant: Literal["prv", "rdp"] = "prv"
    unit_rows: Positive = 16
    ledger: Place | None = None

    @model_validator(mode="after")
    def _whole(self) -> PrivacyConfig:
        if self.epsilon is None:
            return self
        missing = []
        if self.delta is None:
            missing.append("delta: must be given with epsilon, well below 1 / units of a site")
        if self.ledger is None:
            missing.append(
                "ledger: must be given with epsilon: the folder in which each site keeps what was "
                f"spent on its notes, or {PER_ROW} to compare rows of which none is released"
            )
        if missing:
            raise ValueError("; ".join([*missing, _EXAMPLE]))
        return self
