"""The process's streams and signals, made fit for a command: nothing here knows what it does."""

from __future__ import annotations

import io
import os
import signal
import sys
from types import FrameType

from fedmedlora.errors import Ended


def prepare_streams() -> None:
    """Let stdout and stderr take every character, and be there even where they were closed.

    A terminal or a locale without a character shows its escape instead of ending the command.
    """
    if sys.stdout is None:
        sys.stdout = _nowhere()
    if sys.stderr is None:
        sys.stderr = _nowhere()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def silence_stdout() -> None:
    """What cannot be written is not tried again: Python flushes once more at exit."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):  # it has no file below it
        sys.stdout = _nowhere()


def end_in_order() -> None:
    """Let a request to end (SIGTERM) or a closed terminal (SIGHUP) unwind as Ctrl-C does.

    Ended at once, a command would leave its worker processes and temporary files behind.
    """

    def end(number: int, frame: FrameType | None) -> None:
        raise Ended(128 + number)

    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        # nohup has it ignored: so it stays.
        if number is not None and signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, end)


def _nowhere() -> io.TextIOWrapper:
    return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123
