"""Examples in, rows of token ids out; what the length limit cuts is counted, none vanishes.

An answer is tokenised piece by piece, tags apart from the text between them, so that the text
gives the same tokens wherever tags stand; decoding copies it in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fedmedlora.tasks.example import CLOSING, Example
from fedmedlora.tasks.markup import TAG, split_answer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Row:
    """One example as token ids.

    Attributes:
        example: the example's id.
        ids: prompt, answer, end-of-sequence.
        answer: index of the answer's first token; the loss is on ``ids[answer:]`` alone.
        tags: indices of the answer's tokens that belong to tags, not to the copied text.
        choices: every token of the tags that the answer may use, whether it does or not.
    """

    example: str
    ids: tuple[int, ...]
    answer: int
    tags: tuple[int, ...] = ()
    choices: tuple[int, ...] = ()

    @property
    def targets(self) -> int:
        """Number of tokens under the loss."""
        return len(self.ids) - self.answer

    def after(self, start: int) -> Row:
        """The row without its first ``start`` tokens, all of the prompt's but the last at most."""
        if not 0 <= start < self.answer:
            raise ValueError(f"a row whose answer begins at {self.answer} cannot begin at {start}")
        tags = tuple(place - start for place in self.tags)
        return replace(self, ids=self.ids[start:], answer=self.answer - start, tags=tags)


@dataclass(frozen=True, slots=True)
class EncodingReport:
    """What encoding did to the examples.

    Attributes:
        rows: examples that can be trained on.
        tokens: tokens of these rows.
        cut: ids of examples whose answer lost its end to the limit; they are trained on.
        dropped: ids of examples whose prompt alone fills the limit; they are not.
    """

    rows: int
    tokens: int
    cut: tuple[str, ...]
    dropped: tuple[str, ...]


def encode_texts(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]
) -> tuple[list[list[int]], list[list[tuple[int, int]]]]:
    """Token ids and character offsets of texts, each by itself, without special tokens.

    What looks like a special token in a note ("</s>") is text like any other. Offsets are there
    only if the tokenizer is a fast one.
    """
    if not texts:
        return [], []
    encoded = tokenizer(
        list(texts),
        add_special_tokens=False,
        split_special_tokens=True,
        return_offsets_mapping=tokenizer.is_fast,
        return_attention_mask=False,
        verbose=False,
    )
    return encoded["input_ids"], encoded.get("offset_mapping", [])


def prompt_ids(examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Token ids of the prompts, with the special tokens that the tokenizer puts in front."""
    if not examples:
        return []
    ids: list[list[int]] = tokenizer(
        [example.prompt for example in examples], split_special_tokens=True, verbose=False
    )["input_ids"]
    eos = tokenizer.eos_token_id
    # Some tokenizers end every text with end-of-sequence; a prompt does not end there.
    return [row[:-1] if len(row) > 1 and row[-1] == eos else row or [eos] for row in ids]


def encode_examples(
    examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, *, max_tokens: int
) -> tuple[list[Row], EncodingReport]:
    """Rows for training: prompt, answer and end-of-sequence, at most ``max_tokens`` long.

    Args:
        examples: with their gold answers.
        tokenizer: the backbone's.
        max_tokens: limit of a row, in tokens; the answer's end is cut first.
    """
    prompts = prompt_ids(examples, tokenizer)
    pieces = [split_answer(example.answer) for example in examples]
    usable = {opening for example in examples for opening in example.openings}
    flat = sorted({piece for row in pieces for piece in row} | usable | {CLOSING})
    ids_of = dict(zip(flat, encode_texts(tokenizer, flat)[0], strict=True))
    rows: list[Row] = []
    cut: list[str] = []
    dropped: list[str] = []
    for example, prompt, answer in zip(examples, prompts, pieces, strict=True):
        ids = list(prompt)
        tags: list[int] = []
        for piece in answer:
            if TAG.fullmatch(piece):
                tags += range(len(ids), len(ids) + len(ids_of[piece]))
            ids += ids_of[piece]
        ids.append(tokenizer.eos_token_id)
        if len(prompt) >= max_tokens:
            dropped.append(example.id)
            continue
        if len(ids) > max_tokens:
            cut.append(example.id)
            ids = ids[:max_tokens]
        kept = tuple(place for place in tags if place < len(ids))
        written = {ids[place] for place in kept}
        allowed = {token for tag in (*example.openings, CLOSING) for token in ids_of[tag]}
        choices = tuple(sorted(written | allowed))
        rows.append(Row(example.id, tuple(ids), len(prompt), kept, choices))
    tokens = sum(len(row.ids) for row in rows)
    return rows, EncodingReport(len(rows), tokens, tuple(cut), tuple(dropped))
