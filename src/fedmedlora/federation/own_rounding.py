"""What a site's quantised differences round away, carried to the next round (error feedback).

Of a private round it is made of what the noise is in already, and of nothing else: carrying it on
costs no more privacy. Something else in its place would be sent as it is, so it is never taken up
unless its hash is the one that was written with it.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedmedlora.canonical import sha256
from fedmedlora.durable import write_bytes
from fedmedlora.errors import AdapterError
from fedmedlora.federation.own_rounds import OwnRounds

_FILE, _HASH = "rounding.npy", "rounding.sha256"


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
            write_bytes(fresh / _HASH, sha256(file.getvalue()).encode())

    def recall(self, *, before: int) -> NDArray[np.float32] | None:
        """What the last round before rounded away; None if nothing.

        Raises:
            AdapterError: what was kept is damaged or gone.
        """
        place = self._rounds.last(before=before)
        if place is None:
            return None
        try:
            data = (place / _FILE).read_bytes()
            if (place / _HASH).read_text(encoding="ascii").strip() != sha256(data):
                raise ValueError("its hash is another")
            left = np.load(io.BytesIO(data), allow_pickle=False)
            if left.dtype != np.float32 or not bool(np.isfinite(left).all()):
                raise ValueError("it is not what is written there")
        except (OSError, ValueError, EOFError) as error:
            raise AdapterError(
                f"{place}: what was rounded away cannot be read ({error}); remove the folder to go "
                "on without it"
            ) from error
        return left  # type: ignore[no-any-return]
