"""Enforced decoding: prompts and sources in, answers out whose text is the source's own.

What an answer may be is ``enforcing``'s; this is the batch. The rest of a source is its answer's
draft: one forward pass checks several copied tokens of every row and stops where a tag beats the
copy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from fedmedlora.errors import BackboneError, ConfigError
from fedmedlora.model.beginnings import group_by_beginning
from fedmedlora.model.cache import RewindableCache, check_rewinding
from fedmedlora.model.copying import SourceTokens
from fedmedlora.model.encoding import prompt_ids
from fedmedlora.model.enforcing import EnforcedAnswer, Rules
from fedmedlora.model.projection import Projection
from fedmedlora.tasks.example import Example

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_GROUP = 1024  # tokens that a further group of prompts must save


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
        answers: dict[int, str] = {}
        with torch.inference_mode():
            for part in self._batches(prompts):
                made = self._decode_batch([examples[i] for i in part], [prompts[i] for i in part])
                answers |= zip(part, made, strict=True)
                if on_done is not None:
                    on_done(len(answers))
        return [answers[i] for i in range(len(examples))]

    def _batches(self, prompts: Sequence[list[int]]) -> Iterator[list[int]]:
        """Places of prompts that begin alike and are of similar lengths."""
        for group in group_by_beginning(prompts, worth=_GROUP):
            order = sorted(group.rows, key=lambda i: (len(prompts[i]), i))
            for at in range(0, len(order), self._batch):
                yield order[at : at + self._batch]

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
            sure = _sure_copies(logits, rows, columns, bias=self._rules.open_bias)
            cache.keep(
                [row.advance(logits[i], columns, sure=sure[i]) for i, row in enumerate(rows)]
            )
            done = [i for i, row in enumerate(rows) if row.done]
            if done:
                rows = [rows[i] for i in cache.leave_out(done)]
        return [answer.finish() for answer in answers]


def _sure_copies(
    logits: NDArray[np.float32],
    rows: Sequence[EnforcedAnswer],
    columns: Mapping[int, int],
    *,
    bias: float,
) -> list[int]:
    """How many tokens of each row's draft beat every other column in all that may be added to it.

    Most of an answer is a copy that nothing else comes near: this finds it for all rows at once.
    """
    count, width, _ = logits.shape
    own = np.zeros((count, width), dtype=np.int64)
    asked = np.zeros((count, width), dtype=bool)
    starts = []
    for i, row in enumerate(rows):
        start, tokens = row.drafted()
        # The logits that say what follows a token stand at its place.
        places = slice(start - 1, start - 1 + len(tokens))
        own[i, places] = [columns[token] for token in tokens]
        asked[i, places] = True
        starts.append(start - 1)
    values = np.take_along_axis(logits, own[:, :, None], axis=2)[:, :, 0]
    others = logits.copy()
    np.put_along_axis(others, own[:, :, None], -np.inf, axis=2)
    sure = asked & (values > others.max(axis=2) + max(bias, 0.0))
    return [
        int(np.argmin(np.append(sure[i, start:], False))) if start >= 0 else 0
        for i, start in enumerate(starts)
    ]
