"""One site's training: an adapted model and rows in, the adapter trained in place, losses out.

TRL's SFTTrainer does the work: by default AdamW, warm-up and a cosine schedule anew at every call
(arXiv 2601.22124, the authors' configurations). What it leaves behind on the model, and the random
state that it resets, are put back.
"""

from __future__ import annotations

import math
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from fedmedlora.errors import AdapterError, ConfigError, DataError
from fedmedlora.model.adapter import Part
from fedmedlora.model.encoding import Row
from fedmedlora.model.fused_lora import fused_lora
from fedmedlora.model.losses import Objective, answer_loss, batch_loss, mean_loss, pad_rows
from fedmedlora.model.optimiser_state import (
    OptimiserState,
    knows_all,
    optimiser_state,
    put_optimiser_state,
)
from fedmedlora.model.restoring import kept_as_it_was
from fedmedlora.model.trainable import check_finite, drift, only_factors, put_back, trainable

__all__ = [
    "Schedule",
    "TrainingOutcome",
    "TrainingSettings",
    "answer_loss",
    "length_order",
    "mean_loss",
    "rates_in_round",
    "train_adapter",
    "warmup_steps",
]

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase
    from trl import SFTConfig, SFTTrainer

#: How the learning rate falls: in every round, or over all of them.
Schedule = Literal["round", "run"]
#: (step, steps, loss of the step or None)
OnStep = Callable[[int, int, float | None], None]
_CHUNK = 32  # at most so many batches among which rows are sorted by length


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """How a site trains in one round.

    Attributes:
        epochs: passes over the site's rows; used when ``steps`` is None.
        steps: optimiser steps a round, whatever the number of rows.
        batch: rows a step.
        learning_rate: peak of the schedule; 2e-4 for real backbones, 2e-3 for the embedded one.
        warmup: share of the steps that warm up, in [0, 1).
        weight_decay: AdamW's.
        max_tokens: limit of a row.
        gradient_checkpointing: recompute activations in the backward pass; saves memory, costs
            about a third of the time.
        proximal: mu of FedProx (Li et al., arXiv 1812.06127): mu / 2 times the squared distance
            from the adapter that the round began with is added to the loss; 0 adds nothing.
        schedule: ``"round"``, the authors': in every round the rate falls from its peak to 0 along
            a cosine; ``"run"``: it falls once, linearly, over all rounds.
        rounds: of the run; for ``schedule="run"``.
        final_rate: where the rate of this call ends; ``in_round`` sets it.
        keep_optimiser: a site's AdamW goes on in the next round with what it remembers of the one
            before, and does not warm up again.
        objective: the loss: ``"answer"``, the usual one over all answer tokens, or
            ``"decisions"``, of what enforced decoding leaves open; see ``losses``.

    Raises:
        ConfigError: a value out of range.
    """

    epochs: float = 2.0
    steps: int | None = None
    batch: int = 4
    learning_rate: float = 2e-4
    warmup: float = 0.05
    weight_decay: float = 0.0
    max_tokens: int = 800
    gradient_checkpointing: bool = False
    objective: Objective = "answer"
    proximal: float = 0.0
    schedule: Schedule = "round"
    rounds: int = 1
    final_rate: float = 0.0
    keep_optimiser: bool = False

    def __post_init__(self) -> None:
        wrong = {
            "epochs": not self.epochs > 0,
            "steps": self.steps is not None and self.steps < 1,
            "batch": self.batch < 1,
            "learning_rate": not self.learning_rate > 0,
            "warmup": not 0 <= self.warmup < 1,
            "weight_decay": not self.weight_decay >= 0,
            "max_tokens": self.max_tokens < 2,
            "proximal": not self.proximal >= 0,
            "schedule": self.schedule not in get_args(Schedule),
            "rounds": self.rounds < 1,
            "final_rate": not 0 <= self.final_rate < self.learning_rate,
        }
        for name in (name for name, is_wrong in wrong.items() if is_wrong):
            raise ConfigError(f"training.{name}: {getattr(self, name)!r} is out of range")

    def in_round(self, round: int) -> TrainingSettings:
        """The settings of a round, from 1; rounds past the last are as the last."""
        if self.schedule == "round":
            return self
        first, last = rates_in_round(self.learning_rate, round, self.rounds)
        return replace(self, learning_rate=first, final_rate=last)


def rates_in_round(rate: float, round: int, rounds: int) -> tuple[float, float]:
    """Where the rate begins and ends in a round, from 1, if it falls linearly over all rounds."""
    at = min(round, rounds)
    return rate * (1 - (at - 1) / rounds), rate * (1 - at / rounds)


