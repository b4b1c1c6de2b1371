"""Exercises in, trained weights out: a plain loop with Muon for matrices and AdamW for the rest."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from .exercises import Exercise, ExerciseMaker, Tag

#: Token ids, where the text starts, where the answer starts.
_Coded = tuple[list[int], int, int]
_REQUESTS = (("mark",), ("find", "and", "mark"), ("tag",))


@dataclass(frozen=True)
class Plan:
    """Size of the model and of the training.

    ``tokens`` is the batch size in tokens; ``company`` the share of an embedding at the start that
    is its token's company vector (cosine), the rest is random; ``mix`` as ``ExerciseMaker`` takes.
    """

    hidden: int = 160
    layers: int = 4
    heads: int = 5
    inner: int = 320
    steps: int = 2600
    tokens: int = 1600
    matrix_rate: float = 0.0015
    other_rate: float = 3e-4
    embedding_rate: float = 2e-5
    later_rate: float = 2.5
    copies_kept: float = 0.3
    text_kept: float = 0.08
    text_weight: float = 0.15
    vocabulary: int = 8192
    company: float = 0.9
    mix: tuple[float, float, float, float, float] = (0.42, 0.20, 0.10, 0.18, 0.10)
    seed: int = 13


class Encoder:
    """Exercises to token ids, word by word with a cache: words tokenise alike everywhere."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, rng: random.Random) -> None:
        self._tokenizer, self._rng = tokenizer, rng
        self._cache: dict[str, list[int]] = {}

    def _ids(self, word: str) -> list[int]:
        ids = self._cache.get(word)
        if ids is None:
            ids = self._tokenizer(word, add_special_tokens=False)["input_ids"]
            self._cache[word] = ids
        return ids

    def text_ids(self, words: Sequence[str]) -> list[int]:
        """Token ids of words without any tag."""
        return [token for word in words for token in self._ids(word)]

    def _tagged(self, words: Sequence[str], tags: Sequence[Tag], attribute: str) -> list[int]:
        ids: list[int] = []
        for at, word in enumerate((*words, None)):
            ids += self._ids("</span>") * sum(tag.end == at for tag in tags)
            for tag in tags:
                if tag.start != at:
                    continue
                ids += self._ids('<span class="') + self._ids(tag.word)
                if tag.head is not None:
                    ids += self._ids(attribute) + self._ids(str(tag.head))
                ids += self._ids('">')
            if word is not None:
                ids += self._ids(word)
        return ids

    def encode_tags(self, exercise: Exercise) -> tuple[list[int], int, list[int]]:
        """Token ids, where the answer starts, and the places of its tags' tokens."""
        ids, _, answer = self.encode(exercise)
        places: list[int] = []
        at = answer
        for index in range(len(exercise.words) + 1):
            size = sum(tag.end == index for tag in exercise.marked)
            for tag in exercise.marked:
                if tag.start != index:
                    continue
                size += len(self._ids('<span class="') + self._ids(tag.word) + self._ids('">'))
                if tag.head is not None:
                    size += len(self._ids('" head="') + self._ids(str(tag.head)))
            places += range(at, at + size)
            at += size
            if index < len(exercise.words):
                at += len(self._ids(exercise.words[index]))
        if at != len(ids) - 1:
            raise AssertionError("an exercise was encoded otherwise than its tags were counted")
        return ids, answer, places

    def choices(self, exercise: Exercise) -> tuple[int, ...]:
        """Every token of the tags that the answer may use."""
        parts = ['<span class="', '">', "</span>", *exercise.asked]
        heads = [tag.head for tag in exercise.shown if tag.head is not None]
        parts += ['" head="', *map(str, heads)] if heads else []
        return tuple(sorted({token for part in parts for token in self._ids(part)}))

    def encode(self, exercise: Exercise) -> _Coded:
        """Token ids, where the text starts, and where the answer starts."""
        rng = self._rng
        ids = [self._tokenizer.bos_token_id]
        request = (*rng.choice(_REQUESTS), ":", *exercise.request)
        for word in (*request, "\n", "###", "text", ":", "\n"):
            ids += self._ids(word)
        text = len(ids)
        ids += self._tagged(exercise.words, exercise.shown, '" id="')
        for word in ("\n", "###", "marked", ":", "\n"):
            ids += self._ids(word)
        answer = len(ids)
        ids += self._tagged(exercise.words, exercise.marked, '" head="')
        return [*ids, self._tokenizer.eos_token_id], text, answer


