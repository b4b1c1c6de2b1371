"""Examples in, rows of token ids with BIO labels out; and spans back to marked-up answers.

A tagger is asked what the language model is asked: one window of a text, for modifiers with one
main entity marked in it (``heads="marked"``). What it says is written as an answer of the same
form, so answers of both are kept, read and scored alike. No torch here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from fedmedlora.errors import BackboneError, SchemaError
from fedmedlora.model.bio import IGNORED, OUTSIDE, Span, outermost, read_tags, tag_spans
from fedmedlora.schema import Scheme
from fedmedlora.tasks.answer import read_answer
from fedmedlora.tasks.example import Example
from fedmedlora.tasks.markup import Mark, opening_tag, write_marks
from fedmedlora.tasks.parse import parse_opening
from fedmedlora.tasks.settings import TASKS, TaskSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def tagger_tasks(window_words: int, names: tuple[str, ...] = TASKS) -> TaskSettings:
    """How documents become the examples of a tagger: one head marked at a time."""
    return TaskSettings(tasks=names, window_words=window_words, heads="marked", prompt="compact")


@dataclass(frozen=True, slots=True)
class TagRow:
    """One example as a tagger sees it.

    Attributes:
        example: the example's id.
        ids: tokens, with the tokenizer's special ones and, around a head, the two markers.
        offsets: of each token, into the example's source; (0, 0) for those that stand for no text.
        labels: of each token, an index into ``label_names``; ``IGNORED`` where it stands for none.
        allowed: the labels that the example asks for, sorted, ``OUTSIDE`` among them. All others
            are out of the question: in training they get no probability and no gradient.
    """

    example: str
    ids: tuple[int, ...]
    offsets: tuple[tuple[int, int], ...]
    labels: tuple[int, ...]
    allowed: tuple[int, ...]

    @property
    def targets(self) -> int:
        """Number of tokens under the loss."""
        return sum(label != IGNORED for label in self.labels)


@dataclass(frozen=True, slots=True)
class TagReport:
    """What encoding did to the examples; reports add up.

    Attributes:
        rows: rows made, one an example.
        tokens: tokens of these rows.
        spans: gold spans of the examples.
        overlapping: of them, left out because they overlap a longer one (or an equal, earlier one):
            BIO labels cannot say both.
        inexact: of them, said with other ends because one lies inside a token.
        cut: rows that lost their end to the limit of tokens.
        spans_cut: gold spans that went with it.
        heads_cut: rows whose head lies behind the cut: they ask for nothing.
    """

    rows: int = 0
    tokens: int = 0
    spans: int = 0
    overlapping: int = 0
    inexact: int = 0
    cut: int = 0
    spans_cut: int = 0
    heads_cut: int = 0

    def __add__(self, other: TagReport) -> TagReport:
        return TagReport(
            *(getattr(self, f.name) + getattr(other, f.name) for f in fields(TagReport))
        )


def write_answer(example: Example, spans: Iterable[Span]) -> str:
    """The answer that says ``spans``: the example's source with tags; reading it gives them back.

    Args:
        example: of a type that ``encode_rows`` takes.
        spans: disjoint, of types that it asks for.
    """
    marks = [Mark(span.start, span.end, opening_tag(span.type)) for span in sorted(spans)]
    return write_marks(example.source, marks)


def encode_rows(
    examples: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
    *,
    scheme: Scheme,
    markers: tuple[int, int],
    max_tokens: int,
) -> tuple[list[TagRow], TagReport]:
    """One row an example, in their order, with the gold labels of its answer.

    Args:
        examples: entities, or modifiers with ``heads="marked"``; the answer may be a plain copy.
        tokenizer: a fast one.
        scheme: as the examples were built with.
        markers: ids of the tokens before and after a head.
        max_tokens: limit of a row with special tokens and markers; its end is cut.

    Raises:
        SchemaError: an example with several heads.
        BackboneError: the tokenizer gives no offsets.
    """
    if not tokenizer.is_fast:
        raise BackboneError(
            f"{type(tokenizer).__name__} gives no character offsets: a tagger needs an encoder "
            "with a fast tokenizer (a folder with tokenizer.json)"
        )
    if not examples:
        return [], TagReport()
    encoded = tokenizer(
        [example.source for example in examples],
        split_special_tokens=True,
        return_offsets_mapping=True,
        return_attention_mask=False,
        verbose=False,
    )
    rows: list[TagRow] = []
    report = TagReport()
    coded = zip(examples, encoded["input_ids"], encoded["offset_mapping"], strict=True)
    for example, ids, offsets in coded:
        tokens = [
            (token, _trimmed(example.source, start, end))
            for token, (start, end) in zip(ids, offsets, strict=True)
        ]
        row, told = _row(example, tokens, scheme=scheme, markers=markers, max_tokens=max_tokens)
        rows.append(row)
        report += told
    return rows, report


#: Token ids with offsets.
_Tokens = list[tuple[int, tuple[int, int]]]


def _row(
    example: Example,
    tokens: _Tokens,
    *,
    scheme: Scheme,
    markers: tuple[int, int],
    max_tokens: int,
) -> tuple[TagRow, TagReport]:
    """One example's row, and what it could not hold."""
    kept = _cut(tokens, max_tokens - 2 * len(example.heads))
    cut = len(kept) < len(tokens)
    reach = max((end for _, (_, end) in kept), default=0) if cut else len(example.source)
    asked = _asked(example, scheme)
    visible = True
    if example.heads:
        head = example.heads[0]
        start, end = head.start - example.start, head.end - example.start
        visible = end <= reach
        kept = _mark_head(kept, start, end, markers) if visible else kept
    offsets = [place for _, place in kept]
    said, _ = read_answer(example, example.answer, scheme=scheme)
    gold = [Span(one.start - example.start, one.end - example.start, one.type) for one in said]
    spans = outermost(gold)
    whole = [span for span in spans if visible and span.end <= reach]
    labels = tag_spans(whole, offsets, scheme.types)
    exact = set(read_tags(labels, offsets, scheme.types))
    row = TagRow(
        example=example.id,
        ids=tuple(token for token, _ in kept),
        offsets=tuple(offsets),
        labels=tuple(labels),
        allowed=asked if visible else (OUTSIDE,),
    )
    return row, TagReport(
        rows=1,
        tokens=len(kept),
        spans=len(gold),
        overlapping=len(gold) - len(spans),
        inexact=sum(span not in exact for span in whole),
        cut=cut,
        spans_cut=len(spans) - len(whole),
        heads_cut=not visible,
    )