def warmup_steps(share: float, steps: int) -> int:
    """How many of ``steps`` warm up; never all, or the rate would have nowhere to fall."""
    return min(math.ceil(share * steps), steps - 1)


@dataclass(frozen=True, slots=True)
class TrainingOutcome:
    """What a call of ``train_adapter`` did.

    Attributes:
        steps: optimiser steps made.
        loss_first: mean loss of the first tenth of the steps, per target token.
        loss_last: mean loss of the last tenth.
        tokens: target tokens of all rows of the site (once, not per epoch).
        seconds: wall clock.
        optimiser: what AdamW remembers of the parameters that were trained.
    """

    steps: int
    loss_first: float
    loss_last: float
    tokens: int
    seconds: float
    optimiser: OptimiserState = field(default_factory=dict, repr=False, compare=False)


def train_adapter(
    model: PeftModel,
    rows: Sequence[Row],
    *,
    tokenizer: PreTrainedTokenizerBase,
    settings: TrainingSettings,
    seed: int,
    trains: Part = "AB",
    optimiser: OptimiserState | None = None,
    on_step: OnStep | None = None,
) -> TrainingOutcome:
    """Train the adapter of ``model`` on ``rows``, in place.

    Args:
        model: backbone with a trainable adapter.
        rows: at least one.
        tokenizer: of the backbone.
        settings: of this round.
        seed: order of the rows and dropout; equal seeds give equal bits on one machine.
        trains: the factors to train; the others are frozen until the end of the call.
        optimiser: what AdamW begins with; if it knows all that is trained, there is no warm-up.
        on_step: told after every step.

    Raises:
        DataError: there are no rows.
        AdapterError: the loss or the adapter became infinite or no number; the adapter is then
            what it was before; or ``optimiser`` is of another adapter.
    """
    if not rows:
        raise DataError("no example is left to train on")
    started = time.monotonic()
    losses: list[float] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        only_factors(model, trains),
        fused_lora(model),
        kept_as_it_was(model) as before,
    ):
        if optimiser and knows_all(model, optimiser):
            settings = replace(settings, warmup=0.0)
        trainer = _trainer(
            model,
            rows,
            tokenizer=tokenizer,
            config=_config(folder, settings, rows=len(rows), seed=seed),
            settings=settings,
        )
        _watch(trainer, losses, on_step)
        if optimiser:
            _begin_with(trainer, optimiser)
        # TRL rounds the adapter of a quantised backbone to bf16, in which small steps are lost.
        put_back(model, before)
        try:
            trainer.train()
            check_finite(model, len(losses))
            remembered = optimiser_state(model, trainer.optimizer)
        except AdapterError:
            put_back(model, before)
            raise
        finally:
            if settings.gradient_checkpointing:
                model.get_base_model().gradient_checkpointing_disable()
    edge = max(1, len(losses) // 10)
    return TrainingOutcome(
        steps=len(losses),
        loss_first=sum(losses[:edge]) / edge,
        loss_last=sum(losses[-edge:]) / edge,
        tokens=sum(row.targets for row in rows),
        seconds=time.monotonic() - started,
        optimiser=remembered,
    )


def _config(folder: str, settings: TrainingSettings, *, rows: int, seed: int) -> SFTConfig:
    from trl import SFTConfig

    steps = settings.steps or math.ceil(math.ceil(rows / settings.batch) * settings.epochs)
    config = SFTConfig(
        output_dir=folder,
        num_train_epochs=settings.epochs,
        max_steps=-1 if settings.steps is None else settings.steps,
        per_device_train_batch_size=settings.batch,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        **schedule_of(settings),
        warmup_steps=warmup_steps(settings.warmup, steps),
        gradient_checkpointing=settings.gradient_checkpointing,
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
        max_length=None,
        packing=False,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=seed,
        data_seed=seed,
        bf16=False,
        dataloader_pin_memory=False,
    )
    if config.n_gpu > 1:
        config._n_gpu = 1  # the backbone lies on one; TRL refuses to spread rows over several
    return config


def schedule_of(settings: TrainingSettings) -> dict[str, Any]:
    """How the rate falls, as transformers names it."""
    if settings.schedule == "round":
        return {"lr_scheduler_type": "cosine"}
    line = {"lr_end": settings.final_rate, "power": 1.0}
    return {"lr_scheduler_type": "polynomial", "lr_scheduler_kwargs": line}


def _trainer(
    model: PeftModel,
    rows: Sequence[Row],
    *,
    tokenizer: PreTrainedTokenizerBase,
    config: SFTConfig,
    settings: TrainingSettings,
) -> SFTTrainer:
    from datasets import Dataset
    from torch.utils.data import Sampler
    from transformers.trainer_callback import PrinterCallback, ProgressCallback
    from trl import SFTTrainer

    start = trainable(model) if settings.proximal else {}

    class AnswerLossTrainer(SFTTrainer):  # type: ignore[misc]
        """SFTTrainer whose loss computes the vocabulary only where an answer token is due."""

        def compute_loss(
            self,
            model: PeftModel,
            inputs: dict[str, torch.Tensor],
            return_outputs: bool = False,
            num_items_in_batch: torch.Tensor | int | None = None,
        ) -> torch.Tensor:
            total, count = batch_loss(model, inputs, settings.objective)
            loss = total / count
            return loss + settings.proximal / 2 * drift(model, start) if start else loss

        def _get_train_sampler(self, train_dataset: Dataset | None = None) -> LengthOrder:
            return LengthOrder()

        def floating_point_ops(self, inputs: dict[str, torch.Tensor]) -> int:
            return 0  # counting them walks the whole model at every step; nobody reads it

    class LengthOrder(Sampler[int]):
        """Rows in an order in which each batch holds rows of similar lengths, drawn anew."""

        def __init__(self) -> None:
            self._random = random.Random(config.seed)

        def __len__(self) -> int:
            return len(rows)

        def __iter__(self) -> Iterator[int]:
            lengths = [len(row.ids) for row in rows]
            batch = config.per_device_train_batch_size
            return iter(length_order(lengths, batch=batch, rng=self._random))

    trainer = AnswerLossTrainer(
        model=model,
        args=config,
        # The rows stay as they are; what the trainer draws from are their places.
        train_dataset=Dataset.from_dict({"row": range(len(rows))}),
        data_collator=lambda places: pad_rows([rows[place["row"]] for place in places]),
        processing_class=tokenizer,
    )
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    return trainer


def length_order(lengths: Sequence[int], *, batch: int, rng: random.Random) -> list[int]:
    """Every place once, such that cutting off ``batch`` at a time gives similar lengths.

    Batches come in random order, unlike those of transformers' ``group_by_length``: there each
    chunk goes from long rows to short ones, and a short round ends on the shortest of all.
    """
    places = list(range(len(lengths)))
    rng.shuffle(places)
    batches: list[list[int]] = []
    # Four chunks or more: of one alone, every epoch would have the same batches.
    size = batch * max(1, min(_CHUNK, len(places) // (4 * batch)))
    for start in range(0, len(places), size):
        chunk = sorted(places[start : start + size], key=lambda place: lengths[place])
        batches += [chunk[at : at + batch] for at in range(0, len(chunk), batch)]
    # A batch that is not full must be the last, or those behind it would be cut elsewhere.
    full = [part for part in batches if len(part) == batch]
    rest = [part for part in batches if len(part) < batch]
    rng.shuffle(full)
    return [place for part in (*full, *rest) for place in part]


def _watch(trainer: SFTTrainer, losses: list[float], on_step: OnStep | None) -> None:
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

    class Progress(TrainerCallback):  # type: ignore[misc]
        """Collects the loss of every step, tells who asked, stops when it is no number."""

        def on_log(
            self,
            args: TrainingArguments,
            state: TrainerState,
            control: TrainerControl,
            logs: dict[str, float] | None = None,
            **kwargs: object,
        ) -> None:
            loss = (logs or {}).get("loss")
            if loss is None:
                return
            losses.append(float(loss))
            if not math.isfinite(loss):
                raise AdapterError(
                    f"training diverged: the loss of step {state.global_step} of {state.max_steps} "
                    f"is {loss}; set a lower training.learning_rate (it is {args.learning_rate})"
                )
            if on_step is not None:
                on_step(state.global_step, state.max_steps, float(loss))

    trainer.add_callback(Progress())


def _begin_with(trainer: SFTTrainer, optimiser: OptimiserState) -> None:
    from transformers import TrainerCallback

    class Begin(TrainerCallback):  # type: ignore[misc]
        """Fills the optimiser once the trainer has made it."""

        def on_train_begin(self, *arguments: object, **kwargs: object) -> None:
            put_optimiser_state(trainer.model, trainer.optimizer, optimiser)

    trainer.add_callback(Begin())
