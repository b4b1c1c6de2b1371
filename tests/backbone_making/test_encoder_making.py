"""What the embedded encoder is made with: a Llama that looks both ways, rows of words, masks."""

import random
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
sys.path.insert(0, str(SCRIPTS))

from backbone.masking import (  # noqa: E402
    MaskingPlan,
    Stretches,
    encoder_from,
    mask_words,
    measure_masked,
    train_masked,
)

START, BREAK, MASK = 1, 2, 3
SENTENCES = [[(10,), (11, 12)], [(20, 21, 22)], [(30,)]]


@pytest.fixture
def backbone():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=40,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        tie_word_embeddings=True,
        pad_token_id=0,
    )
    return LlamaForCausalLM(config).eval()


def stretches(generated=0.0, seed=1):
    plan = MaskingPlan(generated=generated, breaks=0.5)
    return Stretches(
        SENTENCES,
        lambda: [(33,), (34,)],
        start=START,
        line_break=BREAK,
        plan=plan,
        rng=random.Random(seed),
    )


def test_the_encoder_has_the_backbones_weights_and_sees_what_follows(backbone):
    encoder = encoder_from(backbone, mask=MASK).eval()
    ours, theirs = encoder.state_dict(), backbone.state_dict()
    assert set(ours) == set(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    one, other = torch.tensor([[1, 10, 11]]), torch.tensor([[1, 10, 12]])
    with torch.no_grad():
        before = [model(ids).logits[0, 1] for model in (backbone, encoder) for ids in (one, other)]
    assert torch.equal(before[0], before[1])  # causal
    assert not torch.allclose(before[2], before[3], atol=1e-4)
    # The last token of a causal model sees all, so on one token both agree.
    with torch.no_grad():
        alone = torch.tensor([[5]])
        torch.testing.assert_close(backbone(alone).logits, encoder(alone).logits)


@pytest.mark.parametrize("length", [4, 9, 30])
def test_a_row_is_as_long_as_asked_and_follows_the_text(length):
    drawn = [stretches(seed=seed).row(length) for seed in range(30)]
    order = [11, 12, 20, 21, 22, 30, 10]
    for row in drawn:
        ids = [token for word in row for token in word]
        assert len(ids) == length
        assert ids[0] == START
        text = [token for token in ids[1:] if token != BREAK]
        for before, after in pairwise(text):
            assert order[(order.index(before) + 1) % len(order)] == after
    assert any(BREAK in [t for w in row for t in w] for row in drawn)


def test_generated_rows_hold_generated_lines_alone():
    ids = [token for word in stretches(generated=1.0).row(9) for token in word]
    assert ids == [START, 33, 34, BREAK, 33, 34, BREAK, 33, 34]


def test_words_are_masked_whole_and_the_start_never():
    rng = random.Random(4)
    row = [(START,), (10,), (11, 12), (20, 21, 22)]
    fates = {"masked": 0, "kept": 0, "other": 0}
    for _ in range(400):
        ids, places = mask_words(row, share=0.5, mask=MASK, vocabulary=40, rng=rng)
        assert len(ids) == 7
        assert ids[0] == START
        assert 0 not in places
        for start, word in ((1, (10,)), (2, (11, 12)), (4, (20, 21, 22))):
            mine = range(start, start + len(word))
            asked = [place in places for place in mine]
            assert all(asked) or not any(asked)
            seen = tuple(ids[place] for place in mine)
            if not any(asked):
                assert seen == word
            else:
                kind = "masked" if set(seen) == {MASK} else "kept" if seen == word else "other"
                fates[kind] += 1
    assert 400 < sum(fates.values()) < 800
    assert fates["masked"] > 2 * (fates["kept"] + fates["other"])
    assert min(fates.values()) > 20


def test_training_brings_the_loss_down(backbone):
    plan = MaskingPlan(
        steps=100, tokens=64, lengths=(16,), generated=0.0, other_rate=1e-2, embedding_rate=1e-2
    )
    encoder = encoder_from(backbone, mask=MASK)

    def measured():
        return measure_masked(encoder, stretches(seed=9), mask=MASK, plan=plan, rows=8)[0]

    before = measured()
    tokens = train_masked(encoder, stretches(), mask=MASK, plan=plan, report=lambda line: None)
    assert tokens == 100 * 64
    assert measured() < before - 0.5
