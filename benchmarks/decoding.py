"""Enforced decoding against transformers' `generate`: notes a second, same adapter, same prompts.

    python benchmarks/decoding.py studies/demo.yaml [key=value ...] [--notes 12] [--check 500]

Trains one adapter on the study's pooled training notes, over the whole vocabulary, so that it can
also write freely; then answers the questions about validation notes in every way, in turns.
`generate` is taken one window at a time, and at the best of several batch sizes; a small model that
writes freely seldom ends where the text does, so it is cut where the longest enforced answer of its
batch ends, as if it had copied well. `--check N` only
compares N enforced answers, character by character, with a decoder that has no cache, no draft and
no trie (tests/model/reference_decoder.py).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from alternating import alternate

from fedmedlora.config import load_study
from fedmedlora.model.decoding import DecodingSettings, EnforcedDecoder
from fedmedlora.model.encoding import encode_texts, prompt_ids
from fedmedlora.model.generation import generate
from fedmedlora.model.lora import load_adapter
from fedmedlora.model.merged import merged
from fedmedlora.progress import quiet_libraries
from fedmedlora.study.arms import study_arms
from fedmedlora.study.data import load_data
from fedmedlora.study.methods import MethodRunner
from fedmedlora.tasks.example import Example

BATCHES = (8, 32, 64, 128)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path)
    parser.add_argument("settings", nargs="*")
    parser.add_argument("--notes", type=int, default=12, help="validation notes of each site")
    parser.add_argument("--steps", type=int, default=600, help="of the adapter's training")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--check", type=int, help="compare so many answers with the reference")
    arguments = parser.parse_args()
    quiet_libraries()
    study = load_study(
        arguments.study,
        [
            "methods=[centralised]", "new_sites={}", "variants={}", "federation.rounds=1",
            "training.objective=answer", "training.learning_rate=2e-3", "training.schedule=round",
            f"training.steps={arguments.steps}", "decoding.open_bias=0.0", *arguments.settings,
        ],
    )  # fmt: skip
    arm = next(arm for arm in study_arms(study) if arm.kind == "centralised")
    data = load_data(study)
    with tempfile.TemporaryDirectory() as folder:
        runner = MethodRunner(study, data, Path(folder), lambda kind, facts: None)
        adapter = runner.train(arm).adapter
    notes = [(site, note) for site in data.sites for note in site.validation[: arguments.notes]]
    asked = [
        example
        for site, note in notes
        for example in runner.questions(arm, [note], site.covers, tasks=site.tasks)
    ]
    bench = runner.lora.workbench(study)
    load_adapter(bench.model, adapter)
    with merged(bench.model):
        model, tokenizer = bench.model, bench.backbone.tokenizer
        settings = partial(DecodingSettings, batch=study.decoding.batch, draft=study.decoding.draft)
        if arguments.check:
            check(model, tokenizer, asked[:: max(1, len(asked) // arguments.check)], settings)
            return
        for task in bench_tasks(asked):
            compare(
                model, tokenizer, [one for one in asked if one.task == task],
                settings, task=task, notes=len(notes), turns=arguments.turns,
            )  # fmt: skip


def bench_tasks(asked: Sequence[Example]) -> list[str]:
    return list(dict.fromkeys(one.task for one in asked))


def compare(
    model: Any,
    tokenizer: Any,
    asked: Sequence[Example],
    settings: Any,
    *,
    task: str,
    notes: int,
    turns: int,
) -> None:
    enforced = EnforcedDecoder(model, tokenizer, settings())
    answers = enforced.decode(asked)
    free = partial(cut_short, model, tokenizer, asked, answers)
    sides: dict[str, Any] = {"generate, one by one": partial(free, batch=1)}
    sides |= {f"generate, {batch} at once": partial(free, batch=batch) for batch in BATCHES}
    sides["enforced"] = partial(enforced.decode, asked)
    tokens = sum(len(ids) + 1 for ids in encode_texts(tokenizer, answers)[0])
    written = sum(map(len, free(batch=1)))
    seconds = alternate(sides, times=turns)
    mine = seconds.pop("enforced")
    print(
        f"{task}: {notes} notes, {len(asked)} windows; enforced answers of {tokens} tokens, "
        f"`generate` one by one wrote {written}"
    )
    print(f"  {'enforced':24} {notes / mine:7.2f} notes/s")
    for name, took in seconds.items():
        print(f"  {name:24} {notes / took:7.2f} notes/s   {took / mine:5.1f} times slower")


def cut_short(
    model: Any, tokenizer: Any, asked: Sequence[Example], answers: Sequence[str], *, batch: int
) -> list[list[int]]:
    """What `generate` writes, up to as many tokens as the longest enforced answer beside it has."""
    prompts = prompt_ids(asked, tokenizer)
    lengths = [len(ids) + 1 for ids in encode_texts(tokenizer, answers)[0]]
    order = sorted(range(len(asked)), key=lambda place: (len(prompts[place]), place))
    written = []
    for at in range(0, len(order), batch):
        part = order[at : at + batch]
        limit = max(lengths[place] for place in part)
        written += generate(model, tokenizer, [prompts[place] for place in part], limit=limit)
    return written


def check(model: Any, tokenizer: Any, asked: Sequence[Example], settings: Any) -> None:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "model"))
    from reference_decoder import ReferenceDecoder  # type: ignore[import-not-found]

    different = tags = 0
    for depth, bias in ((1, 0.0), (2, 1.0)):
        reference = ReferenceDecoder(model, tokenizer, depth=depth, open_bias=bias)
        decoder = EnforcedDecoder(model, tokenizer, settings(depth=depth, open_bias=bias))
        for one, answer in zip(asked, decoder.decode(asked), strict=True):
            tags += answer.count("</span>")
            if reference.decode(one) != answer:
                different += 1
                print("different:", one.id)
        print(
            f"depth {depth}, open bias {bias}: {len(asked)} windows, {different} different,", end=""
        )
        print(f" {tags} tags so far", flush=True)
    if different:
        sys.exit(1)


if __name__ == "__main__":
    main()
