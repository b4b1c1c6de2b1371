"""What the messages hold: introductions, training and scoring, as Flower records and back.

An adapter travels as one packed array beside its manifest; what a site trained may travel as its
difference to what the site got. A reply holds numbers, names of sites and of counts, and the
adapter; nothing else leaves a site.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmedlora.aggregation.methods import Part
from fedmedlora.errors import FederationError
from fedmedlora.federation.flower import (
    Array,
    ArrayRecord,
    ConfigRecord,
    MetricRecord,
    RecordDict,
)
from fedmedlora.federation.plan import Declared, Order, SiteLosses, SiteUpdate
from fedmedlora.model.adapter import Adapter, Manifest, check_adapter
from fedmedlora.model.packing import (
    Wire,
    form_of,
    is_difference,
    pack,
    pack_update,
    unpack,
    unpack_update,
)

ARRAYS, PACKED, CONFIG, METRICS, COUNTS = "adapter", "packed", "config", "metrics", "counts"
RESIDUAL, BEFORE = "residual", "before"
#: Key of the config record of losses: the hashes of what they are of.
CANDIDATES = "candidates"
COUNT_NAME = re.compile(r"[A-Za-z0-9_./-]{1,64}")
MOST_COUNTS = 256


@dataclass(frozen=True)
class Call:
    """What a request and its reply have in common.

    Attributes:
        run: the plan's run id.
        round: from 1.
        manifest: JSON of the manifest of what the request carries.
        wire: how sites send what they trained.
        reply: JSON of the manifest of what a training's reply must carry; "" is the same.
        trains, returns, initial: see ``plan.Order``.
        carries: what a difference rounds away is added to the next; not where the server cuts new
            factors in between.
        nonce: of this attempt at a round; a reply to another one does not answer it.
    """

    run: str
    round: int
    manifest: str
    wire: Wire
    reply: str = ""
    trains: Part = "AB"
    returns: Part = "AB"
    initial: str = ""
    carries: bool = True
    nonce: str = ""

    @property
    def reply_manifest(self) -> str:
        """JSON of the manifest that a training's reply must have."""
        return self.reply or self.manifest


def introduction(call: Call, site: str, declared: Declared | None) -> RecordDict:
    """What a node says when it is asked who it is: its site, and how much that trains on."""
    content = RecordDict({CONFIG: _reply_config(call, site)})
    if declared is not None:
        sizes = {name: int(size) for name, size in asdict(declared).items()}
        content[METRICS] = MetricRecord(sizes)
    return content


def read_introduction(content: RecordDict, run: str) -> tuple[str | None, Declared | None]:
    """The site that an untrusted node names for a run, and the sizes that it declares, if they are
    such."""
    config = content.config_records.get(CONFIG, {})
    site = config.get("site")
    told = config.get("run"), config.get("round"), config.get("status")
    if not isinstance(site, str) or told != (run, 0, "ok"):
        return None, None
    told = content.metric_records.get(METRICS, {})
    sizes = {field.name: told.get(field.name) for field in fields(Declared)}
    if not all(isinstance(size, int) and size >= 0 for size in sizes.values()):
        return site, None
    declared = Declared(**sizes)
    return site, declared if declared.examples > 0 and declared.tokens > 0 else None


def adapter_arrays(packed: NDArray[Any]) -> ArrayRecord:
    """An ``ArrayRecord`` of one array: packed, or K packed ones stacked."""
    return ArrayRecord({PACKED: Array(packed)})


def request(call: Call, arrays: ArrayRecord, *, residual: Adapter | None = None) -> RecordDict:
    """A request to train."""
    content = RecordDict({ARRAYS: arrays, CONFIG: ConfigRecord(asdict(call))})
    if residual is not None:
        content[RESIDUAL] = adapter_arrays(pack(residual, form_of(call.wire)))
        content[CONFIG][RESIDUAL] = residual.manifest.to_json()
    return content


def scoring_request(
    call: Call, packed: Sequence[NDArray[Any]], *, before: Adapter | None
) -> RecordDict:
    """A request to score K candidates, as they came.

    Args:
        call: of this phase.
        packed: K packed arrays, stacked into one.
        before: what they are differences to, if they are.
    """
    arrays = adapter_arrays(np.stack(packed))
    content = RecordDict({ARRAYS: arrays, CONFIG: ConfigRecord(asdict(call))})
    if is_difference(call.wire):
        if before is None:
            raise ValueError("differences need what they are differences to")
        content[BEFORE] = adapter_arrays(pack(before, form_of(call.wire)))
    return content


def read_request(content: RecordDict) -> tuple[Call, Adapter]:
    """The call and the adapter of a request to train.

    Raises:
        AdapterError: the adapter is not what the manifest says.
        KeyError: it is no request of this package.
    """
    call, manifest = _read_call(content)
    return call, unpack(content[ARRAYS][PACKED].numpy(), manifest, form_of(call.wire))


