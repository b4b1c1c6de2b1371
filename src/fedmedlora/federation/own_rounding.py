"""What a site's quantised differences round away, carried to the next round (error feedback)."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedmedlora.durable import write_bytes
from fedmedlora.errors import AdapterError
from fedmedlora.federation.own_rounds import OwnRounds

_FILE = "rounding.npy"


class OwnRounding:
    """One site's rounding errors, those of the last three rounds.

    Args:
        folder: of this site, this federation and the factors that are sent.
    """

    def __init__(self, folder: Path) -> None:
        self._rounds = OwnRounds(folder, most=3)

    def keep(self, left: NDArray[np.float32], *, round: int) -> None:
        """Keep what a round rounded away, (size,).

        Raises:
            RunError: the folder cannot be written.
        """
        file = io.BytesIO()
        np.save(file, left)
        with self._rounds.new(round) as fresh:
            write_bytes(fresh / _FILE, file.getvalue())

    def recall(self, *, before: int) -> NDArray[np.float32] | None:
        """What the last round before rounded away; None if nothing.

        Raises:
            AdapterError: what was kept is damaged or gone.
        """
        place = self._rounds.last(before=before)
        if place is None:
            return None
        try:
            left = np.load(place / _FILE, allow_pickle=False)
            if left.dtype != np.float32 or not bool(np.isfinite(left).all()):
                raise ValueError("it is not what is written there")
        except (OSError, ValueError, EOFError) as error:
            raise AdapterError(
                f"{place}: what was rounded away cannot be read ({error}); remove the folder to go "
                "on without it"
            ) from error
        return left  # type: ignore[no-any-return]
