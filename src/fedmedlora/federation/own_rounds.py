"""What a site keeps for itself from round to round, in folders of its own; none of it is sent.

FEDERATION/own/SITE/KIND/round-0001/    after that round
FEDERATION/own/SITE/run                 which run that was, where its coordinator says so
FEDERATION/own/SITE/before/RUN/KIND/    of a run that was begun anew since

It is as private as the notes that it came from. A round whose answer or checkpoint got lost is made
again, from what was kept before it.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TypeGuard

from fedmedlora.durable import new_folder, private_folder, replace_private
from fedmedlora.errors import AdapterError, RunError

Kind = Literal["factors", "optimiser", "rounding", "private", "secure"]
#: What a run goes on with. The others guard what leaves, whichever run asks for it.
_OF_ONE_RUN: tuple[Kind, ...] = ("factors", "optimiser", "rounding")


def own_folder(federation: Path, site: str, kind: Kind) -> Path:
    """Where a site keeps something for itself in the folder of a federation."""
    return federation / "own" / site / kind


def begin_own(federation: Path, site: str, run: str) -> None:
    """Set aside what a site kept of a run before this one, so that none goes on from it.

    A coordinator that begins the same study anew asks for the same rounds once more; a site that is
    absent in the first of them would go on from the last time's.

    Args:
        federation: folder of the federation.
        site: its name.
        run: marks one beginning of the run; see ``is_mark``.

    Raises:
        RunError: it cannot be written.
    """
    folder = federation / "own" / site
    note = folder / "run"
    try:
        before = note.read_text(encoding="ascii") if note.exists() else run
        if before != run:
            for kind in _OF_ONE_RUN:
                aside = folder / "before" / before / kind
                if (folder / kind).exists():
                    private_folder(aside.parent)
                    shutil.rmtree(aside, ignore_errors=True)
                    (folder / kind).replace(aside)
        if before != run or not note.exists():
            private_folder(folder)
            replace_private(note, run.encode())
    except OSError as error:
        raise RunError(f"cannot write {folder}: {error.strerror}") from error


def is_mark(value: object) -> TypeGuard[str]:
    """Whether this can mark a run's beginning, and so be a folder's name."""
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{12}", value) is not None


class OwnRounds:
    """One site's folders, one a round.

    Args:
        folder: of this site, this federation and what is kept; made when something is.
        most: so many of the last rounds stay; all by default.
    """

    def __init__(self, folder: Path, *, most: int | None = None) -> None:
        self._folder, self._most = folder, most

    @contextmanager
    def new(self, round: int) -> Iterator[Path]:
        """An empty folder that becomes the round's when the block ends well.

        Raises:
            RunError: it cannot be written.
        """
        try:
            private_folder(self._folder)
        except OSError as error:
            raise RunError(f"cannot write {self._folder}: {error.strerror}") from error
        with new_folder(self._folder / f"round-{round:04d}") as fresh:
            yield fresh
        for number, place in self._rounds().items():
            if self._most is not None and number <= round - self._most:
                shutil.rmtree(place, ignore_errors=True)

    def last(self, *, before: int | None = None) -> Path | None:
        """The folder of the last round before, if there is one.

        Raises:
            AdapterError: there may have been one, and only later ones are left.
        """
        rounds = self._rounds()
        numbers = [number for number in rounds if before is None or number < before]
        cleared = self._most is not None and len(rounds) >= self._most
        if cleared and not numbers and before is not None and before > 1:
            raise AdapterError(
                f"{self._folder}: round {before} is made again, and what was kept before it is "
                "gone; remove the folder to begin anew"
            )
        return rounds[max(numbers)] if numbers else None

    def _rounds(self) -> dict[int, Path]:
        return {
            int(place.name.removeprefix("round-")): place
            for place in self._folder.glob("round-[0-9][0-9][0-9][0-9]")
        }
