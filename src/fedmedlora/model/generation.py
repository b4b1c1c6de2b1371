"""Free generation, to compare enforced decoding with: prompts in, what the model writes out.

Greedy, by transformers' ``generate``. The answers are raw: ``tasks.reading`` finds in them what can
be grounded in the source and counts the rest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from fedmedlora.model.encoding import encode_texts, prompt_ids
from fedmedlora.tasks.example import Example

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

_SPARE = 32  # new tokens allowed to even the shortest source


def generate_answers(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    *,
    batch: int = 32,
    max_new_tokens_factor: float = 3.0,
    on_done: Callable[[int], None] | None = None,
) -> list[str]:
    """One raw answer for each example, in order, as the model writes it up to end-of-sequence.

    Args:
        model: causal language model of transformers, adapted or plain, in evaluation mode.
        tokenizer: its tokenizer.
        examples: their prompts are used, and of their sources the length.
        batch: rows generated together.
        max_new_tokens_factor: an answer is cut at this many tokens for each of its source's, and
            32 more: tags need room, and a model that repeats itself never ends.
        on_done: told the number of examples answered so far.
    """
    prompts = prompt_ids(examples, tokenizer)
    sources, _ = encode_texts(tokenizer, [example.source for example in examples])
    limits = [math.ceil(max_new_tokens_factor * len(source)) + _SPARE for source in sources]
    order = sorted(range(len(examples)), key=lambda i: (len(prompts[i]), i))
    answers = [""] * len(examples)
    for at in range(0, len(order), batch):
        part = order[at : at + batch]
        longest = max(limits[i] for i in part)
        written = generate(model, tokenizer, [prompts[i] for i in part], limit=longest)
        for i, ids in zip(part, written, strict=True):
            # Cut each at its own limit, so that it does not depend on what it was batched with.
            answers[i] = tokenizer.decode(
                ids[: limits[i]], skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        if on_done is not None:
            on_done(at + len(part))
    return answers


def generate(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    *,
    limit: int,
) -> list[list[int]]:
    """Greedy: the tokens written after each prompt, up to end-of-sequence or ``limit`` of them."""
    width = max(len(prompt) for prompt in prompts)
    ids = torch.full((len(prompts), width), tokenizer.pad_token_id)
    mask = torch.zeros(len(prompts), width, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, width - len(prompt) :] = 1
    device = next(model.parameters()).device
    with torch.inference_mode():
        output = model.generate(
            input_ids=ids.to(device),
            attention_mask=mask.to(device),
            generation_config=_greedy(tokenizer, limit),
        )
    rows: list[list[int]] = output[:, width:].tolist()
    end = tokenizer.eos_token_id
    return [row[: row.index(end)] if end in row else row for row in rows]


def _greedy(tokenizer: PreTrainedTokenizerBase, limit: int) -> GenerationConfig:
    """Plain greedy decoding, whatever the backbone's own configuration proposes."""
    from transformers import GenerationConfig

    return GenerationConfig(
        do_sample=False,
        num_beams=1,
        temperature=1.0,
        top_p=1.0,
        top_k=50,
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        max_new_tokens=limit,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        use_cache=True,
    )
