"""Make the embedded backbone: a small Llama and its tokenizer, from open medical text.

    python scripts/make_backbone.py PRETRAINING_FOLDER OUT [--steps N]

PRETRAINING_FOLDER holds medquad.jsonl.gz and medquad_names.jsonl.gz (MedQuAD, CC BY 4.0). Seeded;
one thread. The card (CARD.md) written beside the weights says what the model saw.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from backbone.card import held_out_in, write_card
from backbone.exercises import ExerciseMaker
from backbone.priming import prime_copying
from backbone.shorthand import make_shorthand
from backbone.text import OpenText, read_open_text, words_of
from backbone.tokenizer import train_tokenizer
from backbone.training import Plan, new_model, train
from backbone.weak_labels import NameIndex, cluster_words, label

GENERATED_LINES_CHECKED = 60_000


def _lines(source: OpenText, seed: int) -> Iterator[str]:
    yield from source.segments
    for name in source.names:
        yield " ".join(name.words)
    rng = random.Random(seed)
    for _ in range(8000):
        yield " ".join(make_shorthand(rng).words)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("text", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=Plan.steps)
    parser.add_argument("--matrix-rate", type=float, default=Plan.matrix_rate)
    parser.add_argument("--other-rate", type=float, default=Plan.other_rate)
    parser.add_argument("--vocabulary", type=int, default=6144)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    started = time.monotonic()
    plan = Plan(
        steps=arguments.steps,
        matrix_rate=arguments.matrix_rate,
        other_rate=arguments.other_rate,
    )
    source = read_open_text(arguments.text)
    tokenizer = train_tokenizer(_lines(source, plan.seed), size=arguments.vocabulary)
    segments = [words_of(segment) for segment in source.segments]
    names = NameIndex(source.names)
    labels = [label(words, names) for words in segments]
    clusters = cluster_words(segments, seed=plan.seed)
    maker = ExerciseMaker(segments, labels, clusters, random.Random(plan.seed))
    model = new_model(plan, tokenizer)
    prime_copying(model, seed=plan.seed)
    print(f"prepared in {time.monotonic() - started:.0f} s, {model.num_parameters()} parameters")
    sys.stdout.flush()

    def save(step: int) -> None:
        folder = arguments.out if step >= plan.steps else arguments.out / f"step-{step}"
        half = new_model(plan, tokenizer)
        half.load_state_dict(model.state_dict())
        half.to(torch.bfloat16).save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    seen = train(
        model, tokenizer, maker, plan=plan, save=save, report=lambda line: print(line, flush=True)
    )
    save(plan.steps)
    held_open, held_terms = held_out_in([*segments, *(name.words for name in source.names)])
    lines = random.Random(plan.seed + 2)
    held_generated, _ = held_out_in(
        make_shorthand(lines).words for _ in range(GENERATED_LINES_CHECKED)
    )
    facts = {
        **asdict(plan),
        "vocabulary": len(tokenizer),
        "parameters": model.num_parameters(),
        "tokens_seen": seen,
        "documents": source.documents,
        "words_of_open_text": source.words,
        "segments": len(segments),
        "seconds": round(time.monotonic() - started),
        "held_out_terms": held_terms,
        "held_out_open": held_open,
        "held_out_generated": held_generated,
        "generated_lines": GENERATED_LINES_CHECKED,
    }
    (arguments.out / "making.json").write_text(json.dumps(facts, indent=2) + "\n")
    (arguments.out / "CARD.md").write_text(write_card(facts))


if __name__ == "__main__":
    main()
