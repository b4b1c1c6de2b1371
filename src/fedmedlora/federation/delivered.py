"""A federation in a run folder, whether the adapter that the run delivers is its last round's out.

RUN/federation/LABEL/    the federation
RUN/adapters/LABEL/      what is used, released and given on
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fedmedlora.errors import AdapterError, RunError
from fedmedlora.federation import checkpoints
from fedmedlora.federation.plan_file import read_plan
from fedmedlora.federation.server_model import ServerModel
from fedmedlora.model.adapter_files import read_adapter

RUN_FOLDER = "federation"
ADAPTERS_FOLDER = "adapters"


@dataclass(frozen=True)
class Delivered:
    """What was found of a delivered adapter.

    Attributes:
        place: its folder; "" if the federation is in no run folder, or nothing is delivered (yet).
        faults: what differs, one sentence each.
    """

    place: str = ""
    faults: tuple[str, ...] = ()


def verify_delivered(folder: Path) -> Delivered:
    """Compare the delivered adapter with the last complete round's checkpoint.

    The checkpoint is taken as it is: ``verify.verify_federation`` says whether its replies make it.

    Args:
        folder: of a federation with at least one complete round and its initial adapter.

    Raises:
        RunError: the folder holds no federation.
    """
    place = _place_of(folder)
    if place is None or not place.is_dir():
        return Delivered()
    plan, _ = read_plan(folder)
    last = list(checkpoints.rounds_in(folder).values())[-1]
    try:
        initial = read_adapter(folder / checkpoints.INITIAL_FOLDER)
        _, state = checkpoints.read_round(last, initial)
        wanted = ServerModel(plan, initial, state).adapter
    except (AdapterError, RunError):
        return Delivered(str(place), (f"{last.name}, which it should be of, cannot be read",))
    try:
        found = read_adapter(place)
    except AdapterError as error:
        return Delivered(str(place), (str(error),))
    faults = []
    if found.manifest != wanted.manifest:
        faults.append("its manifest is another than the federation's")
    if found.sha256 != wanted.sha256:
        faults.append(
            f"it is another adapter ({found.sha256[:16]}) than {last.name}'s ({wanted.sha256[:16]})"
        )
    return Delivered(str(place), tuple(faults))


def _place_of(folder: Path) -> Path | None:
    """Where the adapter of a federation is delivered; None if it is in no run folder."""
    folder = folder.resolve()
    for parent in folder.parents:
        if parent.name == RUN_FOLDER:
            return parent.parent / ADAPTERS_FOLDER / folder.relative_to(parent)
    return None
