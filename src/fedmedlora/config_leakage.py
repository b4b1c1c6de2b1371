"""What a study leaves for the leakage meter, as a pydantic model."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from fedmedlora.config_base import Positive, Section


class LeakageConfig(Section):
    """What a study leaves for the leakage meter; see docs/leakage.md.

    Attributes:
        canaries: invented names and record numbers, so many of each kind and number of
            repetitions, are planted in training notes. A run with any is never released.
        repetitions: in how many notes of its site a canary stands.
        withhold: training notes of each site, of whole patients, that are kept out of the training:
            what its other notes are compared with.
    """

    canaries: Annotated[int, Field(ge=0, le=1000)] = 0
    repetitions: Annotated[tuple[Positive, ...], Field(min_length=1)] = (1, 4, 16)
    withhold: Annotated[int, Field(ge=0)] = 0

    @field_validator("repetitions")
    @classmethod
    def _different(cls, repetitions: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(repetitions)) < len(repetitions):
            raise ValueError("a number is there twice")
        return repetitions
