"""What an untrusted reply says, looked at before it counts: an adapter and numbers, or losses.

Enters: the content of a reply that is its site's own. Leaves: what of it may be used, or why not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedmedlora.errors import FederationError
from fedmedlora.federation import wire
from fedmedlora.federation.arrays import packed_array
from fedmedlora.federation.flower import RecordDict
from fedmedlora.federation.plan import Declared
from fedmedlora.federation.spool import Spool, Spooled
from fedmedlora.federation.statements import Proof
from fedmedlora.model.adapter import Adapter, Manifest, check_adapter
from fedmedlora.model.packing import unpack_update

LARGEST = 2**53  # the last whole number that float64 counts exactly
NO_PROOF = Proof(b"", "")


@dataclass(frozen=True)
class Candidate:
    """A site's adapter that passed, still packed, and what the site reported.

    Attributes:
        packed: as it came, on disk.
        before: what it is a difference to, if it is one.
        proof: what the reply said, and its signature.
    """

    packed: Spooled
    before: Adapter | None
    examples: int
    tokens: int
    loss_first: float | None
    loss_last: float | None
    seconds: float
    counts: Mapping[str, int | float]
    proof: Proof = NO_PROOF

    @property
    def sha256(self) -> str:
        """Of the packed adapter, as its site stated it."""
        return str(self.proof.said["arrays"][f"{wire.ARRAYS}/{wire.PACKED}"])

    def adapter(self, call: wire.Call) -> Adapter:
        """Unpacked."""
        manifest = Manifest.from_json(call.reply_manifest)
        return unpack_update(self.packed.read(), manifest, call.wire, self.before)


@dataclass(frozen=True)
class Score:
    """The losses that a site found of the candidates; some may be non-finite, not all."""

    losses: tuple[float, ...]
    tokens: int
    proof: Proof = NO_PROOF


def read_sizes(content: RecordDict, declared: Declared | None) -> dict[str, int]:
    """Examples and tokens of a training.

    Raises:
        FederationError: they are no sizes, or above what the site declared.
    """
    metrics = wire.numbers(content, wire.METRICS)
    sizes = {name: _size(metrics, name) for name in ("examples", "tokens")}
    if declared is None:
        raise FederationError("it did not declare how much it trains on when it joined")
    for name, most in (("examples", declared.examples), ("tokens", declared.tokens)):
        if sizes[name] > most:
            raise FederationError(
                f"it counts {sizes[name]} {name}, and declared {most} at most when it joined"
            )
    return sizes


def read_update(
    content: RecordDict,
    call: wire.Call,
    before: Adapter | None,
    spool: Spool,
    *,
    sizes: Mapping[str, int],
) -> Candidate:
    """A trained adapter, put on disk, and what came with it.

    Args:
        content: of the reply.
        call: what it answers.
        before: what it is a difference to, if it is one.
        spool: where it goes.
        sizes: of the training.

    Raises:
        FederationError, AdapterError: it is not good.
    """
    if wire.settings(content).get("manifest") != call.reply_manifest:
        raise FederationError("its adapter's manifest is not the one that was asked for")
    manifest = Manifest.from_json(call.reply_manifest)
    metrics = wire.numbers(content, wire.METRICS)
    counts = wire.numbers(content, wire.COUNTS)
    bad = [n for n in counts if not wire.COUNT_NAME.fullmatch(n) or _number(counts[n]) is None]
    if bad or len(counts) > wire.MOST_COUNTS:
        raise FederationError(
            f"{len(bad)} of its {len(counts)} counts (at most {wire.MOST_COUNTS}) are malformed"
        )
    packed = packed_array(content, manifest, call.wire)
    check_adapter(unpack_update(packed, manifest, call.wire, before).tensors, manifest)
    return Candidate(
        # As it came: its hash is the one that was signed, and that the site's log has.
        packed=spool.put_bytes(content[wire.ARRAYS][wire.PACKED].data),
        before=before,
        **{**reported(metrics, counts), **sizes},
    )


def reported(metrics: Mapping[str, Any], counts: Mapping[str, Any]) -> dict[str, Any]:
    """What a reply's numbers say of its training, as a site's record has it; not checked."""
    return {
        "examples": metrics.get("examples"),
        "tokens": metrics.get("tokens"),
        "loss_first": _number(metrics.get("loss_first")),
        "loss_last": _number(metrics.get("loss_last")),
        "seconds": _number(metrics.get("seconds")) or 0.0,
        "counts": dict(counts),
    }


def read_score(content: RecordDict, *, candidates: Sequence[str]) -> Score:
    """Losses of the candidates that have these hashes.

    Raises:
        FederationError: they are of others, or not as many, or none is finite.
    """
    if wire.settings(content).get(wire.CANDIDATES) != list(candidates):
        raise FederationError("its losses are not said to be of the candidates that it was sent")
    metrics = wire.numbers(content, wire.METRICS)
    losses = metrics.get("losses")
    if not isinstance(losses, list) or len(losses) != len(candidates):
        raise FederationError(f"it does not hold {len(candidates)} losses")
    if not any(math.isfinite(loss) for loss in losses):
        raise FederationError("none of its losses is finite")
    return Score(tuple(float(loss) for loss in losses), _size(metrics, "tokens"))


def _size(metrics: Mapping[str, Any], name: str) -> int:
    value = metrics.get(name)
    if not isinstance(value, int) or not 0 < value <= LARGEST:
        shown = value if isinstance(value, int | float) else type(value).__name__
        raise FederationError(f"its number of {name} is {shown}: a whole number above 0 is needed")
    return value


def _number(value: object) -> float | int | None:
    """A finite number, or ``None``."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value
