"""Values of command-line options, checked: what typer does not do by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from fedmedlora.errors import ConfigError

Choice = TypeVar("Choice", bound=str)


def names_of(value: str, *, option: str) -> list[str]:
    """Names parted by commas.

    Raises:
        ConfigError: there is none.
    """
    names = [name.strip() for name in value.split(",") if name.strip()]
    if not names:
        raise ConfigError(f"{option} {value!r} names nothing; give names parted by commas")
    return names


def one_of(value: str, known: Sequence[Choice], *, option: str) -> Choice:
    """The value, if it is a known one.

    Raises:
        ConfigError: it is not.
    """
    for choice in known:
        if choice == value:
            return choice
    raise ConfigError(f"{option} {value!r} is not one of {', '.join(known)}")
