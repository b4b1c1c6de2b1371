"""Factors that a site trains and keeps (FedSA-LoRA's B): into the site's own folder, and back."""

from __future__ import annotations

from pathlib import Path

from fedmedlora.errors import AdapterError
from fedmedlora.federation.adapter_parts import adapter_part, completed
from fedmedlora.federation.own_rounds import OwnRounds
from fedmedlora.federation.plan import Order
from fedmedlora.model.adapter import Adapter
from fedmedlora.model.adapter_files import read_adapter, save_adapter

_ADAPTER = "adapter"


class OwnFactors:
    """One site's own factors, round by round.

    Args:
        folder: of this site and federation; made when something is kept.
    """

    def __init__(self, folder: Path) -> None:
        self._rounds = OwnRounds(folder)

    def keep(self, trained: Adapter, order: Order) -> None:
        """Keep what is not sent of a trained adapter.

        Raises:
            RunError: the folder cannot be written.
        """
        own = adapter_part(trained, "B" if order.returns == "A" else "A")
        with self._rounds.new(order.round) as fresh:
            save_adapter(own, fresh / _ADAPTER, base_model="")

    def recall(self, initial: Adapter, *, before: int | None = None) -> Adapter:
        """``initial`` with the site's own factors of its last round in place of its.

        Args:
            initial: whole; what a site that never trained has.
            before: rounds from this one on are passed over: a killed run may have left them.

        Raises:
            AdapterError: what was kept is damaged, or of another adapter.
        """
        place = self._rounds.last(before=before)
        if place is None:
            return initial
        own = read_adapter(place / _ADAPTER)
        whole = completed(own, initial)
        shapes = {name: tensor.shape for name, tensor in whole.tensors.items()}
        if shapes != dict(initial.manifest.tensors):
            raise AdapterError(f"{place}: the factors kept there are of another adapter")
        return whole
