"""One site's training: an adapted model and rows in, the adapter trained in place, losses out.

TRL's SFTTrainer does the work: AdamW, cosine schedule with warm-up restarted at every call, no
optimiser state kept between calls (arXiv 2601.22124, the authors' configurations).
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fedmedlora.errors import DataError
from fedmedlora.model.encoding import Row

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase

#: (step, steps, loss of the step or None)
OnStep = Callable[[int, int, float | None], None]
_IGNORED = -100


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
    """

    epochs: float = 2.0
    steps: int | None = None
    batch: int = 4
    learning_rate: float = 2e-4
    warmup: float = 0.05
    weight_decay: float = 0.0
    max_tokens: int = 800
    gradient_checkpointing: bool = False


@dataclass(frozen=True, slots=True)
class TrainingOutcome:
    """What a call of ``train_adapter`` did.

    Attributes:
        steps: optimiser steps made.
        loss_first: mean loss of the first tenth of the steps, per target token.
        loss_last: mean loss of the last tenth.
        tokens: target tokens of all rows of the site (once, not per epoch).
        seconds: wall clock.
    """

    steps: int
    loss_first: float
    loss_last: float
    tokens: int
    seconds: float


def _dataset(rows: Sequence[Row]) -> Any:
    from datasets import Dataset

    return Dataset.from_dict(
        {
            "input_ids": [list(row.ids) for row in rows],
            "labels": [[_IGNORED] * row.answer + list(row.ids[row.answer :]) for row in rows],
        }
    )


def _progress(on_step: OnStep | None, losses: list[float]) -> Any:
    from transformers import TrainerCallback

    class Progress(TrainerCallback):  # type: ignore[misc]
        """Collects the loss of every step and tells who asked."""

        def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            loss = (kwargs.get("logs") or {}).get("loss")
            if loss is not None:
                losses.append(float(loss))
                if on_step is not None:
                    on_step(state.global_step, state.max_steps, float(loss))

    return Progress()


def _trainer_class() -> Any:
    from trl import SFTTrainer

    class AnswerLossTrainer(SFTTrainer):  # type: ignore[misc]
        """SFTTrainer whose loss computes the vocabulary only where an answer token is due."""

        def compute_loss(
            self,
            model: Any,
            inputs: dict[str, Any],
            return_outputs: bool = False,
            num_items_in_batch: Any = None,
        ) -> Any:
            total, count = answer_loss(model, inputs["input_ids"], inputs["labels"])
            divisor = count if num_items_in_batch is None else num_items_in_batch
            return total / divisor

    return AnswerLossTrainer


def answer_loss(
    model: Any, input_ids: torch.Tensor, labels: torch.Tensor
) -> tuple[torch.Tensor, int]:
    """Summed cross-entropy over the labelled tokens, and how many there are.

    The vocabulary projection is computed at labelled positions alone: the same loss at a third of
    the cost when answers are a part of the row. Rows are padded on the right, so the causal mask
    alone keeps padding out of every labelled position.

    Args:
        model: causal language model, adapted or plain.
        input_ids: (rows, tokens).
        labels: (rows, tokens), -100 where there is no loss.
    """
    from torch.nn import functional

    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    inner = base.get_decoder() if hasattr(base, "get_decoder") else base.model
    hidden = inner(input_ids=input_ids, use_cache=False).last_hidden_state
    wanted = labels[:, 1:] != _IGNORED
    logits = base.get_output_embeddings()(hidden[:, :-1][wanted])
    targets = labels[:, 1:][wanted]
    return functional.cross_entropy(logits.float(), targets, reduction="sum"), int(targets.numel())


def train_adapter(
    model: PeftModel,
    rows: Sequence[Row],
    *,
    tokenizer: PreTrainedTokenizerBase,
    settings: TrainingSettings,
    seed: int,
    on_step: OnStep | None = None,
) -> TrainingOutcome:
    """Train the adapter of ``model`` on ``rows``, in place.

    Args:
        model: backbone with a trainable adapter.
        rows: at least one.
        tokenizer: for padding.
        settings: of this round.
        seed: order of the rows and dropout.
        on_step: told after every step.

    Raises:
        DataError: there are no rows.
    """
    from transformers.trainer_callback import PrinterCallback, ProgressCallback
    from trl import SFTConfig

    if not rows:
        raise DataError("no example is left to train on")
    started = time.monotonic()
    losses: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        config = SFTConfig(
            output_dir=folder,
            num_train_epochs=settings.epochs,
            max_steps=-1 if settings.steps is None else settings.steps,
            per_device_train_batch_size=settings.batch,
            learning_rate=settings.learning_rate,
            weight_decay=settings.weight_decay,
            lr_scheduler_type="cosine",
            warmup_steps=settings.warmup,
            train_sampling_strategy="group_by_length",
            gradient_checkpointing=settings.gradient_checkpointing,
            dataset_kwargs={"skip_prepare_dataset": True},
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
        trainer = _trainer_class()(
            model=model,
            args=config,
            train_dataset=_dataset(rows),
            processing_class=tokenizer,
            callbacks=[_progress(on_step, losses)],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.remove_callback(ProgressCallback)
        trainer.train()
    model.eval()
    edge = max(1, len(losses) // 10)
    return TrainingOutcome(
        steps=len(losses),
        loss_first=sum(losses[:edge]) / edge,
        loss_last=sum(losses[-edge:]) / edge,
        tokens=sum(row.targets for row in rows),
        seconds=time.monotonic() - started,
    )


def mean_loss(model: Any, rows: Sequence[Row], *, batch: int = 16) -> tuple[float, int]:
    """Mean cross-entropy per target token over ``rows``, and the number of target tokens.

    Raises:
        DataError: there are no rows.
    """
    import torch

    if not rows:
        raise DataError("no example is left to compute a validation loss on")
    ordered = sorted(rows, key=lambda row: len(row.ids))
    total, count = 0.0, 0
    device = next(model.parameters()).device
    with torch.no_grad():
        for at in range(0, len(ordered), batch):
            part = ordered[at : at + batch]
            width = max(len(row.ids) for row in part)
            ids = torch.zeros(len(part), width, dtype=torch.long)
            labels = torch.full((len(part), width), _IGNORED)
            for i, row in enumerate(part):
                ids[i, : len(row.ids)] = torch.tensor(row.ids)
                labels[i, row.answer : len(row.ids)] = torch.tensor(row.ids[row.answer :])
            loss, tokens = answer_loss(model, ids.to(device), labels.to(device))
            total += float(loss.double())
            count += tokens
    return total / count, count
