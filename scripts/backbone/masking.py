"""Stretches of words in, an encoder that has learnt to guess the masked ones out: a plain loop.

The encoder is the embedded backbone made to look both ways: a EuroBERT has the layers of a Llama
and no causal mask, so it starts from the backbone's weights.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional
from transformers import EuroBertConfig, EuroBertForMaskedLM, LlamaForCausalLM

from .training import Optimiser

#: A word as token ids.
Coded = tuple[int, ...]
#: One generated line of words, drawn anew.
DrawLine = Callable[[], Sequence[Coded]]


@dataclass(frozen=True)
class MaskingPlan:
    """How the encoder is trained.

    ``tokens`` is the batch size in tokens, all rows of a batch are as long as one of ``lengths``;
    ``masked`` the share of words to guess; ``generated`` the share of rows of generated lines;
    ``breaks`` the share of sentences that begin on a new line; ``kept_back`` the share of the text
    that only measures.
    """

    steps: int = 2600
    tokens: int = 2048
    lengths: tuple[int, ...] = (32, 64, 96, 128, 192)
    masked: float = 0.25
    generated: float = 0.15
    breaks: float = 0.3
    kept_back: float = 0.02
    matrix_rate: float = 0.012
    other_rate: float = 1e-3
    embedding_rate: float = 3e-4
    seed: int = 29


def encoder_from(backbone: LlamaForCausalLM, *, mask: int) -> EuroBertForMaskedLM:
    """An encoder that looks both ways, with every weight of the backbone.

    Args:
        backbone: its embeddings tied, without biases.
        mask: id of the token that stands for a word to guess.
    """
    old = backbone.config
    model = EuroBertForMaskedLM(
        EuroBertConfig(
            vocab_size=old.vocab_size,
            hidden_size=old.hidden_size,
            intermediate_size=old.intermediate_size,
            num_hidden_layers=old.num_hidden_layers,
            num_attention_heads=old.num_attention_heads,
            num_key_value_heads=old.num_key_value_heads,
            hidden_act=old.hidden_act,
            max_position_embeddings=old.max_position_embeddings,
            rms_norm_eps=old.rms_norm_eps,
            rope_parameters=old.rope_parameters,
            tie_word_embeddings=True,
            bos_token_id=old.bos_token_id,
            eos_token_id=old.eos_token_id,
            pad_token_id=old.pad_token_id,
            mask_token_id=mask,
        )
    )
    model.load_state_dict(backbone.state_dict())
    return model


class Stretches:
    """Draws rows of one length from text whose sentences follow one another.

    Args:
        sentences: in the order of the text.
        draw_line: a generated line.
        start: id of the token that every row begins with.
        line_break: id of the token between lines.
        plan: shares.
        rng: of the draws.
    """

    def __init__(
        self,
        sentences: Sequence[Sequence[Coded]],
        draw_line: DrawLine,
        *,
        start: int,
        line_break: int,
        plan: MaskingPlan,
        rng: random.Random,
    ) -> None:
        self._sentences, self._draw_line, self.rng = sentences, draw_line, rng
        self._start, self._break, self._plan = (start,), (line_break,), plan

    def row(self, length: int) -> list[Coded]:
        """Words of ``length`` tokens together; the last is cut where it does not fit."""
        words: list[Coded] = [self._start]
        left = length - 1
        for word in self._words():
            words.append(word[:left])
            left -= len(words[-1])
            if not left:
                return words
        raise AssertionError("the words came to an end")

    def _words(self) -> Iterator[Coded]:
        generated = self.rng.random() < self._plan.generated
        at = self.rng.randrange(len(self._sentences))
        while True:
            yield from self._draw_line() if generated else self._sentences[at]
            at = (at + 1) % len(self._sentences)
            if generated or self.rng.random() < self._plan.breaks:
                yield self._break


def mask_words(
    row: Sequence[Coded], *, share: float, mask: int, vocabulary: int, rng: random.Random
) -> tuple[list[int], list[int]]:
    """Token ids as the encoder sees them, and the places of the tokens that it must guess.

    Of the words to guess eight in ten are masked, one is another word's token, one stays. The
    first word (the start of the row) is never asked for.
    """
    ids: list[int] = []
    places: list[int] = []
    for number, word in enumerate(row):
        if number and rng.random() < share:
            fate = rng.random()
            places += range(len(ids), len(ids) + len(word))
            if fate < 0.8:
                ids += [mask] * len(word)
            elif fate < 0.9:
                ids += [rng.randrange(vocabulary) for _ in word]
            else:
                ids += word
        else:
            ids += word
    return ids, places


def _batch(
    stretches: Stretches, length: int, *, plan: MaskingPlan, model: EuroBertForMaskedLM, mask: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ids as seen (rows, length), where to guess (the same, true or false), and what (guesses)."""
    size = model.config.vocab_size
    rows = [stretches.row(length) for _ in range(max(1, plan.tokens // length))]
    rng = stretches.rng
    seen, asked = [], torch.zeros(len(rows), length, dtype=torch.bool)
    for number, row in enumerate(rows):
        ids, places = mask_words(row, share=plan.masked, mask=mask, vocabulary=size, rng=rng)
        seen.append(ids)
        asked[number, places] = True
    true = torch.tensor([[token for word in row for token in word] for row in rows])
    return torch.tensor(seen), asked, true[asked]


def _losses(
    model: EuroBertForMaskedLM, seen: torch.Tensor, asked: torch.Tensor, true: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropy of every token to guess, and whether the best guess is right."""
    states = model.model(input_ids=seen).last_hidden_state[asked]
    logits = model.lm_head(states)
    return functional.cross_entropy(logits, true, reduction="none"), logits.argmax(-1) == true


def train_masked(
    model: EuroBertForMaskedLM,
    stretches: Stretches,
    *,
    mask: int,
    plan: MaskingPlan,
    report: Callable[[str], None],
) -> int:
    """Train in place for ``plan.steps`` steps; returns the number of tokens seen."""
    optimiser = Optimiser(
        model, matrices=plan.matrix_rate, others=plan.other_rate, embeddings=plan.embedding_rate
    )
    rng = random.Random(plan.seed + 1)
    tokens, total, right, started = 0, 0.0, 0.0, time.monotonic()
    model.train()
    for step in range(plan.steps):
        length = rng.choice(plan.lengths)
        seen, asked, true = _batch(stretches, length, plan=plan, model=model, mask=mask)
        losses, hits = _losses(model, seen, asked, true)
        losses.mean().backward()  # type: ignore[no-untyped-call]
        progress = step / plan.steps
        optimiser.step(min(1.0, (step + 1) / 50) * min(1.0, max(0.02, (1 - progress) / 0.5)))
        tokens += seen.numel()
        total += float(losses.mean().detach())
        right += float(hits.float().mean())
        if (step + 1) % 50 == 0:
            report(
                f"step {step + 1} tokens {tokens / 1e6:.2f}M loss {total / 50:.3f} "
                f"right {right / 50:.3f} seconds {time.monotonic() - started:.0f}"
            )
            total = right = 0.0
    return tokens


def measure_masked(
    model: EuroBertForMaskedLM, stretches: Stretches, *, mask: int, plan: MaskingPlan, rows: int
) -> tuple[float, float]:
    """Mean loss a guess (natural logarithm) and share of right guesses, on rows of 96 tokens."""
    model.eval()
    found, hits = [], []
    with torch.no_grad():
        for _ in range(rows * 96 // plan.tokens):
            seen, asked, true = _batch(stretches, 96, plan=plan, model=model, mask=mask)
            loss, hit = _losses(model, seen, asked, true)
            found.append(loss)
            hits.append(hit)
    return float(torch.cat(found).mean()), float(torch.cat(hits).float().mean())
