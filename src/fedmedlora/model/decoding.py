"""Enforced decoding: prompts and sources in, answers out whose text is the source's own.

At every place the model may only copy on, open one of the allowed tags, or close the last one; of
these it takes the most probable (greedy). The rest of the source is the draft: one forward pass
checks several copied tokens of every row of a batch and stops where a tag beats the copy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fedmedlora.errors import ConfigError
from fedmedlora.model.cache import RewindableCache
from fedmedlora.model.copying import Draft, SourceTokens, TagNode
from fedmedlora.model.encoding import prompt_ids
from fedmedlora.tasks.example import CLOSING, Example


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


@dataclass(slots=True)
class _Answer:
    """The state of one row: where it is in the source and in a tag, and what to feed next."""

    index: int
    source: str
    tags: TagNode
    draft: Draft
    pending: list[int]
    at: int = 0  # index into the draft
    position: int = 0  # character of the source up to which text is written
    depth: int = 0
    fresh: bool = False  # a tag was opened and nothing was copied into it yet
    node: TagNode | None = None  # the tag begun, where its next token is to be chosen
    text: list[str] = field(default_factory=list)

    @property
    def done(self) -> bool:
        return self.node is None and self.at >= len(self.draft.ids)

    def copy_to(self, end: int) -> None:
        self.text.append(self.source[self.position : end])
        self.position = end
        self.fresh = False

    def skip_space(self) -> None:
        """Write the white space that stands before the next word."""
        end = self.position
        while end < len(self.source) and self.source[end].isspace():
            end += 1
        self.text.append(self.source[self.position : end])
        self.position = end

    def finish(self) -> str:
        """The answer: what is open is closed, and the source's white space at the end kept."""
        return "".join(self.text) + CLOSING * self.depth + self.source[self.position :]


class EnforcedDecoder:
    """Decodes with one model and tokenizer.

    Args:
        model: causal language model of transformers, adapted or plain, in evaluation mode.
        tokenizer: its tokenizer; a fast one.
        settings: see ``DecodingSettings``.
    """

    def __init__(self, model: Any, tokenizer: Any, settings: DecodingSettings) -> None:
        self._model, self._tokenizer, self._settings = model, tokenizer, settings
        self._tokens = SourceTokens(tokenizer)

    def decode(
        self, examples: Sequence[Example], *, on_done: Callable[[int], None] | None = None
    ) -> list[str]:
        """One answer for each example, in order; without its tags each equals its source.

        Args:
            examples: their prompts, sources and openings are used, never their gold answers.
            on_done: told the number of examples decoded so far.
        """
        prompts = prompt_ids(examples, self._tokenizer)
        order = sorted(range(len(examples)), key=lambda i: (len(prompts[i]), i))
        answers = [""] * len(examples)
        done = 0
        with torch.inference_mode():
            for at in range(0, len(order), self._settings.batch):
                part = order[at : at + self._settings.batch]
                for row in self._decode_batch(examples, prompts, part):
                    answers[row.index] = row.finish()
                done += len(part)
                if on_done is not None:
                    on_done(done)
        return answers

    def _decode_batch(
        self, examples: Sequence[Example], prompts: Sequence[list[int]], part: Sequence[int]
    ) -> list[_Answer]:
        started = [
            _Answer(
                i,
                examples[i].source,
                self._tokens.trie(examples[i].openings),
                self._tokens.draft(examples[i].source, 0),
                pending=prompts[i][-1:],
            )
            for i in part
        ]
        rows = [row for row in started if not row.done]
        if not rows:
            return started
        pad = self._tokenizer.pad_token_id
        cache = RewindableCache(self._model, [prompts[row.index] for row in rows], pad=pad)
        while rows:
            logits = cache.extend([self._feed(row) for row in rows])
            cache.keep([self._advance(row, logits[i]) for i, row in enumerate(rows)])
            still = [i for i, row in enumerate(rows) if not row.done]
            rows = [rows[i] for i in still]
            if rows:
                cache.select(still)
        return started

    def _feed(self, row: _Answer) -> list[int]:
        """What must be fed, then as much of the draft as is to be checked."""
        if row.node is not None:
            return row.pending
        return [*row.pending, *row.draft.ids[row.at : row.at + self._settings.draft - 1]]

    def _advance(self, row: _Answer, logits: NDArray[np.float32]) -> int:
        """Do what the logits say; returns how many of the fed tokens stay in the cache."""
        fed = len(row.pending)
        if row.node is not None:
            children = row.node.children
            best = max(children, key=lambda token: float(logits[fed - 1, token]))
            row.pending = []
            self._follow(row, best, children[best])
            return fed
        for accepted in range(self._settings.draft):
            if not self._copies(row, logits[fed - 1 + accepted]):
                return fed + accepted
            last = row.draft.ids[row.at]
            row.copy_to(row.draft.ends[row.at])
            row.at += 1
            if row.done:
                break
        # The last token accepted was the last one fed, or is fed now: its logits are still due.
        row.pending = [last]
        return fed + accepted

    def _copies(self, row: _Answer, logits: NDArray[np.float32]) -> bool:
        """Whether the draft's next token wins; if not, what wins is entered into the row."""
        copy = row.draft.ids[row.at]
        best, score, ends = copy, float(logits[copy]), row.draft.ends[row.at]
        shorter = self._tokens.shorter(row.source, row.position, ends)
        for token, end in shorter.items():
            if float(logits[token]) > score:
                best, score, ends = token, float(logits[token]), end
        chosen: TagNode | None = None
        if row.draft.clean[row.at] and not row.fresh:
            may_open = row.depth < self._settings.depth
            for token, child in row.tags.children.items():
                value = float(logits[token]) + self._settings.open_bias * child.opens
                allowed = (child.opens and may_open) or (child.closes and row.depth > 0)
                if allowed and value > score:
                    best, score, chosen = token, value, child
        if chosen is not None:
            row.pending = []
            self._follow(row, best, chosen)
        elif best != copy:
            row.copy_to(ends)
            row.draft, row.at = self._tokens.draft(row.source, row.position), 0
            row.pending = [best]
        return chosen is None and best == copy

    def _follow(self, row: _Answer, token: int, node: TagNode) -> None:
        """Enter a tag by ``token``; go on while only one way leads on."""
        row.pending.append(token)
        while node.tag is None:
            ways = {
                t: child
                for t, child in node.children.items()
                if (child.opens and row.depth < self._settings.depth)
                or (child.closes and row.depth > 0)
            }
            if len(ways) > 1:
                row.node = TagNode(ways)
                return
            [(token, node)] = ways.items()
            row.pending.append(token)
        row.node = None
        if node.tag == CLOSING:
            row.text.append(CLOSING)
            row.depth -= 1
        else:
            row.skip_space()
            row.text.append(node.tag)
            row.depth += 1
            row.fresh = True
        row.draft, row.at = self._tokens.draft(row.source, row.position), 0
