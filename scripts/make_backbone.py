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
from backbone.card import write_card
from backbone.deciding import DecisionPlan, train_decisions
from backbone.exercises import ExerciseMaker
from backbone.held_out import HeldOutTerms
from backbone.priming import content_of, prime_copying, prime_meaning
from backbone.shorthand import KnownNames, known_names, make_shorthand
from backbone.text import OpenText, read_open_text, words_of
from backbone.tokenizer import train_tokenizer
from backbone.training import Encoder, Plan, new_model, train
from backbone.vectors import company_vectors
from backbone.weak_labels import NameIndex, cluster_words, label
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

GENERATED_LINES_CHECKED = 60_000


def _lines(source: OpenText, known: KnownNames, seed: int) -> Iterator[str]:
    yield from source.segments
    for name in source.names:
        yield " ".join(name.words)
    rng = random.Random(seed)
    for _ in range(8000):
        yield " ".join(make_shorthand(rng, known).words)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("text", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--copying", type=Path, help="a first stage made before, to go on from")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    started = time.monotonic()

    def minutes_since(moment: float) -> int:
        return round((time.monotonic() - moment) / 60)

    plan, second = Plan(), DecisionPlan()
    source = read_open_text(arguments.text)
    segments = [words_of(segment) for segment in source.segments]
    held_out = HeldOutTerms()
    told = [name for name in source.names if not held_out.found_in(name.words)]
    names, known = NameIndex(told), known_names(told)
    barred = [held_out.found_in(words) for words in segments]
    labels = [
        None if terms else label(words, names)
        for words, terms in zip(segments, barred, strict=True)
    ]
    clusters = cluster_words(
        segments, barred={t[0] for t in held_out.terms if len(t) == 1}, seed=plan.seed
    )

    def maker(seed: int, mix: tuple[float, float, float, float, float]) -> ExerciseMaker:
        return ExerciseMaker(segments, labels, clusters, known, random.Random(seed), mix=mix)

    def report(line: str) -> None:
        print(line, flush=True)

    first = arguments.copying or arguments.out / "copying"
    if arguments.copying is None:
        tokenizer = train_tokenizer(_lines(source, known, plan.seed), size=plan.vocabulary)
        model = new_model(plan, tokenizer)
        encoder = Encoder(tokenizer, random.Random(plan.seed))
        vectors = company_vectors(
            [encoder.text_ids(words) for words in (*segments, *(n.words for n in source.names))],
            size=len(tokenizer),
            contexts=len(tokenizer),
            dimensions=content_of(model.config).stop - 1,
            seed=plan.seed,
        )
        prime_meaning(model, vectors, share=plan.company)
        prime_copying(model, seed=plan.seed)
        report(f"prepared in {time.monotonic() - started:.0f} s")
        seen = train(model, tokenizer, maker(plan.seed, plan.mix), plan=plan, report=report)
        model.to(torch.bfloat16).save_pretrained(first)
        tokenizer.save_pretrained(first)
        (first / "making.json").write_text(
            json.dumps({"tokens_seen": seen, "minutes": minutes_since(started)}) + "\n"
        )
    # The second stage goes on from the weights as saved, so that it can be made again alone.
    tokenizer = PreTrainedTokenizerFast.from_pretrained(first)
    model = LlamaForCausalLM.from_pretrained(first, dtype=torch.float32)
    deciding = time.monotonic()
    exercises = maker(second.decision_seed, second.decision_mix)
    decided = train_decisions(model, tokenizer, exercises, plan=second, report=report)
    model.to(torch.bfloat16).save_pretrained(arguments.out)
    tokenizer.save_pretrained(arguments.out)
    copied = json.loads((first / "making.json").read_text())
    lines = random.Random(plan.seed + 2)
    generated = [make_shorthand(lines, known).words for _ in range(GENERATED_LINES_CHECKED)]
    facts = {
        **asdict(plan),
        **asdict(second),
        "parameters": model.num_parameters(),
        "tokens_seen": copied["tokens_seen"] + decided,
        "copying_minutes": copied["minutes"],
        "decision_minutes": minutes_since(deciding),
        "documents": source.documents,
        "words_of_open_text": source.words,
        "segments": len(segments),
        "unlabelled": sum(bool(terms) for terms in barred),
        "held_out_terms": len(held_out.terms),
        "held_out_sentences": len(set().union(*barred)),
        "held_out_open": len(
            set().union(*barred, *(held_out.found_in(n.words) for n in source.names))
        ),
        "held_out_generated": len(set().union(*map(held_out.found_in, generated))),
        "generated_lines": GENERATED_LINES_CHECKED,
    }
    (arguments.out / "making.json").write_text(json.dumps(facts, indent=2) + "\n")
    (arguments.out / "CARD.md").write_text(write_card(facts))
    report(f"made in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
