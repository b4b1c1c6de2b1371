"""Make the embedded backbone: a small Llama and its tokenizer, from open medical text.

    python scripts/make_backbone.py PRETRAINING_FOLDER OUT [--copying FOLDER]

PRETRAINING_FOLDER holds medquad.jsonl.gz and medquad_names.jsonl.gz (MedQuAD, CC BY 4.0). Seeded;
one thread. The card (CARD.md) written beside the weights says what the model saw.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from backbone.card import held_out_in, write_card
from backbone.deciding import DecisionPlan, train_decisions
from backbone.exercises import ExerciseMaker
from backbone.priming import prime_copying
from backbone.shorthand import make_shorthand
from backbone.text import OpenText, read_open_text, words_of
from backbone.tokenizer import train_tokenizer
from backbone.training import Plan, new_model, train
from backbone.weak_labels import NameIndex, cluster_words, label
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

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
    parser.add_argument("--copying", type=Path, help="a first stage made before, to go on from")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    started = time.monotonic()
    plan, second = Plan(), DecisionPlan()
    source = read_open_text(arguments.text)
    segments = [words_of(segment) for segment in source.segments]
    names = NameIndex(source.names)
    labels = [label(words, names) for words in segments]
    clusters = cluster_words(segments, seed=plan.seed)

    def maker(seed: int) -> ExerciseMaker:
        return ExerciseMaker(segments, labels, clusters, random.Random(seed))

    def report(line: str) -> None:
        print(line, flush=True)

    first = arguments.copying or arguments.out / "copying"
    if arguments.copying is None:
        tokenizer = train_tokenizer(_lines(source, plan.seed), size=plan.vocabulary)
        model = new_model(plan, tokenizer)
        prime_copying(model, seed=plan.seed)
        report(f"prepared in {time.monotonic() - started:.0f} s")
        seen = train(model, tokenizer, maker(plan.seed), plan=plan, report=report)
        model.to(torch.bfloat16).save_pretrained(first)
        tokenizer.save_pretrained(first)
        (first / "making.json").write_text(json.dumps({"tokens_seen": seen}) + "\n")
    # The second stage goes on from the weights as saved, so that it can be made again alone.
    tokenizer = PreTrainedTokenizerFast.from_pretrained(first)
    model = LlamaForCausalLM.from_pretrained(first, dtype=torch.float32)
    decided = train_decisions(
        model, tokenizer, maker(second.decision_seed), plan=second, report=report
    )
    model.to(torch.bfloat16).save_pretrained(arguments.out)
    tokenizer.save_pretrained(arguments.out)
    copied = json.loads((first / "making.json").read_text())["tokens_seen"]
    held_open, held_terms = held_out_in([*segments, *(name.words for name in source.names)])
    lines = random.Random(plan.seed + 2)
    held_generated, _ = held_out_in(
        make_shorthand(lines).words for _ in range(GENERATED_LINES_CHECKED)
    )
    facts = {
        **asdict(plan),
        **asdict(second),
        "parameters": model.num_parameters(),
        "tokens_seen": copied + decided,
        "documents": source.documents,
        "words_of_open_text": source.words,
        "segments": len(segments),
        "held_out_terms": held_terms,
        "held_out_open": held_open,
        "held_out_generated": held_generated,
        "generated_lines": GENERATED_LINES_CHECKED,
    }
    (arguments.out / "making.json").write_text(json.dumps(facts, indent=2) + "\n")
    (arguments.out / "CARD.md").write_text(write_card(facts))
    report(f"made in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
