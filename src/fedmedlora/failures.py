"""An exception in, one line for the user and an exit code out.

What went wrong is the exception's own sentence if this package wrote it. Of any other exception
only its type and its place are told: its message may hold note text.
"""

from __future__ import annotations

import os
import traceback
from pathlib import Path

from fedmedlora.errors import (
    EndpointError,
    FederationError,
    FedMedLoRAError,
    MisnamedError,
    RunError,
)

#: Set to anything but "" or "0" to have the traceback as well.
DEBUG_VARIABLE = "FEDMEDLORA_DEBUG"

#: The input or a setting is wrong: nothing was begun that could be resumed.
BAD_INPUT = 2
#: A run was begun and failed, or this program is wrong.
FAILED = 1
INTERRUPTED = 130

_PACKAGE = Path(__file__).parent


def describe_failure(error: Exception) -> tuple[str, int]:
    """One line that says what is wrong, and the exit code."""
    if isinstance(error, FedMedLoRAError):
        failed = isinstance(error, EndpointError | FederationError | RunError)
        misnamed = isinstance(error, MisnamedError)
        return _one_line(str(error)), FAILED if failed and not misnamed else BAD_INPUT
    if isinstance(error, OSError) and error.strerror:
        place = "" if error.filename is None else f"{error.filename}: "
        return _one_line(f"{place}{error.strerror}"), BAD_INPUT
    if isinstance(error, MemoryError):
        return "out of memory", FAILED
    return (
        f"unexpected {type(error).__name__}{_place(error)}; this is a fault of the program or of a "
        f"library: {DEBUG_VARIABLE}=1 shows the traceback",
        FAILED,
    )


def wants_traceback() -> bool:
    """Whether the user asked for tracebacks."""
    return os.environ.get(DEBUG_VARIABLE, "") not in ("", "0")


def _one_line(message: str) -> str:
    return " ".join(message.split("\n"))


def _place(error: Exception) -> str:
    """The innermost of our own lines that the exception went through."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if Path(frame.filename).is_relative_to(_PACKAGE):
            return f" at {Path(frame.filename).relative_to(_PACKAGE.parent)}:{frame.lineno}"
    return ""