def read_scoring_request(content: RecordDict) -> tuple[Call, tuple[Adapter, ...]]:
    """The call and the K candidates of a request to score them; errors as of ``read_request``."""
    call, manifest = _read_call(content)
    before = None
    if is_difference(call.wire):
        before = unpack(content[BEFORE][PACKED].numpy(), manifest, form_of(call.wire))
    rows = content[ARRAYS][PACKED].numpy()
    return call, tuple(unpack_update(row, manifest, call.wire, before) for row in rows)


def _read_call(content: RecordDict) -> tuple[Call, Manifest]:
    config = content[CONFIG]
    call = Call(**{field.name: config[field.name] for field in fields(Call)})
    return call, Manifest.from_json(call.manifest)


def read_order(content: RecordDict, call: Call) -> Order:
    """What a request to train asks for, beside its adapter.

    Raises:
        AdapterError: the residual is not what its manifest says.
    """
    residual = None
    if RESIDUAL in content.array_records:
        manifest = Manifest.from_json(content[CONFIG][RESIDUAL])
        residual = unpack(content[RESIDUAL][PACKED].numpy(), manifest, form_of(call.wire))
        check_adapter(residual.tensors, manifest)
    return Order(call.round, call.trains, call.returns, call.initial, residual)


def read_call(content: RecordDict) -> Call | None:
    """The run and the round of a request that cannot be answered, if so much of it can be read."""
    config = content.config_records.get(CONFIG, {})
    if "run" not in config or "round" not in config:
        return None
    return Call(config["run"], config["round"], "", "bf16")


def update_reply(
    call: Call,
    site: str,
    update: SiteUpdate,
    *,
    before: Adapter,
    carried: NDArray[np.float32] | None = None,
) -> tuple[RecordDict, NDArray[np.float32] | None]:
    """What a site sends back after training, and what of it is rounded away, if that is kept.

    Args:
        call: what it answers.
        site: who answers.
        update: what it made.
        before: of what: the part of the adapter it got that it sends back.
        carried: what it rounded away before.

    Raises:
        AdapterError: the adapter breaks its own manifest.
        ValueError: a count has a name that could be text.
    """
    for name in update.counts:
        if not COUNT_NAME.fullmatch(name):
            raise ValueError("a count's name must be 1 to 64 letters, digits or _ . / -")
    metrics: dict[str, int | float] = {
        "examples": int(update.examples),
        "tokens": int(update.tokens),
        "seconds": float(update.seconds),
    }
    for name, loss in (("loss_first", update.loss_first), ("loss_last", update.loss_last)):
        if loss is not None:
            metrics[name] = float(loss)
    counts = {
        name: int(value) if isinstance(value, int) else float(value)
        for name, value in update.counts.items()
    }
    packed, left = pack_update(update.adapter, before, call.wire, carried)
    reply = RecordDict(
        {
            ARRAYS: adapter_arrays(packed),
            CONFIG: _reply_config(call, site, manifest=update.adapter.manifest.to_json()),
            METRICS: MetricRecord(metrics),
            COUNTS: MetricRecord(counts),
        }
    )
    return reply, left


def losses_reply(
    call: Call, site: str, losses: SiteLosses, *, candidates: Sequence[str]
) -> RecordDict:
    """What a site sends back after scoring: losses, and hashes of what they are of."""
    metrics = {
        "losses": [float(loss) for loss in losses.losses],
        "tokens": int(losses.tokens),
    }
    config = _reply_config(call, site)
    config[CANDIDATES] = list(candidates)
    return RecordDict({CONFIG: config, METRICS: MetricRecord(metrics)})


def failure_reply(call: Call | None, site: str, *, code: str, incident: str) -> RecordDict:
    """What a site sends back when it failed: a word and a number, never the exception's text."""
    known = call or Call("", 0, "", "bf16")
    config = _reply_config(known, site, status="failed", code=code, incident=incident)
    return RecordDict({CONFIG: config})


def _reply_config(call: Call, site: str, status: str = "ok", **more: str) -> ConfigRecord:
    return ConfigRecord(
        {"run": call.run, "round": call.round, "site": site, "status": status, **more}
    )


def numbers(content: RecordDict, record: str) -> Mapping[str, Any]:
    """A ``MetricRecord`` of an untrusted reply.

    Raises:
        FederationError: it is not there.
    """
    metrics = content.metric_records
    if record not in metrics:
        raise FederationError(f"it lacks the record {record!r}")
    found: Mapping[str, Any] = metrics[record]
    return found


def settings(content: RecordDict) -> Mapping[str, Any]:
    """The ``ConfigRecord`` of an untrusted reply.

    Raises:
        FederationError: it is not there.
    """
    configs = content.config_records
    if CONFIG not in configs:
        raise FederationError("it lacks the record 'config'")
    found: Mapping[str, Any] = configs[CONFIG]
    return found
