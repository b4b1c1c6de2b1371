"""What every section of a study file is made of: names, numbers, and a base that refuses slips."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

Coverage = Literal["exhaustive", "partial", "none"]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}$")]
Positive = Annotated[int, Field(ge=1)]
Place = Annotated[str, Field(min_length=1)]
Rank = Annotated[int, Field(ge=1, le=4096)]
TaskName = Literal["entities", "modifiers"]


def each_once(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names, or ValueError for one that is there twice."""
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{name} is named twice")
    return names


def _may_be_bool(annotation: Any) -> bool:
    return annotation is bool or bool in get_args(annotation)


class Section(BaseModel):
    """What every section has: unknown keys and true or false for a number are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, content: Any) -> Any:
        for name, value in content.items() if isinstance(content, dict) else ():
            field = cls.model_fields.get(name) if isinstance(name, str) else None
            if isinstance(value, bool) and field is not None and not _may_be_bool(field.annotation):
                raise ValueError(f"{name} cannot be true or false (yes, no, on and off are these)")
        return content
