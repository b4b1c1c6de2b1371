"""What a study will need of every site, before anything is downloaded or read: tables of sizes.

The adapter and its traffic are exact but for the envelope of a message (about 2 kB); memory is an
estimate (docs/performance.md says how far off).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

from fedmedlora.aggregation.methods import METHODS, Part
from fedmedlora.aggregation.ring import ROW_BYTES
from fedmedlora.config import Study
from fedmedlora.evaluation.tables import Table
from fedmedlora.model.backbone import Precision
from fedmedlora.model.memory import PROCESS_BYTES, Estimator, Shape
from fedmedlora.model.merged import MERGE_BELOW
from fedmedlora.model.packing import form_of, is_difference, wire_bytes
from fedmedlora.study.arms import Arm, study_arms
from fedmedlora.study.privacy_estimate import privacy_tables

_HERE = "this study"


def estimate_tables(study: Study) -> list[Table]:
    """The adapter, its traffic by method, memory, and the noise of a promised epsilon.

    No note is read and no weight.

    Raises:
        BackboneError: there is no such backbone.
        AdapterError: it has no such modules.
    """
    own = _estimator(study, study.backbone.precision)
    tables = [_adapter_table(study, own)]
    arms = study_arms(study)
    federated = [arm for arm in arms if arm.kind == "federated" and not arm.is_tagger]
    if federated:
        tables.append(_traffic_table(study, own, federated))
    return [*tables, _memory_table(study, own), *privacy_tables(arms)]


def _estimator(study: Study, precision: Precision) -> Estimator:
    return Estimator(study.backbone.name, precision=precision, **study.adapter.model_dump())


def _adapter_table(study: Study, own: Estimator) -> Table:
    shape, wire = own.shape, study.federation.wire
    sent = wire_bytes(shape.adapter, wire)
    rows = (
        ("backbone", study.backbone.name),
        ("its parameters", f"{shape.parameters:,}"),
        (f"its weights, {study.backbone.precision}", _size(own.weights)),
        (f"adapter's parameters, rank {study.adapter.rank}", f"{shape.adapter:,}"),
        ("share of the backbone's", f"{shape.adapter / shape.parameters:.3%}"),
        (f"adapter to a site, {form_of(wire)}", _size(wire_bytes(shape.adapter, form_of(wire)))),
        (f"from a site, {wire}", _size(sent)),
        ("that of the whole model in bf16", f"{sent / (2 * shape.parameters):.2%}"),
    )
    return Table(title="The adapter", headers=("", ""), rows=rows)


def _traffic_table(study: Study, own: Estimator, arms: list[Arm]) -> Table:
    rows = []
    whole = 2 * own.shape.parameters
    for arm in arms:
        rounds = arm.study.federation.rounds
        exchanged = [_exchange(arm, own.shape, number) for number in range(1, rounds + 1)]
        most_down = max(down for down, _ in exchanged)
        most_up = max(up for _, up in exchanged)
        total = sum(down + up for down, up in exchanged)
        rows.append(
            (
                arm.label,
                _size(most_down),
                _size(most_up),
                f"{most_up / whole:.2%}",
                str(rounds),
                _size(total),
            )
        )
    return Table(
        title="Received and sent by one site: the largest round, and the whole run",
        headers=("method", "down", "up", "up / whole model, bf16", "rounds", "down + up, run"),
        rows=tuple(rows),
    )


def _exchange(arm: Arm, shape: Shape, number: int) -> tuple[int, int]:
    """Bytes down and up in a round, at most: FedEx-LoRA's residual has its largest rank."""
    study, method = arm.study, METHODS[arm.federated_method]
    wire, sites = study.federation.wire, len(study.site_names)
    values: dict[Part, int] = {
        "A": shape.of_a, "B": shape.adapter - shape.of_a, "AB": shape.adapter,
    }  # fmt: skip
    down = wire_bytes(values[method.sends], form_of(wire))
    up = wire_bytes(values[method.returns(number)], wire)
    if study.federation.secure_aggregation is not None:
        return down, ROW_BYTES * (values[method.returns(number)] + 1)  # and some kilobytes of keys
    if method.scored and study.federation.validation == "sites":
        down += sites * up  # every site scores the adapters of all
        if is_difference(wire):
            down += wire_bytes(values["AB"], form_of(wire))  # what they are differences to
    if arm.method == "fedex-lora":
        # Its rank grows by (sites - 1) r a round, up to the width of a layer.
        times = min((number - 1) * (sites - 1), shape.hidden / study.adapter.rank)
        down += round(times * wire_bytes(values["AB"], form_of(wire)))
    return down, up


def _memory_table(study: Study, own: Estimator) -> Table:
    rows = []
    for estimator, precision, batch, checkpointing in _settings(study, own):
        memory = estimator.training(
            batch=batch,
            tokens=study.training.max_tokens,
            checkpointing=checkpointing,
            objective=study.training.objective,
        )
        asked = study.training.gradient_checkpointing
        chosen = (precision, batch) == (study.backbone.precision, study.training.batch)
        chosen &= asked in ("auto", checkpointing)
        here = _HERE
        if asked == "auto":
            here += ", if the other does not fit" if checkpointing else ", if it fits"
        rows.append(
            (
                precision,
                str(batch),
                "on" if checkpointing else "off",
                here if chosen else "",
                _size(memory.total),
                _size(memory.weights),
                _size(memory.activations),
                _size(memory.loss),
                _size(_decoding(study, estimator, precision)),
            )
        )
    process = _size(PROCESS_BYTES)
    return Table(
        title=f"Peak memory: training, rows of {study.training.max_tokens} tokens; decoding, "
        f"{study.decoding.batch} such rows at once; the process itself takes {process} of main "
        "memory besides",
        headers=(
            "precision", "batch", "checkpointing", "", "training", "weights", "activations",
            "loss", "decoding",
        ),
        rows=tuple(rows),
        left=4,
    )  # fmt: skip


def _settings(study: Study, own: Estimator) -> Iterator[tuple[Estimator, Precision, int, bool]]:
    for precision in get_args(Precision):
        here = precision == study.backbone.precision
        estimator = own if here else _estimator(study, precision)
        for batch in sorted({1, study.training.batch}):
            for checkpointing in (True, False):
                yield estimator, precision, batch, checkpointing


def _decoding(study: Study, estimator: Estimator, precision: Precision) -> int:
    merged = precision == "fp32" and estimator.shape.parameters < MERGE_BELOW
    return estimator.decoding(
        batch=study.decoding.batch, tokens=study.training.max_tokens, merged=merged
    )


def _size(count: float) -> str:
    """Bytes as people write them, in powers of ten."""
    for unit, least in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= least:
            return f"{count / least:.3g} {unit}"
    return f"{count:.0f} B"