def new_model(plan: Plan, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A Llama of the plan's size with random weights by the plan's seed."""
    torch.manual_seed(plan.seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=plan.hidden,
            num_hidden_layers=plan.layers,
            num_attention_heads=plan.heads,
            num_key_value_heads=plan.heads,
            intermediate_size=plan.inner,
            tie_word_embeddings=True,
            max_position_embeddings=2048,
            rope_parameters={"rope_type": "default", "rope_theta": 1000000.0},
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def _batch(
    maker: ExerciseMaker, encoder: Encoder, plan: Plan, progress: float, pool: list[_Coded]
) -> list[_Coded]:
    """A batch of similar lengths, from a pool that is refilled as the curriculum goes on."""
    if not pool:
        longest = 10 if progress < 0.04 else 20 if progress < 0.10 else 45
        easy = 0.8 if progress < 0.04 else 0.3 if progress < 0.10 else 0.0
        drawn = [encoder.encode(maker.draw(longest=longest, easy=easy)) for _ in range(600)]
        pool += sorted((d for d in drawn if len(d[0]) <= 320), key=lambda d: len(d[0]))
    # A random run of neighbours in length keeps padding small without ordering the training.
    at = random.Random(len(pool) * 7919 + int(progress * 1e6)).randrange(len(pool))
    batch: list[_Coded] = []
    while pool and (not batch or (len(batch) + 1) * max(len(b[0]) for b in batch) <= plan.tokens):
        at = min(at, len(pool) - 1)
        batch.append(pool.pop(at))
    return batch


def _rate_scale(step: int, progress: float, plan: Plan) -> float:
    """Gentle while the primed copying settles, then up to ``later_rate``, then down to nothing.

    At the later rate from the start, the unigram statistics wash the primed heads away.
    """
    warm = min(1.0, (step + 1) / 20)
    ramp = min(1.0, max(0.0, (progress - 0.08) / 0.10))
    return warm * (1 + ramp * (plan.later_rate - 1)) * min(1.0, max(0.02, (1 - progress) / 0.4))


class Optimiser:
    """Muon for matrices, AdamW for norms and, at a rate of their own, for embeddings.

    Embeddings start with a meaning (``priming``), which the rate that norms want would wear off.
    """

    def __init__(
        self, model: LlamaForCausalLM, *, matrices: float, others: float, embeddings: float
    ) -> None:
        named = dict(model.named_parameters())
        of_embeddings = [p for name, p in named.items() if "embed" in name]
        of_norms = [p for p in named.values() if p.ndim != 2]
        of_matrices = [p for name, p in named.items() if p.ndim == 2 and "embed" not in name]
        self._model = model
        self._muon = torch.optim.Muon(of_matrices, lr=matrices, weight_decay=0.01, momentum=0.95)
        self._adamw = torch.optim.AdamW(
            [{"params": of_norms, "lr": others}, {"params": of_embeddings, "lr": embeddings}],
            betas=(0.9, 0.95),
            weight_decay=0.0,
        )
        self._groups = [*self._muon.param_groups, *self._adamw.param_groups]
        self._rates = [group["lr"] for group in self._groups]

    def step(self, scale: float) -> None:
        """One step at ``scale`` times the rates, by the gradients there (clipped to norm 1).

        They are dropped then.
        """
        for group, rate in zip(self._groups, self._rates, strict=True):
            group["lr"] = rate * scale
        torch.nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
        self._muon.step()  # type: ignore[no-untyped-call]
        self._adamw.step()
        self._model.zero_grad(set_to_none=True)


def _kept(count: int, share: float, chance: torch.Generator) -> torch.Tensor:
    """Weights 1/share for a random share of ``count`` positions, 0 for the rest: an unbiased loss.

    Most copied tokens teach nothing once copying works, and the vocabulary is what costs.
    """
    return (torch.rand(count, generator=chance) < share).float() / share


def train(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    maker: ExerciseMaker,
    *,
    plan: Plan,
    report: Callable[[str], None],
) -> int:
    """Train in place for ``plan.steps`` steps; returns the number of tokens seen."""
    rng = random.Random(plan.seed + 1)
    encoder = Encoder(tokenizer, rng)
    optimiser = Optimiser(
        model, matrices=plan.matrix_rate, others=plan.other_rate, embeddings=plan.embedding_rate
    )
    pad, eos = tokenizer.pad_token_id, tokenizer.eos_token_id
    pool: list[_Coded] = []
    seen, started = 0, time.monotonic()
    sums = {"loss": 0.0, "copies": 0.0, "tags": 0.0, "n": 0.0}
    opening = tokenizer.convert_tokens_to_ids('<span class="')
    structure = torch.tensor(
        [eos, *tokenizer.convert_tokens_to_ids(['<span class="', '">', "</span>", '" head="'])]
    )
    chance = torch.Generator().manual_seed(plan.seed)
    model.train()
    for step in range(plan.steps):
        progress = step / plan.steps
        batch = _batch(maker, encoder, plan, progress, pool)
        width = max(len(b[0]) for b in batch)
        ids = torch.full((len(batch), width), pad)
        weights = torch.zeros(len(batch), width)
        for i, (row, text, answer) in enumerate(batch):
            ids[i, : len(row)] = torch.tensor(row)
            weights[i, text:answer] = _kept(answer - text, plan.text_kept, chance) * (
                plan.text_weight
            )
            weights[i, answer : len(row)] = _kept(len(row) - answer, plan.copies_kept, chance)
            near = torch.isin(ids[i, answer : len(row)], structure)
            near[1:] |= near[:-1].clone()
            weights[i, answer : len(row)][near] = 1.0
        # Rows are padded on the right, so the causal mask alone keeps padding out.
        hidden = model.model(input_ids=ids).last_hidden_state
        wanted = weights[:, 1:] > 0
        targets, scale_of = ids[:, 1:][wanted], weights[:, 1:][wanted]
        logits = model.lm_head(hidden[:, :-1][wanted])
        losses = functional.cross_entropy(logits, targets, reduction="none")
        loss = (losses * scale_of).sum() / scale_of.sum()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step(_rate_scale(step, progress, plan))
        seen += sum(len(b[0]) for b in batch)
        copies = ~torch.isin(targets, structure) & (scale_of > 1 / plan.copies_kept - 0.1)
        for name, group in (("copies", copies), ("tags", targets == opening)):
            sums[name] += float(losses[group].mean().detach()) if bool(group.any()) else 0.0
        sums["loss"] += float(loss.detach())
        sums["n"] += 1
        if (step + 1) % 50 == 0:
            n = sums["n"]
            report(
                f"step {step + 1} tokens {seen / 1e6:.2f}M loss {sums['loss'] / n:.3f} "
                f"copies {sums['copies'] / n:.3f} openings {sums['tags'] / n:.3f} "
                f"seconds {time.monotonic() - started:.0f}"
            )
            sums = dict.fromkeys(sums, 0.0)
    return seen
