"""What pydantic found wrong with a settings file in, one short line that names the keys out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import ValidationError

#: Keys named in one message: the rest is counted.
_SHOWN = 5
_VALUE_LENGTH = 60
_MESSAGES = {
    "extra_forbidden": "there is no such setting",
    "missing": "this key is missing",
    "model_type": "must be a section, a mapping of keys",
    "dict_type": "must be a mapping of keys",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "invalid_key": "a key must be a word: put it in quotes",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "float_parsing": "must be a number",
}
#: What pydantic puts into a place for the kind of a union that it tried.
_KINDS = ("bool", "float", "literal")


def describe_faults(error: ValidationError) -> str:
    """The first faults, as ``key: what is wrong (is VALUE)``, parted by semicolons."""
    lines = list(dict.fromkeys(_lines(error.errors())))
    more = [f"and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    return "; ".join([*lines[:_SHOWN], *more])


def _lines(faults: Sequence[Any]) -> Iterator[str]:
    """One line a place: a value that is none of a union's kinds is wrong only once."""
    told: dict[str, list[str]] = {}
    shown: dict[str, str] = {}
    for key, message, value in _told(faults):
        told.setdefault(key, []).append(message)
        shown[key] = "" if repr(value) in message else _shown(value)
    for key, messages in told.items():
        start = f"{key[:200]}: " if key else ""
        yield f"{start}{', or '.join(dict.fromkeys(messages))}{shown[key]}"


def _told(faults: Sequence[Any]) -> Iterator[tuple[str, str, object]]:
    """Key, what is wrong and the value of each fault."""
    places = [_place(fault["loc"]) for fault in faults]
    for fault, place in zip(faults, places, strict=True):
        inner = any(other != place and other[: len(place)] == place for other in places)
        if inner and fault["type"] in ("too_short", "dict_type", "list_type"):
            continue  # it is what a fault inside makes of its list, or the other kind of a union
        # What is wrong between two keys names them itself.
        key = ".".join(place) or ("" if fault["type"] == "value_error" else "the whole file")
        message = _MESSAGES.get(fault["type"], fault["msg"].removeprefix("Value error, "))
        if fault["type"] == "string_pattern_mismatch" and fault["loc"][-1] == "[key]":
            message = (
                "a name is 1 to 64 of the letters A to Z, digits, '_', '.' and '-', and begins "
                "with a letter or a digit"
            )
        yield key, message, fault.get("input")


def _place(parts: Sequence[int | str]) -> tuple[str, ...]:
    """The keys alone: pydantic adds which kind of a union it tried, as ``list[str]``."""
    return tuple(
        repr(part)[1:-1] if isinstance(part, str) else str(part)
        for part in parts
        if not (isinstance(part, str) and (part.endswith("]") or part in _KINDS))
    )


def _shown(value: object) -> str:
    if not isinstance(value, str | int | float):
        return ""
    text = repr(value)
    return f" (is {text if len(text) <= _VALUE_LENGTH else text[:_VALUE_LENGTH] + '...'})"
