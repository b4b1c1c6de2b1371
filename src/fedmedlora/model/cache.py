"""A batched key-value cache that can take tokens back: rows of unequal length, one model.

Every row writes its keys and values where its own text ends, so what it takes back is simply
written over, and nothing is ever moved. What a token may attend to is given as a mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from weakref import WeakSet

import torch
from transformers.cache_utils import Cache, DynamicLayer

from fedmedlora.errors import BackboneError
from fedmedlora.model.beginnings import shared_beginning
from fedmedlora.model.projection import Projection

_ROOM = 96  # slots by which the cache grows at least
_checked: WeakSet[torch.nn.Module] = WeakSet()


@dataclass(slots=True)
class _Place:
    """Where the tokens fed last are written: rows (rows, 1), slots (rows, fed); slots in use."""

    rows: torch.Tensor = field(default_factory=lambda: torch.zeros(1, 1, dtype=torch.long))
    slots: torch.Tensor = field(default_factory=lambda: torch.zeros(1, 1, dtype=torch.long))
    length: int = 0


class _Slots(DynamicLayer):  # type: ignore[misc]
    """One layer's keys and values, (rows, slots, heads, size); written where ``place`` says."""

    def __init__(self, place: _Place) -> None:
        super().__init__()
        self._place = place

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        rows, slots, length = self._place.rows, self._place.slots, self._place.length
        shown = []
        for name, new in (("keys", key_states), ("values", value_states)):
            held = getattr(self, name)
            size = 0 if held is None else held.shape[1]
            if held is None or size < length:
                shape = (new.shape[0], length + max(_ROOM, size // 2), *new.shape[1::2])
                # Zeros, not whatever is there: a masked NaN is still a NaN.
                grown = new.new_zeros(shape)
                if held is not None:
                    grown[:, :size] = held
                setattr(self, name, held := grown)
            held[rows, slots] = new.transpose(1, 2)
            shown.append(held[:, :length].transpose(1, 2))
        self.is_initialized = True
        return shown[0], shown[1]

    def get_seq_length(self) -> int:
        return 0 if self.keys is None else int(self.keys.shape[1])


class RewindableCache:
    """The cache of one batch.

    Args:
        projection: of the model.
        prompts: token ids; all but the last of each are computed now.
        pad: a token id for places that do not count.

    Raises:
        BackboneError: a row needs more positions than the model has.
    """

    def __init__(
        self, projection: Projection, prompts: Sequence[Sequence[int]], *, pad: int
    ) -> None:
        self._projection, self._pad = projection, pad
        self._config = projection.base.config.get_text_config()
        self._device = next(projection.base.parameters()).device
        self._place = _Place()
        self._cache = Cache(layer_class_to_replicate=lambda: _Slots(self._place))
        self.lengths = [0]
        heads = [list(prompt[:-1]) for prompt in prompts]
        shared = shared_beginning(heads)
        if shared:
            self._forward([heads[0][:shared]])
            self.lengths = [shared]
            self._repeat(len(heads))
        else:
            self.lengths = [0] * len(heads)
        rest = [head[shared:] for head in heads]
        if any(rest):
            self._forward(rest)
            self.keep([len(head) for head in rest])

    def _forward(self, feeds: Sequence[Sequence[int]]) -> torch.Tensor:
        width = max(len(feed) for feed in feeds)
        ids = torch.tensor([[*feed, *[self._pad] * (width - len(feed))] for feed in feeds])
        starts = torch.tensor(self.lengths)[:, None]
        slots = starts + torch.arange(width)[None]
        length = int(slots.max()) + 1
        last = max(map(sum, zip(self.lengths, map(len, feeds), strict=True))) - 1
        self._check(last)
        self._place.rows = torch.arange(len(feeds), device=self._device)[:, None]
        self._place.slots, self._place.length = slots.to(self._device), length
        return self._projection.states(
            input_ids=ids.to(self._device),
            attention_mask=self._mask(slots, length),
            position_ids=slots.clamp(max=last).to(self._device),
            past_key_values=self._cache,
            use_cache=True,
        )

    def _check(self, last: int) -> None:
        rotary = hasattr(self._config, "rope_parameters")
        limit = None if rotary else getattr(self._config, "max_position_embeddings", None)
        if limit is not None and last >= limit:
            raise BackboneError(
                f"an answer needs {last + 1} positions and the backbone has {limit}: set a smaller "
                "task.window_words or the compact prompt"
            )

    def _mask(self, slots: torch.Tensor, length: int) -> torch.Tensor | dict[str, torch.Tensor]:
        """What each fed token sees: its own row's slots up to its own, (rows, 1, fed, slots)."""
        distance = (slots[:, :, None] - torch.arange(length))[:, None].to(self._device)
        dtype = self._projection.base.dtype
        unseen = torch.finfo(dtype).min

        def mask(seen: torch.Tensor) -> torch.Tensor:
            return torch.zeros(seen.shape, dtype=dtype, device=self._device).masked_fill(
                ~seen, unseen
            )

        whole = mask(distance >= 0)
        window = getattr(self._config, "sliding_window", None)
        if window is None or length <= window:
            return whole
        near = mask((distance >= 0) & (distance < window))
        kinds = getattr(self._config, "layer_types", None)
        return near if kinds is None else {"full_attention": whole, "sliding_attention": near}

    def extend(self, feeds: Sequence[Sequence[int]]) -> torch.Tensor:
        """Feed each row some tokens; returns the projection's states (rows, longest feed, ...).

        ``keep`` must follow, to say how many of them stay.
        """
        return self._forward(feeds)

    def keep(self, counts: Sequence[int]) -> None:
        """Of what was fed last, the first ``counts[row]`` tokens of each row stay."""
        self.lengths = [length + count for length, count in zip(self.lengths, counts, strict=True)]

    def leave_out(self, rows: Sequence[int]) -> list[int]:
        """Go on without some rows; returns the others in the order that they have from now on.

        The last rows move to the places that become free, so that little is copied.
        """
        left = len(self.lengths) - len(rows)
        free = sorted(row for row in rows if row < left)
        moved = sorted(set(range(left, len(self.lengths))) - set(rows))
        order = list(range(left))
        for place, row in zip(free, moved, strict=True):
            order[place] = row
        self.lengths = [self.lengths[row] for row in order]
        for layer in self._cache.layers:
            for name in ("keys", "values"):
                held = getattr(layer, name)
                if held is not None:
                    if free:
                        held[free] = held[moved]
                    setattr(layer, name, held[:left])
        return order

    def _repeat(self, count: int) -> None:
        """So many rows where there is one."""
        self.lengths *= count
        for layer in self._cache.layers:
            for name in ("keys", "values"):
                held = getattr(layer, name)
                if held is not None:
                    setattr(layer, name, held.repeat(count, 1, 1, 1))


def check_rewinding(projection: Projection) -> None:
    """Check that a model computes with this cache what it computes without; once a model.

    Raises:
        BackboneError: it does not, or keeps a state from which no token can be taken back.
    """
    base = projection.base
    if base in _checked:
        return
    first, second = [1, 2, 3, 4, 5, 6], [6, 5, 4]
    unfit = (
        f"{type(base).__name__} cannot take tokens back from its cache as enforced decoding does"
    )
    with torch.inference_mode():
        try:
            cache = RewindableCache(projection, [first[:4], second[:1]], pad=0)
            cache.extend([[4, 1, 1], [6, 1]])
            cache.keep([1, 1])
            found = projection.logits(cache.extend([first[4:], second[1:]]))
            ids = torch.tensor([first, second + [0] * 3], device=found.device)
            wanted = projection.logits(projection.states(input_ids=ids, use_cache=False))
        except (AttributeError, TypeError, ValueError, RuntimeError, IndexError) as error:
            raise BackboneError(f"{unfit}; set decoding.mode to free") from error
    wanted = torch.stack([wanted[0, 4:6], wanted[1, 1:3]])
    if not bool(torch.isfinite(wanted).all()):
        return  # a broken adapter; decoding says so
    # Wide enough for bf16, far too narrow for a wrong mask or position.
    if not float((found - wanted).norm()) <= 0.05 * float(wanted.norm()):
        raise BackboneError(f"{unfit}: its logits differ; set decoding.mode to free")
    _checked.add(base)
