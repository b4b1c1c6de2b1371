"""Checkpoints: a round's adapter and record into a folder that is complete or not there; and back.

FOLDER/federation.json              the plan and the initial adapter's hash; see ``plan_file``
FOLDER/declared.json                what each site first said that it trains on; see ``roster``
FOLDER/initial/                     that adapter, where replies are kept
FOLDER/round-0001/round.json        the round's record
FOLDER/round-0001/adapter/          the global adapter after it (opens with PEFT)
FOLDER/round-0001/server.safetensors  what else the server keeps: a residual, its optimiser's memory
FOLDER/round-0001/contributions.json, replies/  whose work it is; see ``contributions``
FOLDER/round-0001/unmasking.json    what unmasks the sum of kept replies; see ``contributions``
FOLDER/round-0001/sketches.json     what was sent, in few numbers; see ``suspects``
FOLDER/round-0001/SHA256SUMS        hashes of all of these
FOLDER/round-0002.failed.json       the record of a round that ended the run
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmedlora.aggregation.methods import ServerState, State
from fedmedlora.durable import clear_leftovers, new_folder, replace_bytes, write_bytes
from fedmedlora.errors import AdapterError, RunError
from fedmedlora.federation.contributions import (
    CONTRIBUTIONS_FILE,
    REPLIES_FOLDER,
    Contributions,
    write_kept,
)
from fedmedlora.federation.plan import FederationPlan
from fedmedlora.federation.plan_file import (
    PLAN_FILE,
    check_same_plan,
    note_rounds,
    read_begun,
    write_plan,
)
from fedmedlora.federation.records import RoundRecord
from fedmedlora.federation.sums import SUMS_FILE, check_sums, sums_sha256, write_sums
from fedmedlora.model.adapter import Adapter, check_same_lineage, sha256_of
from fedmedlora.model.adapter_files import read_adapter, save_adapter

DECLARED_FILE = "declared.json"
RECORD_FILE = "round.json"
ADAPTER_FOLDER = "adapter"
SERVER_FILE = "server.safetensors"
INITIAL_FOLDER = "initial"
#: What reading a file may raise that somebody has changed.
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)


@dataclass(frozen=True)
class Progress:
    """How far a federation has come.

    Attributes:
        state: of the server after the last complete round, or at the beginning.
        records: of the complete rounds, from round 1.
        broken: folders of rounds that could not be read and were set aside.
        begun: marks this beginning of the run; see ``plan_file.read_begun``.
    """

    state: ServerState
    records: tuple[RoundRecord, ...] = ()
    broken: tuple[str, ...] = ()
    begun: str = ""


def round_name(number: int) -> str:
    """The folder name of a round."""
    return f"round-{number:04d}"


def rounds_in(folder: Path) -> dict[int, Path]:
    """Number -> folder of every complete round that is there, in their order."""
    places = sorted(folder.glob("round-[0-9][0-9][0-9][0-9]"))
    return {int(place.name.removeprefix("round-")): place for place in places}


def begin(folder: Path, plan: FederationPlan, initial: Adapter) -> Progress:
    """Start a federation in a folder that holds none.

    Raises:
        RunError: the folder holds rounds already, or cannot be written.
    """
    if rounds_in(folder):
        raise RunError(f"{folder} already holds rounds: resume that run, or take another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / DECLARED_FILE).unlink(missing_ok=True)
        for failed in folder.glob("round-*.failed.json"):
            failed.unlink()
    except OSError as error:
        raise RunError(f"cannot write {folder}: {error.strerror}") from error
    if plan.keep_replies:
        save_adapter(initial, folder / INITIAL_FOLDER, base_model=plan.base_model)
    write_plan(folder, plan, initial.sha256)
    return Progress(ServerState(initial.tensors), begun=read_begun(folder))


def resume(folder: Path, plan: FederationPlan, initial: Adapter) -> Progress:
    """Find the last good round of a federation; one that was never begun is begun.

    A round that cannot be read (a damaged file) is set aside with all after it, and told.

    Raises:
        RunError: the folder holds a federation of another plan or another initial adapter.
    """
    if not (folder / PLAN_FILE).exists():
        return begin(folder, plan, initial)
    clear_leftovers(folder)
    version = check_same_plan(folder, plan, initial.sha256)
    note_rounds(folder, plan.rounds)
    if plan.keep_replies and not (folder / INITIAL_FOLDER).exists():
        save_adapter(initial, folder / INITIAL_FOLDER, base_model=plan.base_model)
    records: list[RoundRecord] = []
    state, broken = ServerState(initial.tensors), []
    for number in range(1, plan.rounds + 1):
        place = folder / round_name(number)
        if not place.exists():
            break
        try:
            if version > 1 or (place / SUMS_FILE).exists():
                check_sums(place)
                check_follows(folder, number)
            record, state = read_round(place, initial)
        except (AdapterError, RunError, OSError):
            broken = _set_aside(folder, number)
            break
        records.append(record)
    for failed in folder.glob("round-*.failed.json"):
        failed.unlink()
    return Progress(state, tuple(records), tuple(broken), read_begun(folder))


def check_follows(folder: Path, number: int) -> None:
    """Refuse a round that was made after another one than the one that is there before it.

    Raises:
        AdapterError: so it is.
        RunError: its contributions cannot be read.
    """
    before = sums_sha256(folder / round_name(number - 1))
    if Contributions.read(folder / round_name(number)).before != before:
        raise AdapterError(f"{folder / round_name(number)} was made after another round")


def write_round(
    folder: Path,
    record: RoundRecord,
    adapter: Adapter,
    *,
    state: ServerState,
    base_model: str,
    contributions: Contributions,
    kept: Mapping[str, bytes | Path],
    more: Mapping[str, bytes] | None = None,
) -> None:
    """Write a complete round, all of it or nothing.

    Args:
        folder: of the federation.
        record: of the round.
        adapter: after it.
        state: of the server after it.
        base_model: for the saved adapter.
        contributions: whose work it is.
        kept: of the replies; see ``contributions.kept_files``.
        more: further files, by name.

    Raises:
        RunError: it cannot be written; the rounds before it stay as they are.
    """
    with new_folder(folder / round_name(record.round)) as fresh:
        save_adapter(adapter, fresh / ADAPTER_FOLDER, base_model=base_model)
        if tensors := _server_tensors(state):
            from safetensors.numpy import save

            write_bytes(fresh / SERVER_FILE, save(tensors))
        write_bytes(fresh / RECORD_FILE, _json(record.to_dict()))
        before = sums_sha256(folder / round_name(record.round - 1))
        write_bytes(fresh / CONTRIBUTIONS_FILE, replace(contributions, before=before).to_json())
        write_kept(fresh / REPLIES_FOLDER, kept)
        for name, content in (more or {}).items():
            write_bytes(fresh / name, content)
        write_sums(fresh)


def server_sha256(state: ServerState) -> str | None:
    """SHA-256 (hex) of what the server keeps beside the adapter; None if nothing."""
    tensors = _server_tensors(state)
    return sha256_of(tensors) if tensors else None


def _server_tensors(state: ServerState) -> dict[str, NDArray[np.float32]]:
    parts = {"residual": state.residual, "memory": state.memory}
    return {
        f"{part}/{name}": np.ascontiguousarray(tensor)
        for part, tensors in parts.items()
        for name, tensor in tensors.items()
    }


def _read_server(path: Path, digest: str | None) -> dict[str, dict[str, NDArray[np.float32]]]:
    if digest is None:
        return {}
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        tensors = load(path.read_bytes())
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}") from error
    except SafetensorError as error:
        raise AdapterError(f"{path} is broken: {error}") from error
    if sha256_of(tensors) != digest:
        raise AdapterError(f"{path} is not the one of the round's record")
    found: dict[str, dict[str, NDArray[np.float32]]] = {"residual": {}, "memory": {}}
    for name, tensor in tensors.items():
        part, _, plain = name.partition("/")
        if part not in found:
            raise AdapterError(f"{path} holds {part!r}, which no server keeps")
        found[part][plain] = tensor
    return found


def factors_after(folder: Path, number: int, initial: Adapter) -> State | None:
    """The global factors after a complete round, or at the beginning (0); None if not there.

    Raises:
        AdapterError: they cannot be read.
    """
    if number == 0:
        return initial.tensors
    place = folder / round_name(number) / ADAPTER_FOLDER
    return read_adapter(place).tensors if place.is_dir() else None


def write_failed_round(folder: Path, record: RoundRecord) -> None:
    """Write the record of a round that ended the run.

    Raises:
        RunError: it cannot be written.
    """
    file = folder / f"{round_name(record.round)}.failed.json"
    replace_bytes(file, _json(record.to_dict()))


def read_record(place: Path) -> RoundRecord:
    """The record of a complete round.

    Args:
        place: the round's folder.

    Raises:
        RunError: it cannot be read.
    """
    file = place / RECORD_FILE
    try:
        return RoundRecord.from_dict(json.loads(file.read_text(encoding="utf-8")))
    except _UNREADABLE as error:
        raise RunError(f"{file} cannot be read") from error


def read_round(place: Path, initial: Adapter) -> tuple[RoundRecord, ServerState]:
    """A round's record and the state after it.

    Args:
        place: its folder.
        initial: what the federation began with.

    Raises:
        AdapterError: what is there is not what the record says.
        RunError: it cannot be read.
    """
    record = read_record(place)
    adapter = read_adapter(place / ADAPTER_FOLDER)
    check_same_lineage(adapter.manifest, initial.manifest)
    if adapter.sha256 != record.adapter_sha256:
        raise AdapterError(f"{place}: the adapter is not the one of the round's record")
    server = _read_server(place / SERVER_FILE, record.server_sha256)
    return record, ServerState(adapter.tensors, **server)


def _set_aside(folder: Path, first: int) -> list[str]:
    names = []
    for number, place in rounds_in(folder).items():
        if number >= first:
            aside = place.with_name(f"{place.name}.broken")
            shutil.rmtree(aside, ignore_errors=True)
            place.rename(aside)
            names.append(aside.name)
    return names


def _json(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, indent=1, allow_nan=False).encode()
