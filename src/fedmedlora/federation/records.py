"""What a federation records of each round and site, and what it ends with.

No Flower and no torch here: whoever runs a federation, or reports on one, reads these.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from fedmedlora.model.adapter import Adapter

Status = Literal["ok", "absent", "failed", "refused"]


@dataclass(frozen=True)
class SiteRecord:
    """One site in one round.

    Attributes:
        status: ok; absent (no answer), failed (it said so), refused (its answer was not good).
        reason: why it is not ok.
        examples, tokens: as it reported.
        weight: p_k in the average; 0 unless ok; None if nobody knows it but the site.
        loss_first, loss_last: training losses; ``None`` if not reported or not finite.
        validation_loss: L_k, if the method scores.
        seconds: its training, as it reported; where ``counts`` has ``recalled``, that of the method
            from which the round was taken.
        bytes_down: of the serialised messages sent to it in this round, all phases.
        bytes_up: likewise from it.
        phases: phase ("train", "score") -> (bytes down, bytes up).
        scoring: how it did as a scorer of candidates: "ok", or why not; ``None`` if not asked.
        counts: as it reported.
        declared: the most "examples", "tokens" and tokens of "validation" of a round, as it said
            when it joined.
        update: numbers of ``aggregation.outliers.Finding`` about its reply.
        flags: "norm", "direction" or "rider" -> why its reply is suspect, refused for it or not.
        late: phase -> the round whose answer came while this one ran, after its deadline.
        secure: small stage of secure aggregation -> "ok", or why not, once its update is counted.
    """

    status: Status
    reason: str | None = None
    examples: int = 0
    tokens: int = 0
    weight: float | None = 0.0
    loss_first: float | None = None
    loss_last: float | None = None
    validation_loss: float | None = None
    seconds: float = 0.0
    bytes_down: int = 0
    bytes_up: int = 0
    phases: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    scoring: str | None = None
    counts: Mapping[str, int | float] = field(default_factory=dict)
    declared: Mapping[str, int] = field(default_factory=dict)
    update: Mapping[str, float] = field(default_factory=dict)
    flags: Mapping[str, str] = field(default_factory=dict)
    late: Mapping[str, int] = field(default_factory=dict)
    secure: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RoundRecord:
    """One round, complete or failed.

    Attributes:
        round: from 1.
        method: of the plan.
        sites: name -> record, in the plan's order; every expected site is there.
        seconds: wall time of the round, checkpoint not included.
        status: "ok" or "failed".
        reason: why it failed.
        checkpoint: folder name under the federation's folder; ``None`` if failed.
        adapter_sha256: of the new global adapter; ``None`` if failed.
        server_sha256: of what else the server keeps; ``None`` if nothing.
        secure: of secure aggregation: its threshold, the sum of the weights, the most that the
            mean may be off by, who answered at each stage; ``None`` without.
    """

    round: int
    method: str
    sites: Mapping[str, SiteRecord]
    seconds: float
    status: Literal["ok", "failed"] = "ok"
    reason: str | None = None
    checkpoint: str | None = None
    adapter_sha256: str | None = None
    server_sha256: str | None = None
    secure: Mapping[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON has it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> RoundRecord:
        """The record that ``to_dict`` gave, after a passage through JSON."""
        sites = {
            name: SiteRecord(
                **{
                    **site,
                    "phases": {phase: tuple(sizes) for phase, sizes in site["phases"].items()},
                }
            )
            for name, site in content["sites"].items()
        }
        return cls(**{**content, "sites": sites})


@dataclass(frozen=True)
class FederationResult:
    """What a federation ends with.

    Attributes:
        adapter: the last round's global adapter, its residual joined to it where there is one.
        records: one a round, from round 1, those before a resumption included.
    """

    adapter: Adapter
    records: tuple[RoundRecord, ...]
