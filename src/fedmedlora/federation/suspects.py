"""Good replies of a round in; what each looks like beside the others out, and which are suspect.

The replies are read from disk a few values of all at a time; the arithmetic is
``aggregation.outliers``. Of each update a sketch is kept beside the round, so that one that another
site sent in an earlier round is known again.

ROUND/sketches.json    site -> {"reply": <hash of the manifest>, "sketch": [SKETCH values]}
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmedlora.aggregation.columns import SKETCH, gram_and_sketches
from fedmedlora.aggregation.outliers import (
    Finding,
    Remembered,
    ScreeningOptions,
    find_outliers,
)
from fedmedlora.canonical import sha256
from fedmedlora.federation import checkpoints
from fedmedlora.federation.screening import Turned
from fedmedlora.federation.spool import Spooled
from fedmedlora.federation.updates import Packed, UpdateColumns

SKETCHES_FILE = "sketches.json"
#: So many rounds back an update is known again.
EARLIER = 5


@dataclass(frozen=True)
class Sketch:
    """An update of one round, in few numbers.

    Attributes:
        reply: hash of the manifest of what it is an update of; others cannot be compared with it.
        values: (SKETCH,).
    """

    reply: str
    values: NDArray[np.float64]

    def cosine(self, other: Sketch) -> float:
        """To another one; 0 where one is of nothing, or they cannot be compared."""
        lengths = float(np.linalg.norm(self.values) * np.linalg.norm(other.values))
        if self.reply != other.reply or not lengths > 0:
            return 0.0
        return float(self.values @ other.values) / lengths


def compare(
    groups: Sequence[tuple[tuple[str, ...], Packed]],
    options: ScreeningOptions,
    *,
    replies: Mapping[str, str],
    last_step: Callable[[tuple[str, ...]], Spooled | None],
    earlier: Mapping[int, Mapping[str, Sketch]],
) -> tuple[dict[str, Finding], dict[str, Sketch]]:
    """Compare the updates of a round, those of one shape with one another.

    Args:
        groups: see ``updates.packed_replies``.
        options: what is suspect.
        replies: site -> JSON of the manifest of its reply.
        last_step: sites -> the step that the global model made in the round before in what they
            return, as float32; ``None`` if there is none.
        earlier: sketches of the rounds before.

    Returns:
        what was found, and the sketches, by site.
    """
    findings: dict[str, Finding] = {}
    found: dict[str, Sketch] = {}
    for sites, packed in groups:
        step = last_step(sites)
        gram, sketches = gram_and_sketches(UpdateColumns(packed, step))
        for site, values in zip(sites, sketches, strict=False):
            found[site] = Sketch(sha256(replies[site].encode()), values)
        judged = find_outliers(
            gram,
            options,
            sites=sites,
            last_step=step is not None,
            earlier={
                site: one
                for site in sites
                if (one := _most_alike(site, found[site], earlier)) is not None
            },
        )
        findings |= dict(zip(sites, judged, strict=True))
    return findings, found


def _most_alike(
    site: str, sketch: Sketch, earlier: Mapping[int, Mapping[str, Sketch]]
) -> Remembered | None:
    """Of what other sites sent before."""
    known = [
        Remembered(sketch.cosine(other), f"{name} (round {number})")
        for number, sketches in earlier.items()
        for name, other in sketches.items()
        if name != site and other.reply == sketch.reply
    ]
    return max(known, key=lambda one: one.cosine, default=None)


def write_sketches(sketches: Mapping[str, Sketch]) -> bytes:
    """As the file has them."""
    content = {
        site: {"reply": one.reply, "sketch": [float(f"{value:.6g}") for value in one.values]}
        for site, one in sketches.items()
    }
    return json.dumps(content).encode()


def sketches_before(folder: Path, number: int) -> dict[int, dict[str, Sketch]]:
    """Sketches of the last ``EARLIER`` rounds before a round; a round without has none.

    Args:
        folder: of the federation, whose rounds were looked at when it was resumed.
        number: of the round.
    """
    found = {}
    for before in range(max(1, number - EARLIER), number):
        place = folder / checkpoints.round_name(before) / SKETCHES_FILE
        if place.exists():
            content: dict[str, Any] = json.loads(place.read_bytes())
            found[before] = {
                site: Sketch(str(one["reply"]), np.array(one["sketch"]).reshape(SKETCH))
                for site, one in content.items()
            }
    return found


def suspected(finding: Finding, options: ScreeningOptions) -> tuple[dict[str, str], Turned | None]:
    """What a finding says against a site, by kind, and its fate if it is refused for it."""
    faults = {
        "norm": (options.norms, finding.norm_fault),
        "direction": (options.directions, finding.direction_fault),
        "rider": (options.riders, finding.rider_fault),
    }
    said = {kind: why for kind, (action, why) in faults.items() if why and action != "off"}
    refused = [why for action, why in faults.values() if why and action == "refuse"]
    return said, Turned("refused", "; ".join(refused)) if refused else None
