"""Secure aggregation in a study file, and what else of the federation section cannot be with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from fedmedlora.config_base import Positive, Section

_ONE_BY_ONE = "it looks at single updates, and the coordinator gets only their sum"
#: Setting -> the one value that it can have, and why.
_ALONE: dict[str, tuple[str, str]] = {
    "wire": ("fp32", "sites send whole numbers of 64 bits, and are sent fp32"),
    "screening.norms": ("off", _ONE_BY_ONE),
    "screening.directions": ("off", _ONE_BY_ONE),
    "screening.riders": ("off", _ONE_BY_ONE),
    "robust.rule": ("none", _ONE_BY_ONE),
    "validation": ("sites", "the server has no site's adapter to score: each scores its own"),
}


class SecureConfig(Section):
    """See ``federation.secure.options.SecureOptions``; docs/secure-aggregation.md."""

    threshold: Positive | None = None
    largest_weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e7
    largest_norm: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e3
    reference_loss: Annotated[float, Field(allow_inf_nan=False)] = 0.0


def with_what_is_left(content: Any) -> Any:
    """A federation section as written, with what secure aggregation asks for where it is silent."""
    if not isinstance(content, dict) or content.get("secure_aggregation") is None:
        return content
    filled = dict(content)
    for name, (value, _) in _ALONE.items():
        section, _, key = name.rpartition(".")
        if not section:
            filled.setdefault(name, value)
        elif isinstance(inner := filled.get(section, {}), dict):
            filled[section] = {key: value, **inner}
    return filled


def refuse_with_secure(federation: Mapping[str, Any]) -> None:
    """Refuse what secure aggregation leaves no room for.

    Args:
        federation: a whole section.

    Raises:
        ValueError: a setting that asks for it.
    """
    if federation["secure_aggregation"] is None:
        return
    for name, (alone, reason) in _ALONE.items():
        section, _, key = name.rpartition(".")
        value = (federation[section] if section else federation)[key]
        if value != alone:
            raise ValueError(
                f"{name}: {value} cannot be with secure_aggregation: {reason}; leave it "
                f"out, or say {alone}"
            )
