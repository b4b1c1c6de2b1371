"""A site's optimiser from round to round: into the site's own folder, and back; never sent.

FOLDER/round-0001/    AdamW's memory after that round. The last rounds are kept: one whose answer or
                      checkpoint got lost is trained again, from the one before.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from fedmedlora.durable import new_folder, write_bytes
from fedmedlora.errors import AdapterError

if TYPE_CHECKING:
    from fedmedlora.model.optimiser_state import OptimiserState

_STATE, _HASH = "state.safetensors", "sha256"
_KEPT = 3  # rounds


class OwnOptimiser:
    """One site's optimiser states, round by round.

    Args:
        folder: of this site and federation; made when something is kept.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, state: OptimiserState, *, round: int) -> None:
        """Keep the state after a round.

        Raises:
            RunError: the folder cannot be written.
        """
        from safetensors.torch import save

        data = save(
            {
                f"{key}/{name}": tensor.detach().cpu().contiguous()
                for name, kept in state.items()
                for key, tensor in kept.items()
            }
        )
        with new_folder(self._folder / f"round-{round:04d}") as fresh:
            write_bytes(fresh / _STATE, data)
            write_bytes(fresh / _HASH, hashlib.sha256(data).hexdigest().encode())
        for number, place in self._rounds().items():
            if number <= round - _KEPT:
                shutil.rmtree(place, ignore_errors=True)

    def recall(self, *, before: int) -> OptimiserState:
        """The state after the last round before; empty if there was none.

        Raises:
            AdapterError: what was kept is damaged.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load

        rounds = {number: place for number, place in self._rounds().items() if number < before}
        if not rounds:
            return {}
        place = rounds[max(rounds)]
        try:
            data = (place / _STATE).read_bytes()
            if (place / _HASH).read_text().strip() != hashlib.sha256(data).hexdigest():
                raise ValueError("its hash is another")
            tensors = load(data)
        except (OSError, ValueError, SafetensorError) as error:
            raise AdapterError(
                f"{place}: the optimiser's state kept there cannot be read ({error}); remove the "
                "folder to begin it anew"
            ) from error
        state: dict[str, dict[str, object]] = {}
        for name, tensor in tensors.items():
            key, _, parameter = name.partition("/")
            state.setdefault(parameter, {})[key] = tensor
        return state  # type: ignore[return-value]

    def _rounds(self) -> dict[int, Path]:
        return {
            int(place.name.removeprefix("round-")): place
            for place in self._folder.glob("round-[0-9][0-9][0-9][0-9]")
        }
