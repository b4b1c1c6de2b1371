"""Enforced decoding: prompts and sources in, answers out whose text is the source's own.

What an answer may be is ``enforcing``'s; this is the batch. The rest of a source is its answer's
draft: one forward pass checks several copied tokens of every row and stops where a tag beats the
copy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from fedmedlora.errors import BackboneError, ConfigError
from fedmedlora.model.cache import RewindableCache, check_rewinding
from fedmedlora.model.copying import SourceTokens
from fedmedlora.model.encoding import prompt_ids
from fedmedlora.model.enforcing import EnforcedAnswer, Rules
from fedmedlora.model.projection import Projection
from fedmedlora.tasks.example import Example

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_REST = 0.9  # answers that are done leave their batch when no more than this share goes on


@dataclass(frozen=True, slots=True)
class DecodingSettings:
    """How answers are decoded.

    Attributes:
        batch: rows decoded together.
        draft: copied tokens checked in one forward pass.
        depth: how deep tags may nest; 1 is flat.
        open_bias: added to the logit of beginning a tag; above 0 marks more. Chosen on validation
            notes, if at all.

    Raises:
        ConfigError: a count below 1.
    """

    batch: int = 64
    draft: int = 8
    depth: int = 1
    open_bias: float = 0.0

    def __post_init__(self) -> None:
        for name in ("batch", "draft", "depth"):
            if getattr(self, name) < 1:
                raise ConfigError(f"decoding.{name}: {getattr(self, name)} must be at least 1")


class EnforcedDecoder:
    """Decodes with one model and tokenizer.

    Args:
        model: causal language model of transformers, adapted or plain, in evaluation mode.
        tokenizer: its tokenizer; a fast one.
        settings: see ``DecodingSettings``.

    Raises:
        BackboneError: the tokenizer is not a fast one, or the model's cache is not one that tokens
            can be taken back from.
    """

    def __init__(
        self,
        model: PreTrainedModel | PeftModel,
        tokenizer: PreTrainedTokenizerBase,
        settings: DecodingSettings,
    ) -> None:
        self._tokenizer, self._batch = tokenizer, settings.batch
        self._projection = Projection(model)
        check_rewinding(self._projection)
        self._rules = Rules(
            tokens=SourceTokens(tokenizer),
            draft=settings.draft,
            depth=settings.depth,
            open_bias=settings.open_bias,
            end=tokenizer.eos_token_id,
        )

    def decode(
        self, examples: Sequence[Example], *, on_done: Callable[[int], None] | None = None
    ) -> list[str]:
        """One answer for each example, in order; without its tags each equals its source.

        Args:
            examples: their prompts, sources and openings are used, never their gold answers.
            on_done: told the number of examples decoded so far.

        Raises:
            BackboneError: an answer needs more positions than the backbone has, or the logits are
                no numbers.
        """
        prompts = prompt_ids(examples, self._tokenizer)
        order = sorted(range(len(examples)), key=lambda i: (len(prompts[i]), i))
        answers = [""] * len(examples)
        with torch.inference_mode():
            for at in range(0, len(order), self._batch):
                part = order[at : at + self._batch]
                made = self._decode_batch([examples[i] for i in part], [prompts[i] for i in part])
                for i, answer in zip(part, made, strict=True):
                    answers[i] = answer
                if on_done is not None:
                    on_done(at + len(part))
        return answers

    def _decode_batch(self, examples: Sequence[Example], prompts: Sequence[list[int]]) -> list[str]:
        answers = [
            EnforcedAnswer(example.source, example.openings, prompt, self._rules)
            for example, prompt in zip(examples, prompts, strict=True)
        ]
        started = [i for i, answer in enumerate(answers) if not answer.done]
        rows = [answers[i] for i in started]
        if rows:
            pad = self._tokenizer.pad_token_id
            cache = RewindableCache(self._projection, [prompts[i] for i in started], pad=pad)
        while rows:
            states = cache.extend([row.feed() for row in rows])
            tokens = sorted({token for row in rows for token in row.wanted()})
            columns = {token: column for column, token in enumerate(tokens)}
            chosen = torch.tensor(tokens, device=states.device)
            logits = self._projection.logits(states, chosen).cpu().numpy()
            if np.isnan(logits).any():
                raise BackboneError(
                    "the model's logits are no numbers: its weights or its adapter are broken, or "
                    "the precision is too low for it"
                )
            cache.keep([row.advance(logits[i], columns) for i, row in enumerate(rows)])
            still = [i for i, row in enumerate(rows) if not row.done]
            # To leave rows out is to copy all others: not for a few.
            if still and len(still) <= _REST * len(rows):
                cache.select(still)
            if len(still) <= _REST * len(rows):
                rows = [rows[i] for i in still]
        return [answer.finish() for answer in answers]
