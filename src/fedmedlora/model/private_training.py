"""One site's training that bounds what any unit can change: DP-SGD on the LoRA factors.

A unit is what the guarantee counts as one: an example, a note, a patient. In every step each unit
is drawn by itself with probability batch / units; the gradients of its rows are averaged and
clipped *as one*; the clipped sum gets Gaussian noise and is divided by the batch that was expected,
never by what was drawn (Abadi et al., arXiv 1607.00133). What an optimiser then does with it costs
nothing more.

Nobody outside may know what was drawn, nor the noise: both come from the operating system's
randomness and never from a study's seed.
"""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from fedmedlora.errors import AdapterError, ConfigError, DataError
from fedmedlora.model.adapter import Part
from fedmedlora.model.clipping import ClippedSum, pieces
from fedmedlora.model.encoding import Row
from fedmedlora.model.losses import pad_rows
from fedmedlora.model.optimiser_state import (
    OptimiserState,
    knows_all,
    optimiser_state,
    put_optimiser_state,
)
from fedmedlora.model.restoring import kept_as_it_was
from fedmedlora.model.row_gradients import RowDifferentiator, row_gradients
from fedmedlora.model.trainable import (
    check_finite,
    only_factors,
    put_back,
    refuse_dropout,
    trainable,
)
from fedmedlora.model.training import (
    OnStep,
    TrainingOutcome,
    TrainingSettings,
    schedule_of,
    warmup_steps,
)

if TYPE_CHECKING:
    from peft import PeftModel


