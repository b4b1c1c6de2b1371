"""Good replies of a round in; what each looks like beside the others out, and which are suspect.

The replies are read from disk a few values of all at a time; the arithmetic is
``aggregation.outliers``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fedmedlora.aggregation.columns import gram_of
from fedmedlora.aggregation.outliers import Finding, ScreeningOptions, find_outliers
from fedmedlora.federation.screening import Turned
from fedmedlora.federation.spool import Spooled
from fedmedlora.federation.updates import Packed, UpdateColumns


def compare(
    groups: Sequence[tuple[tuple[str, ...], Packed]],
    options: ScreeningOptions,
    *,
    last_step: Callable[[tuple[str, ...]], Spooled | None],
) -> dict[str, Finding]:
    """Compare the updates of a round, those of one shape with one another.

    Args:
        groups: see ``updates.packed_replies``.
        options: what is suspect.
        last_step: sites -> the step that the global model made in the round before in what they
            return, as float32; ``None`` if there is none.

    Returns:
        what was found, by site.
    """
    findings: dict[str, Finding] = {}
    for sites, packed in groups:
        step = last_step(sites)
        gram = gram_of(UpdateColumns(packed, step))
        found = find_outliers(gram, options, sites=sites, last_step=step is not None)
        findings |= dict(zip(sites, found, strict=True))
    return findings


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
