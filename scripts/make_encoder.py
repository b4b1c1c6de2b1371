"""Make the embedded encoder: the embedded backbone, taught to look both ways on the same text.

    python scripts/make_encoder.py PRETRAINING_FOLDER OUT

PRETRAINING_FOLDER is that of ``make_backbone.py``. Seeded; one thread. The tokenizer is the
backbone's. The card (CARD.md) written beside the weights says what the encoder saw.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from backbone.encoder_card import write_card
from backbone.held_out import HeldOutTerms
from backbone.masking import (
    Coded,
    MaskingPlan,
    Stretches,
    encoder_from,
    measure_masked,
    train_masked,
)
from backbone.shorthand import KnownNames, known_names, make_shorthand
from backbone.text import read_open_text, words_of
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from fedmedlora.model.backbone import embedded_folder

MEASURED_ROWS = 2000


class Words:
    """Words to token ids, with a cache: words tokenise alike everywhere."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer
        self._known: dict[str, Coded] = {}

    def coded(self, words: Sequence[str]) -> list[Coded]:
        """Each word's ids; a word without any is left out."""
        for word in words:
            if word not in self._known:
                ids = self._tokenizer(word, add_special_tokens=False)["input_ids"]
                self._known[word] = tuple(ids)
        return [self._known[word] for word in words if self._known[word]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("text", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    started = time.monotonic()
    plan = MaskingPlan()
    torch.manual_seed(plan.seed)
    source = read_open_text(arguments.text)
    held_out = HeldOutTerms()
    known: KnownNames = known_names(
        [name for name in source.names if not held_out.found_in(name.words)]
    )
    tokenizer = PreTrainedTokenizerFast.from_pretrained(embedded_folder())
    backbone = LlamaForCausalLM.from_pretrained(embedded_folder(), dtype=torch.float32)
    mask = tokenizer.unk_token_id
    model = encoder_from(backbone, mask=mask)
    words = Words(tokenizer)
    sentences = [words.coded(words_of(segment)) for segment in source.segments]
    cut = round(len(sentences) * (1 - plan.kept_back))

    def stretches(part: Sequence[Sequence[Coded]], seed: int, shares: MaskingPlan) -> Stretches:
        rng = random.Random(seed)
        return Stretches(
            part,
            lambda: words.coded(make_shorthand(rng, known).words),
            start=tokenizer.bos_token_id,
            line_break=tokenizer.convert_tokens_to_ids("\n"),
            plan=shares,
            rng=rng,
        )

    def report(line: str) -> None:
        print(line, flush=True)

    def measured() -> tuple[float, float]:
        open_text = MaskingPlan(generated=0.0)
        rows = stretches(sentences[cut:], plan.seed + 2, open_text)
        return measure_masked(model, rows, mask=mask, plan=open_text, rows=MEASURED_ROWS)

    report(f"prepared in {time.monotonic() - started:.0f} s; before: {measured()}")
    tokens = train_masked(
        model, stretches(sentences[:cut], plan.seed, plan), mask=mask, plan=plan, report=report
    )
    loss, right = measured()
    report(f"after: loss {loss:.3f}, right {right:.3f}")
    model.to(torch.bfloat16).save_pretrained(arguments.out)
    embeddings = model.get_input_embeddings().weight.numel()
    facts = {
        **asdict(plan),
        "parameters": model.num_parameters(),
        "embedding_parameters": embeddings,
        "layers": model.config.num_hidden_layers,
        "hidden": model.config.hidden_size,
        "vocabulary": model.config.vocab_size,
        "tokens_seen": tokens,
        "minutes": round((time.monotonic() - started) / 60),
        "documents": source.documents,
        "words_of_open_text": source.words,
        "sentences": len(sentences),
        "kept_back_sentences": len(sentences) - cut,
        "loss": round(loss, 3),
        "right": round(right, 3),
    }
    (arguments.out / "making.json").write_text(json.dumps(facts, indent=2) + "\n")
    (arguments.out / "CARD.md").write_text(write_card(facts))


if __name__ == "__main__":
    main()
