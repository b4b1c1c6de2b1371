"""A tiny model learns to mark: what training writes is what decoding reads."""

import random

import pytest
import torch
from model_toys import byte_tokenizer, piece_tokenizer, tiny_llama, toy_example, word_tokenizer

from fedmedlora.model.decoding import DecodingSettings, EnforcedDecoder
from fedmedlora.model.encoding import encode_examples
from fedmedlora.model.losses import answer_loss, pad_rows

NAMES = ["zorvex", "Mirabol 20", "Quentol-X"]
FILLERS = ["then", "patient", "rests", "now,", "no", "pain.", "mg"]
STEPS = 160


def _sentence(rng):
    """Words at random; "takes" and "uses (" come before a drug, "has" before a value."""
    text, answer = [], []
    for _ in range(rng.randint(1, 3)):
        fillers = rng.sample(FILLERS, rng.randint(1, 3))
        name = rng.choice(NAMES)
        marked = f'<span class="drug">{name}</span>'
        before, after = rng.choice([("takes ", ""), ("uses (", ")")])
        text += [*fillers, f"{before}{name}{after}"]
        answer += [*fillers, f"{before}{marked}{after}"]
        if rng.random() < 0.4:
            text += ["has", "<0.01,"]
            answer += ["has", '<span class="test"><0.01</span>,']
    return " ".join(text), " ".join(answer)


def _examples(seed, count):
    rng = random.Random(seed)
    pairs = [_sentence(rng) for _ in range(count)]
    return [
        toy_example(text, answer=answer, number=i, prompt="x\n")
        for i, (text, answer) in enumerate(pairs)
    ]


@pytest.mark.parametrize("make", [word_tokenizer, byte_tokenizer, piece_tokenizer])
def test_a_trained_model_marks_as_its_training_data_do(make):
    lines = [example.answer for example in _examples(1, 60)]
    tokenizer = make(lines, size=330)
    model = tiny_llama(tokenizer, hidden=32, scale=0.1)
    rows, _ = encode_examples(_examples(2, 240), tokenizer, max_tokens=400)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    rng = random.Random(0)
    model.train()
    for step in range(STEPS):
        for group in optimiser.param_groups:
            group["lr"] = 1e-2 * (1 - step / STEPS)
        part = pad_rows(rng.sample(rows, 8))
        loss, count = answer_loss(model, part["input_ids"], part["labels"])
        (loss / count).backward()
        optimiser.step()
        optimiser.zero_grad()
    tests = _examples(3, 40)
    answers = EnforcedDecoder(model.eval(), tokenizer, DecodingSettings(batch=16)).decode(tests)
    right = sum(a == example.answer for a, example in zip(answers, tests, strict=True))
    assert right >= 38, [a for a, e in zip(answers, tests, strict=True) if a != e.answer][:3]
