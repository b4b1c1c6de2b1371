"""A model that is about to be trained in; afterwards all but its trainable parameters is as it was.

TRL wraps a model's ``forward`` once more at every construction, transformers turns its cache off,
and both reset the global random state. A backbone that sites of one process take turns to use, and
that then decodes, must not show how often it was trained.
"""

from __future__ import annotations

import gc
import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch

from fedmedlora.model.projection import Projection

if TYPE_CHECKING:
    from peft import PeftModel


@contextmanager
def kept_as_it_was(model: PeftModel) -> Iterator[dict[str, torch.Tensor]]:
    """Gives copies of the adapters' parameters, by name; puts back everything else at the end."""
    from transformers.utils import logging

    base = Projection(model).base  # looks at the model in evaluation mode, once
    _unpack(base)
    patched = base.__dict__.get("forward")
    use_cache = getattr(base.config, "use_cache", None)
    embedding = base.get_input_embeddings()
    hooks = set(embedding._forward_hooks)
    states = random.getstate(), np.random.get_state()
    # accelerate collects garbage when a training begins: a third of a second over all that was
    # ever imported, more than thirty steps of the embedded backbone.
    gc.freeze()
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    trainable = {
        name: parameter.detach().clone()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad or ".lora_" in name
    }
    try:
        with torch.random.fork_rng(), warnings.catch_warnings():
            # About names that the oldest release allowed does not know by their new ones.
            warnings.simplefilter("ignore", FutureWarning)
            yield trainable
    finally:
        gc.unfreeze()
        logging.set_verbosity(verbosity)
        random.setstate(states[0])
        np.random.set_state(states[1])
        if patched is None:
            base.__dict__.pop("forward", None)
        else:
            base.forward = patched
        if use_cache is not None:
            base.config.use_cache = use_cache
        # Checkpointing hooks itself in twice, and takes one of the two away when it is disabled.
        for hook in set(embedding._forward_hooks) - hooks:
            del embedding._forward_hooks[hook]
        for parameter in model.parameters():
            parameter.grad = None
        model.eval()


def _unpack(base: torch.nn.Module) -> None:
    """Undo what bitsandbytes does to 4-bit weights at the first evaluation on some processors.

    It packs them for inference there; a packed weight computes in training as well, but lets no
    gradient through. Reading a layer's state unpacks it.
    """
    for module in base.modules():
        state = getattr(getattr(module, "weight", None), "quant_state", None)
        if getattr(state, "packing_format_for_cpu", False):
            module.state_dict()
