"""The sites' keys for the connection made known to the SuperLink, and forgotten where replaced.

FOLDER/state/registered/SITE    the key that the SuperLink knows, and its number for the site
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedmedlora.durable import replace_private
from fedmedlora.errors import RunError
from fedmedlora.federation.deployment.flower_commands import JSON, answer, call, last_lines
from fedmedlora.federation.deployment.layout import CONNECTION, CoordinatorFolder


def register_sites(folder: CoordinatorFolder, nodes: Mapping[str, str]) -> None:
    """Make the sites' public keys known to the SuperLink, each once, and others that they had not.

    It may be killed at any moment: the next call goes on.

    Args:
        folder: the coordinator's.
        nodes: every admitted site -> its public key for the connection.

    Raises:
        RunError: Flower refuses one.
    """
    for site, key in nodes.items():
        note = folder.registered / site
        before = _noted(note)
        if before.get("key") == key:
            continue
        if before:
            _unregister(folder, site, before)
            note.unlink()
        replace_private(folder.node_public, f"{key}\n".encode())
        arguments = ["supernode", "register", str(folder.node_public), CONNECTION]
        done = call(folder, [*arguments, "--name", site, *JSON])
        node = answer(done).get("node-id")
        # Known: this process was ended before it could note it.
        if node is None and "already in use" not in last_lines(done).lower():
            raise RunError(f"the SuperLink does not register site {site!r}: {last_lines(done)}")
        replace_private(note, json.dumps({"key": key, "node": node}).encode())


def _noted(note: Path) -> dict[str, Any]:
    """The key that the SuperLink knows a site by, and its number for it; {} if it knows none."""
    try:
        content = json.loads(note.read_text(encoding="ascii"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise RunError(f"{note} cannot be read; {_begin_anew(note.parents[1])}") from error
    return dict(content)


def _unregister(folder: CoordinatorFolder, site: str, known: Mapping[str, Any]) -> None:
    if known.get("node") is None:
        raise RunError(
            f"the SuperLink knows site {site!r} by another key; {_begin_anew(folder.state)}"
        )
    done = call(folder, ["supernode", "unregister", str(known["node"]), CONNECTION, *JSON])
    told = last_lines(done)
    # Not found: this process was ended before it could note that it is forgotten.
    if not answer(done).get("success") and "node id not found" not in told.lower():
        raise RunError(
            f"the SuperLink does not forget the key before of site {site!r}: {told}; "
            f"{_begin_anew(folder.state)}"
        )


def _begin_anew(state: Path) -> str:
    return f"remove {state}, so that the SuperLink begins anew (no round is lost)"
