"""The last step of a model by itself: hidden states in, logits of the tokens that matter out.

Most of a small model's time goes into logits that nobody reads: of prompt tokens in training, of
thousands of impossible tokens in enforced decoding. Where a model's logits are its output
embeddings applied to its decoder's states, they are computed where they are needed alone; where
they are more than that (scaled, capped), the model is called as a whole. Which of the two is found
by comparing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import torch
from torch import nn

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

_separable: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


class Projection:
    """A model in two steps.

    Args:
        model: causal language model of transformers, plain or with a PEFT adapter.
    """

    def __init__(self, model: PreTrainedModel | PeftModel) -> None:
        self.base = model.get_base_model() if hasattr(model, "get_base_model") else model
        if self.base not in _separable:
            _separable[self.base] = _is_separable(self.base)
        self._apart = _separable[self.base]

    def states(self, **inputs: object) -> torch.Tensor:
        """What ``logits`` takes: (rows, tokens, ...); arguments as for the model's ``forward``."""
        states: torch.Tensor = (
            self.base.get_decoder()(**inputs).last_hidden_state
            if self._apart
            else self.base(**inputs).logits
        )
        return states

    def logits(self, states: torch.Tensor, tokens: torch.Tensor | None = None) -> torch.Tensor:
        """Float32 logits (..., tokens) of these ``tokens``, or of the whole vocabulary."""
        if not self._apart:
            return (states if tokens is None else states[..., tokens]).float()
        head = self.base.get_output_embeddings()
        if tokens is not None and type(head) is nn.Linear:
            bias = None if head.bias is None else head.bias[tokens]
            return nn.functional.linear(states, head.weight[tokens], bias).float()
        logits: torch.Tensor = head(states)
        return (logits if tokens is None else logits[..., tokens]).float()


def _is_separable(base: PreTrainedModel) -> bool:
    head = base.get_output_embeddings()
    if head is None or not hasattr(base, "get_decoder"):
        return False
    device = next(base.parameters()).device
    ids = torch.arange(4, device=device)[None] % base.config.get_text_config().vocab_size
    training = base.training
    base.eval()
    try:
        with torch.no_grad():
            states = getattr(base.get_decoder()(ids, use_cache=False), "last_hidden_state", None)
            whole = base(ids, use_cache=False).logits
            # Bit for bit: a cap on the logits hardly shows in the small ones of an untrained model.
            return states is not None and torch.equal(head(states).float(), whole.float())
    finally:
        base.train(training)
