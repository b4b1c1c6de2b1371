"""A batched key-value cache that can take tokens back: rows of unequal length, one model.

Tokens are only ever appended; what a row does not keep is hidden by the attention mask, and the
cache is rewritten without the hidden slots when they have become many. Positions are given
explicitly, so that hidden slots do not count.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

_COMPACT_AFTER = 160  # hidden slots in the fullest row before the cache is rewritten


class RewindableCache:
    """The cache of one batch.

    Args:
        model: causal language model of transformers.
        prompts: token ids; all but the last of each are computed now.
        pad: a token id for places that are masked.
    """

    def __init__(self, model: Any, prompts: Sequence[Sequence[int]], *, pad: int) -> None:
        from transformers import DynamicCache

        self._model, self._pad = model, pad
        self._device = next(model.parameters()).device
        self._cache = DynamicCache()
        self._mask = torch.zeros(len(prompts), 0, dtype=torch.long)
        heads = [list(prompt[:-1]) for prompt in prompts]
        self._before = 0
        self.lengths = [0] * len(prompts)
        if any(heads):
            self._forward(heads, logits_to_keep=1)
            self.keep([len(head) for head in heads])

    def _forward(self, feeds: Sequence[Sequence[int]], **options: Any) -> Any:
        width = max(len(feed) for feed in feeds)
        ids = torch.full((len(feeds), width), self._pad)
        new = torch.zeros(len(feeds), width, dtype=torch.long)
        for row, feed in enumerate(feeds):
            ids[row, : len(feed)] = torch.tensor(feed)
            new[row, : len(feed)] = 1
        positions = torch.tensor(self.lengths)[:, None] + torch.arange(width)[None]
        self._before = self._mask.shape[1]
        self._mask = torch.cat([self._mask, new], dim=1)
        return self._model(
            input_ids=ids.to(self._device),
            attention_mask=self._mask.to(self._device),
            position_ids=positions.to(self._device),
            past_key_values=self._cache,
            use_cache=True,
            **options,
        ).logits

    def extend(self, feeds: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Feed each row some tokens; returns logits (rows, longest feed, vocabulary).

        ``keep`` must follow, to say how many of them stay.
        """
        logits: NDArray[np.float32] = self._forward(feeds).float().cpu().numpy()
        return logits

    def keep(self, counts: Sequence[int]) -> None:
        """Of what was fed last, the first ``counts[row]`` tokens of each row stay."""
        width = self._mask.shape[1] - self._before
        kept = torch.tensor(list(counts))
        self._mask[:, self._before :] = (torch.arange(width)[None] < kept[:, None]).long()
        self.lengths = [length + count for length, count in zip(self.lengths, counts, strict=True)]

    def select(self, rows: Sequence[int]) -> None:
        """Go on with these rows alone, in this order; hidden slots go if they are many."""
        index = torch.tensor(list(rows))
        self._mask = self._mask[index]
        self.lengths = [self.lengths[row] for row in rows]
        if self._mask.shape[1] - max(self.lengths) < _COMPACT_AFTER:
            self._cache.batch_select_indices(index.to(self._device))
            return
        # Slots that count come first, in order; what is behind a row's length stays masked.
        longest = max(self.lengths)
        slots = torch.argsort(1 - self._mask, dim=1, stable=True)[:, :longest]
        self._mask = torch.gather(self._mask, 1, slots)
        slots = slots.to(self._device)
        for layer in self._cache.layers:
            for name in ("keys", "values"):
                states = getattr(layer, name)[index.to(self._device)]
                wide = slots[:, None, :, None].expand(-1, states.shape[1], -1, states.shape[3])
                setattr(layer, name, torch.gather(states, 2, wide))