def _asked(example: Example, scheme: Scheme) -> tuple[int, ...]:
    """The labels that an example asks for."""
    asked = [parse_opening(tag) for tag in example.openings]
    if len(example.heads) > 1 or any(number is not None for _, number in asked):
        raise SchemaError(
            f"example {example.id!r} has numbered heads: a tagger is asked about one head at a "
            'time, so build its examples with heads="marked"'
        )
    numbers = [scheme.types.index(name) for name, _ in asked if name in scheme.types]
    return (OUTSIDE, *sorted(2 * number + part for number in numbers for part in (1, 2)))


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """A token's offsets without white space at either end, which some tokenizers put there."""
    while start < end and text[start].isspace():
        start += 1
    while start < end and text[end - 1].isspace():
        end -= 1
    return start, end


def _cut(tokens: _Tokens, limit: int) -> _Tokens:
    """At most ``limit`` tokens: text is cut at its end, special tokens behind it stay."""
    if len(tokens) <= limit:
        return tokens
    tail = tokens[_text_end(tokens) :]
    return tokens[: max(0, limit - len(tail))] + tail


def _mark_head(tokens: _Tokens, start: int, end: int, markers: tuple[int, int]) -> _Tokens:
    """Tokens with a marker before the first and one behind the last that the head touches."""
    text = [(place, s, e) for place, (_, (s, e)) in enumerate(tokens) if s < e]
    touched = [place for place, s, e in text if s < end and start < e]
    if touched:
        first, last = touched[0], touched[-1] + 1
    else:  # characters that the tokenizer drops: the markers stand where they would
        first = last = next((place for place, s, _ in text if s >= end), _text_end(tokens))
    before, after = ((marker, (0, 0)) for marker in markers)
    return [*tokens[:first], before, *tokens[first:last], after, *tokens[last:]]


def _text_end(tokens: _Tokens) -> int:
    """The place behind the last token that stands for text."""
    return max((place + 1 for place, (_, (s, e)) in enumerate(tokens) if s < e), default=0)