@dataclass(frozen=True, slots=True)
class NoiseSettings:
    """What bounds a unit's part in a step.

    Attributes:
        noise: standard deviation of the noise on the sum, in clipping norms; > 0.
        max_grad_norm: to which a unit's gradient over all factors is clipped; > 0.
        batch: units expected in a step.
        unit_rows: at most so many rows of a unit are looked at in a step, drawn anew each time.

    Raises:
        ConfigError: a value out of range.
    """

    noise: float
    max_grad_norm: float
    batch: int
    unit_rows: int

    def __post_init__(self) -> None:
        for name in ("noise", "max_grad_norm", "batch", "unit_rows"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(f"privacy.{name}: {value!r} is out of range")


class Randomness:
    """What is drawn, and the noise: one stream that nobody can find by trying.

    Philox (Salmon et al. 2011) with a key of 128 bits. PyTorch's own generators are made of 32
    (CPU) or 64 bits: who sees the adapters could try every seed and take the noise off.

    Args:
        key: for tests; without, the operating system draws it and nobody knows it.
    """

    def __init__(self, *, key: int | None = None) -> None:
        drawn = secrets.randbits(128) if key is None else key
        self._numbers = np.random.Generator(np.random.Philox(key=drawn))

    def draw(self, units: int, rate: float) -> list[int]:
        """Places of the units of a step: each by itself with probability ``rate``."""
        return np.flatnonzero(self._numbers.random(units) < rate).tolist()

    def some(self, rows: Sequence[int], most: int) -> list[int]:
        """At most so many of a unit's rows."""
        if len(rows) <= most:
            return list(rows)
        return [rows[place] for place in self._numbers.choice(len(rows), most, replace=False)]

    def noise(self, like: torch.Tensor, deviation: float) -> torch.Tensor:
        """Gaussian noise of a tensor's shape: float32, rounded from float64."""
        drawn = torch.from_numpy(self._numbers.standard_normal(tuple(like.shape)))
        return drawn.mul_(deviation).to(like.device, torch.float32)


def private_steps(settings: TrainingSettings, *, units: int, batch: int) -> int:
    """Steps of a round; an epoch is as many as draw each unit once on average."""
    return settings.steps or math.ceil(units / batch * settings.epochs)


def train_privately(
    model: PeftModel,
    rows: Sequence[Row],
    *,
    units: Sequence[int],
    noise: NoiseSettings,
    settings: TrainingSettings,
    seed: int,
    trains: Part = "AB",
    optimiser: OptimiserState | None = None,
    on_step: OnStep | None = None,
    randomness: Randomness | None = None,
) -> TrainingOutcome:
    """Train the adapter of ``model`` on ``rows`` with DP-SGD, in place.

    Of ``settings``, ``batch`` is how many rows pass the model at once: it changes speed and memory
    alone.

    Args:
        model: backbone with a trainable adapter.
        rows: at least one.
        units: of each row, its unit: 0 to n - 1.
        noise: of this round.
        settings: of this round.
        seed: of PyTorch, as in a plain training; neither draws nor noise come from it.
        trains: the factors to train; the others are frozen until the end of the call.
        optimiser: what AdamW begins with; if it knows all that is trained, there is no warm-up.
        on_step: told after every step; its loss has no noise and must not leave the site.
        randomness: for tests.

    Raises:
        DataError: there are no rows.
        ConfigError: the batch is larger than the site, or the model has dropout.
        AdapterError: the adapter became infinite or no number and is what it was before; or the
            model mixes rows; or ``optimiser`` is of another adapter.
    """
    if not rows:
        raise DataError("no example is left to train on")
    places = _rows_of_units(units, rows)
    if noise.batch > len(places):
        raise ConfigError(
            f"privacy.batch: {noise.batch} units are expected in a step, and there are "
            f"{len(places)}; set a smaller batch"
        )
    refuse_dropout(model)
    started = time.monotonic()
    steps = private_steps(settings, units=len(places), batch=noise.batch)
    losses: list[float] = []
    with only_factors(model, trains), kept_as_it_was(model) as before:
        torch.manual_seed(seed)
        if optimiser and knows_all(model, optimiser):
            settings = replace(settings, warmup=0.0)
        randomness = randomness or Randomness()
        stepper = _Stepper(model, noise, settings, steps, randomness)
        put_optimiser_state(model, stepper.optimiser, optimiser or {})
        model.train()
        try:
            with _checkpointed(model, settings), row_gradients(model) as differentiate:
                for number in range(1, steps + 1):
                    drawn = randomness.draw(len(places), noise.batch / len(places))
                    chosen = [randomness.some(places[unit], noise.unit_rows) for unit in drawn]
                    clipped, loss = _clipped_sum(
                        rows, chosen, differentiate, noise=noise, settings=settings
                    )
                    stepper.step(clipped)
                    losses += [] if loss is None else [loss]
                    if on_step is not None:
                        on_step(number, steps, loss)
            check_finite(model, steps)
            remembered = optimiser_state(model, stepper.optimiser)
        except AdapterError:
            put_back(model, before)
            raise
    edge = max(1, len(losses) // 10)
    return TrainingOutcome(
        steps=steps,
        loss_first=sum(losses[:edge]) / edge if losses else math.nan,
        loss_last=sum(losses[-edge:]) / edge if losses else math.nan,
        tokens=sum(row.targets for row in rows),
        seconds=time.monotonic() - started,
        optimiser=remembered,
    )


def _rows_of_units(units: Sequence[int], rows: Sequence[Row]) -> list[list[int]]:
    """Unit -> places of its rows."""
    found: list[list[int]] = [[] for _ in range(max(units) + 1)]
    for place, unit in enumerate(units):
        found[unit].append(place)
    if len(units) != len(rows) or not all(found):
        raise DataError("every row needs a unit, and every unit a row")
    return found


def _clipped_sum(
    rows: Sequence[Row],
    chosen: Sequence[Sequence[int]],
    differentiate: RowDifferentiator,
    *,
    noise: NoiseSettings,
    settings: TrainingSettings,
) -> tuple[dict[str, torch.Tensor], float | None]:
    """The sum of the clipped gradients of units, and their mean loss a token.

    Args:
        rows: of the site.
        chosen: places of the rows of each unit that was drawn.
        differentiate: open.
        noise, settings: of the round.
    """
    total = ClippedSum(noise.max_grad_norm)
    loss, tokens = 0.0, 0
    # Rows of one length together; the sum does not depend on the order.
    ordered = sorted(chosen, key=lambda unit: max(len(rows[place].ids) for place in unit))
    for piece in pieces(ordered, most=settings.batch):
        part = [rows[place] for place in piece.rows]
        gradients = differentiate(pad_rows(part), settings.objective)
        weights = [1 / (row.targets * size) for row, size in zip(part, piece.sizes, strict=True)]
        total.add(gradients, weights=weights, piece=piece)
        loss += gradients.loss
        tokens += gradients.tokens
    return total.by_name, loss / tokens if tokens else None


class _Stepper:
    """AdamW over noisy gradients, with the learning rate of the plain training.

    Args:
        model: whose trainable parameters it steps.
        noise, settings: of the round.
        steps: of the round.
        randomness: of the noise.
    """

    def __init__(
        self,
        model: PeftModel,
        noise: NoiseSettings,
        settings: TrainingSettings,
        steps: int,
        randomness: Randomness,
    ) -> None:
        from transformers import get_scheduler

        self._noise, self._randomness = noise, randomness
        self._trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self._proximal = settings.proximal
        self._start = trainable(model) if settings.proximal else {}
        self.optimiser = torch.optim.AdamW(
            self._trained.values(),
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            fused=True,
        )
        schedule = schedule_of(settings)
        self._schedule = get_scheduler(
            schedule["lr_scheduler_type"],
            self.optimiser,
            num_warmup_steps=warmup_steps(settings.warmup, steps),
            num_training_steps=steps,
            scheduler_specific_kwargs=schedule.get("lr_scheduler_kwargs"),
        )

    def step(self, clipped: Mapping[str, torch.Tensor]) -> None:
        """Add the noise and make a step; nothing clipped is a step of noise alone."""
        deviation = self._noise.noise * self._noise.max_grad_norm
        for name, parameter in self._trained.items():
            gradient = self._randomness.noise(parameter, deviation)
            if name in clipped:
                gradient += clipped[name].view_as(parameter)
            gradient /= self._noise.batch
            if self._start:  # known to all: it needs no noise
                gradient += self._proximal * (parameter.detach() - self._start[name])
            parameter.grad = gradient.to(parameter.dtype)
        self.optimiser.step()
        self._schedule.step()
        self.optimiser.zero_grad()


@contextmanager
def _checkpointed(model: PeftModel, settings: TrainingSettings) -> Iterator[None]:
    if not settings.gradient_checkpointing:
        yield
        return
    base = model.get_base_model()
    model.enable_input_require_grads()
    # Reentrant: the layers' hooks then see each row once, when it is computed again.
    base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": True})
    try:
        yield
    finally:
        base.gradient_checkpointing_disable()
