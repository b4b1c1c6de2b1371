"""The replies of a round as columns: packed on disk in, a few values of all sites at a time out.

What a robust rule makes of them starts here; the arithmetic is ``aggregation``'s.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedmedlora.aggregation.columns import Columns, gram_of
from fedmedlora.aggregation.robust import BY_COLUMN, BY_UPDATE, RobustOptions, robust_weights
from fedmedlora.federation import wire
from fedmedlora.federation.server_model import ServerModel
from fedmedlora.federation.spool import Spool, Spooled
from fedmedlora.model.adapter import Manifest
from fedmedlora.model.packing import Wire, array_of, form_of, is_difference, places_of, values_in


@dataclass(frozen=True)
class Packed:
    """Replies to one request, with what that request sent of what they return.

    Attributes:
        replies: as they came.
        sent: packed as a whole adapter is, on disk.
        size: values of each.
        wire: how the replies travelled.
    """

    replies: Sequence[Spooled]
    sent: Spooled
    size: int
    wire: Wire

    def sent_part(self, start: int, stop: int) -> NDArray[np.float32]:
        """Values of what was sent."""
        form = form_of(self.wire)
        kind, _ = array_of(form, self.size)
        return values_in(self.sent.part((start, stop), kind=kind), form, count=stop - start)

    def reply_part(self, reply: Spooled, start: int, stop: int) -> NDArray[np.float32]:
        """Values of a reply as it came: of an adapter, or of a difference."""
        places = places_of(self.wire, self.size, start=start, stop=stop)
        kind, _ = array_of(self.wire, self.size)
        return values_in(reply.part(*places, kind=kind), self.wire, count=stop - start)


class AdapterColumns:
    """The adapters that were sent back; ``aggregation.columns.Columns``."""

    def __init__(self, packed: Packed) -> None:
        self._packed = packed
        self.rows, self.size = len(packed.replies), packed.size

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        """See ``Columns``."""
        packed = self._packed
        found = np.empty((self.rows, stop - start), np.float32)
        for row, reply in zip(found, packed.replies, strict=True):
            row[:] = packed.reply_part(reply, start, stop)
        if is_difference(packed.wire):
            found += packed.sent_part(start, stop)
        return found


class UpdateColumns:
    """What the sites made of what they got; then, if there is one, a further row as float32.

    ``aggregation.columns.Columns``.
    """

    def __init__(self, packed: Packed, further: Spooled | None = None) -> None:
        self._packed, self._further = packed, further
        self.rows, self.size = len(packed.replies) + (further is not None), packed.size

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        """See ``Columns``."""
        packed = self._packed
        found = np.empty((self.rows, stop - start), np.float32)
        for row, reply in zip(found, packed.replies, strict=False):
            row[:] = packed.reply_part(reply, start, stop)
        if not is_difference(packed.wire):
            found[: len(packed.replies)] -= packed.sent_part(start, stop)
        if self._further is not None:
            found[-1] = self._further.part((start, stop), kind=np.dtype(np.float32))
        return found


def packed_replies(
    replies: Mapping[str, Spooled],
    calls: Mapping[str, wire.Call],
    *,
    model: ServerModel,
    spool: Spool,
) -> list[tuple[tuple[str, ...], Packed]]:
    """The sites' replies in groups of one manifest, with what was sent.

    Args:
        replies: by site, as they came.
        calls: what they answer.
        model: as it was when it sent.
        spool: where what was sent is put.
    """
    groups: dict[str, list[str]] = {}
    for site in replies:
        groups.setdefault(calls[site].reply_manifest, []).append(site)
    found = []
    for manifest, sites in groups.items():
        call = calls[sites[0]]
        packed = Packed(
            replies=[replies[site] for site in sites],
            sent=spool.put(model.sent(call)),
            size=Manifest.from_json(manifest).size,
            wire=call.wire,
        )
        found.append((tuple(sites), packed))
    return found


def robust_inputs(
    options: RobustOptions, weights: list[float], packed: Callable[[], Packed]
) -> tuple[list[float], Columns | None]:
    """What a round is combined with under a rule.

    Args:
        options: with the rule.
        weights: p_k of all that is combined.
        packed: gives the replies, in the order of the weights.

    Returns:
        the weights that the rule leaves, and the adapters as columns if it needs them.
    """
    if options.rule in BY_COLUMN:
        return robust_weights(weights, options, gram=None), AdapterColumns(packed())
    gram = gram_of(UpdateColumns(packed())) if options.rule in BY_UPDATE else None
    return robust_weights(weights, options, gram=gram), None
