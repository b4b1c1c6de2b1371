"""A site's optimiser from round to round: into the site's own folder, and back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fedmedlora.canonical import sha256
from fedmedlora.durable import write_bytes
from fedmedlora.errors import AdapterError
from fedmedlora.federation.own_rounds import OwnRounds

if TYPE_CHECKING:
    from fedmedlora.model.optimiser_state import OptimiserState

_STATE, _HASH = "state.safetensors", "sha256"


class OwnOptimiser:
    """One site's optimiser states, those of the last three rounds.

    Args:
        folder: of this site and federation; made when something is kept.
    """

    def __init__(self, folder: Path) -> None:
        self._rounds = OwnRounds(folder, most=3)

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
        with self._rounds.new(round) as fresh:
            write_bytes(fresh / _STATE, data)
            write_bytes(fresh / _HASH, sha256(data).encode())

    def recall(self, *, before: int) -> OptimiserState:
        """The state after the last round before; empty if there was none.

        Raises:
            AdapterError: what was kept is damaged or gone.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load

        place = self._rounds.last(before=before)
        if place is None:
            return {}
        try:
            data = (place / _STATE).read_bytes()
            if (place / _HASH).read_text().strip() != sha256(data):
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
