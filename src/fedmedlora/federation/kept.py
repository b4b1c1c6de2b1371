"""What the server saw of a round, from its checkpoint: the adapter before it, replies, and after.

For looking at a finished federation; ``verify`` makes rounds again and judges them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from fedmedlora.aggregation.methods import ServerState
from fedmedlora.errors import FederationError, RunError
from fedmedlora.federation import checkpoints
from fedmedlora.federation.adapter_parts import completed
from fedmedlora.federation.arrays import array_in
from fedmedlora.federation.contributions import PACKED_FILE, REPLIES_FOLDER, Contributions
from fedmedlora.federation.plan_file import read_plan
from fedmedlora.federation.server_model import ServerModel
from fedmedlora.model.adapter import Adapter, Manifest, check_adapter
from fedmedlora.model.packing import array_of, unpack_update


@dataclass(frozen=True)
class SeenRound:
    """A round as the server saw it.

    Attributes:
        number: from 1.
        before: the global adapter that was sent.
        after: the one that was made of the replies.
        replies: site -> its adapter, with what it did not send as it was before; empty where
            replies were not kept, or are masked.
    """

    number: int
    before: Adapter
    after: Adapter
    replies: Mapping[str, Adapter]


def read_seen(folder: Path, number: int, *, initial: Adapter) -> SeenRound:
    """What the server saw of a round.

    Args:
        folder: of the federation.
        number: of a complete round.
        initial: what round 1 broadcast.

    Raises:
        RunError: there is no such round, or it cannot be read.
        AdapterError: a file of it was changed.
    """
    plan, digest = read_plan(folder)
    if initial.sha256 != digest:
        raise RunError(f"{folder} began with another adapter than this one")
    state = ServerState(initial.tensors)
    if number > 1:
        _, state = checkpoints.read_round(folder / checkpoints.round_name(number - 1), initial)
    place = folder / checkpoints.round_name(number)
    _, later = checkpoints.read_round(place, initial)
    model = ServerModel(plan, initial, state)
    return SeenRound(
        number,
        before=model.trainable,
        after=ServerModel(plan, initial, later).trainable,
        replies={} if plan.secure is not None else _replies(place, number, model),
    )


def _replies(place: Path, number: int, model: ServerModel) -> dict[str, Adapter]:
    if not (place / REPLIES_FOLDER).is_dir():
        return {}
    told = Contributions.read(place)
    sites = [one.signed.site for one in told.contributions]
    calls = {site: replace(model.call(site, number), nonce=told.nonce) for site in sites}
    for _ in model.requests(calls):
        pass  # what differences are differences to is known only once it was sent
    found = {}
    for site, call in calls.items():
        manifest = Manifest.from_json(call.reply_manifest)
        file = place / REPLIES_FOLDER / site / PACKED_FILE
        try:
            packed = array_in(file.read_bytes(), *array_of(call.wire, manifest.size))
        except (OSError, FederationError) as error:
            raise RunError(f"{file} cannot be read") from error
        adapter = unpack_update(packed, manifest, call.wire, model.before(call))
        check_adapter(adapter.tensors, manifest)
        same = manifest.rank == model.manifest.rank
        found[site] = completed(adapter, model.trainable) if same else adapter
    return found
