"""The file that says which federation a folder holds: a plan in, the same plan out or why not.

FOLDER/federation.json    the plan, the initial adapter's hash, and what marks this beginning
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from fedmedlora.durable import replace_bytes
from fedmedlora.errors import RunError
from fedmedlora.federation.plan import FederationPlan

PLAN_FILE = "federation.json"
#: What may change between a run and its resumption. None of it changes the result of a round; where
#: sites spread their learning rate over the run's rounds, it is theirs to keep their number.
_CHANGEABLE = ("rounds", "processes", "timeout_s", "connect_s", "base_model", "keep_replies")
#: 2: every round has its SHA256SUMS and contributions. Rounds of 1 may lack them.
_FORMAT = 2


def write_plan(folder: Path, plan: FederationPlan, initial: str) -> None:
    """Write the file of a federation that begins.

    Args:
        folder: of the federation.
        plan: of it.
        initial: hash (hex) of the adapter that round 1 broadcasts.

    Raises:
        RunError: it cannot be written.
    """
    content = {"format": _FORMAT, "plan": asdict(plan), "initial_sha256": initial}
    _write(folder, {**content, "begun": secrets.token_hex(6)})


def read_begun(folder: Path) -> str:
    """What marks one beginning of a run from the next of the same plan: 12 hexadecimal digits.

    "" of a federation that an earlier version began.

    Raises:
        RunError: the folder holds none, or one that another release made.
    """
    return str(_read(folder).get("begun", ""))


def read_plan(folder: Path) -> tuple[FederationPlan, str]:
    """A federation's plan, and the hash of its initial adapter.

    Raises:
        RunError: the folder holds none, or one that another release made.
        ConfigError: a value of it is out of range.
    """
    content = _read(folder)
    try:
        plan = TypeAdapter(FederationPlan).validate_python(content["plan"])
        return plan, content["initial_sha256"]
    except (ValidationError, ValueError) as error:
        raise RunError(f"{folder / PLAN_FILE} holds no plan of this release") from error


def check_same_plan(folder: Path, plan: FederationPlan, initial: str) -> int:
    """Refuse to go on with another federation than the folder's.

    Args:
        folder: of the federation.
        plan: to go on with.
        initial: hash (hex) of the adapter that round 1 broadcasts by it.

    Returns:
        the format of the folder.

    Raises:
        RunError: it is another, or cannot be read.
    """
    content = _read(folder)
    before = content["plan"]
    now = json.loads(_json(asdict(plan)))
    # Of a setting that there was not yet, a run had what is its default now.
    least = json.loads(_json(asdict(FederationPlan("any", plan.sites, 1))))
    changed = [
        f"{name} ({before.get(name, least[name])!r}, now {value!r})"
        for name, value in now.items()
        if name not in _CHANGEABLE and before.get(name, least[name]) != value
    ]
    if content["initial_sha256"] != initial:
        changed.append("the initial adapter")
    if changed:
        raise RunError(
            f"{folder / PLAN_FILE}: cannot resume with another plan: {', '.join(changed)}; take "
            "another folder"
        )
    return int(content["format"])


def note_rounds(folder: Path, rounds: int) -> None:
    """Keep how many rounds there are to be now: a run that was cut short shows by it.

    Raises:
        RunError: the file cannot be read or written.
    """
    content = _read(folder)
    if content["plan"].get("rounds") != rounds:
        _write(folder, {**content, "plan": {**content["plan"], "rounds": rounds}})


def _read(folder: Path) -> dict[str, Any]:
    """The content of the file: its plan a mapping, hash and format there."""
    path = folder / PLAN_FILE
    try:
        content = dict(json.loads(path.read_text(encoding="utf-8")))
        plan, digest = dict(content["plan"]), str(content["initial_sha256"])
        version = int(content.get("format", 1))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RunError(f"{path}: cannot be read: take another folder") from error
    if not 1 <= version <= _FORMAT:
        raise RunError(f"{path} has format {version}: another release made it; take another folder")
    return {**content, "plan": plan, "initial_sha256": digest, "format": version}


def _write(folder: Path, content: Mapping[str, Any]) -> None:
    replace_bytes(folder / PLAN_FILE, _json(content))


def _json(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, indent=1, allow_nan=False).encode()
