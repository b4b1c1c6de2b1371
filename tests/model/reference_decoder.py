"""Enforced decoding as its rules say it: token by token, nothing kept, every reading of the tokens.

Slow and independent of the decoder under test: no cache, no drafts, no trie. A state is the set of
things that the tokens so far can mean (a copy, or a tag begun); the best token of all that any of
them allows is taken, and those that it fits go on.
"""

from dataclasses import dataclass, replace

import regex
import torch

CLOSING = "</span>"


#: What belongs together: a sign with its marks and joined signs, and letters that have a case.
_UNIT = regex.compile(r"\p{L}(?:\p{M}|\p{L})*")
_CLUSTER = regex.compile(r"\X")


def within_word(text, at):
    """Whether a tag before ``text[at]`` would split a character or a word."""
    if any(m.start() < at < m.end() for m in _CLUSTER.finditer(text) if m.group() != "\r\n"):
        return True
    words = (m for m in _UNIT.finditer(text) if m.start() < at < m.end())
    letters = [sign for sign in text[at - 1 : at + 1] if not regex.match(r"\p{M}", sign)]
    return any(words) and all(sign.lower() != sign.upper() for sign in letters)


@dataclass(frozen=True)
class Meaning:
    text: str = ""
    position: int = 0
    start: int = 0  # where the draft begins
    at: int = 0
    open: tuple[str, ...] = ()
    fresh: tuple[str, ...] = ()
    tag: str | None = None  # the tag begun
    rest: tuple[int, ...] = ()  # its tokens still to come


class ReferenceDecoder:
    def __init__(self, model, tokenizer, *, depth=1, open_bias=0.0):
        self.model, self.tokenizer, self.depth, self.bias = model, tokenizer, depth, open_bias
        kind = repr(tokenizer.backend_tokenizer.pre_tokenizer)
        self.byte_level = "ByteLevel" in kind
        self.sentence_piece = "▁" in kind + repr(tokenizer.backend_tokenizer.normalizer)
        special = set(tokenizer.all_special_ids)
        self.texts = {}
        for token in range(len(tokenizer)):
            if token in special:
                continue
            if self.byte_level:
                text = tokenizer.decode([token], clean_up_tokenization_spaces=False)
                if text and "\ufffd" not in text:
                    self.texts[token] = text
            elif self.sentence_piece:
                text = tokenizer.convert_ids_to_tokens(token)
                if text and set(text) == {"▁"}:
                    self.texts[token] = " " * len(text)

    def tokens(self, text):
        encoded = self.tokenizer(
            text,
            add_special_tokens=False,
            split_special_tokens=True,
            return_offsets_mapping=self.tokenizer.is_fast,
        )
        return encoded["input_ids"], encoded["offset_mapping"]

    def decode(self, example):
        source = example.source
        last = len(source.rstrip())
        ids = self.tokenizer(example.prompt, split_special_tokens=True)["input_ids"]
        meanings = [Meaning()]
        leaning = False
        while True:
            if len(meanings) == 1 and self.ended(meanings[0], source, last):
                end = meanings[0]
                text = end.text + source[end.position :]
                words = text.rstrip()
                return words + CLOSING * len(end.open) + text[len(words) :]
            with torch.inference_mode():
                logits = self.model(torch.tensor([ids])).logits[0, -1].float()
            moves = [m for now in meanings for m in self.moves(now, example, last)]
            sure = all(now.tag not in (None, CLOSING) for now in meanings)
            values = {}
            for token, _, _ in moves:
                kinds = {kind for other, kind, _ in moves if other == token}
                chosen = (kinds == {"open"} and not sure) or kinds == {"room"}
                values[token] = float(logits[token]) + (self.bias if chosen and not leaning else 0)
            best = max(values, key=values.get)
            kinds = {kind for token, kind, _ in moves if token == best}
            if kinds == {"end"}:
                meanings = [now for now in meanings if now.tag is None]
                continue
            ids.append(best)
            meanings = [self.settle(then, source) for token, _, then in moves if token == best]
            if kinds == {"room"}:
                leaning = True
            elif not (leaning and len(meanings) > 1):
                leaning = False

    def ended(self, now, source, last):
        if now.tag is not None:
            return False
        return now.position >= last or now.at >= len(self.tokens(source[now.start :])[0])

    def moves(self, now, example, last):
        """(token, kind, what it then means): copies first."""
        source = example.source
        if now.tag is not None:
            kind = "close" if now.tag == CLOSING else "open"
            yield now.rest[0], kind, replace(now, rest=now.rest[1:])
            return
        if self.ended(now, source, last):
            yield self.tokenizer.eos_token_id, "end", now
            return
        ids, offsets = self.tokens(source[now.start :])
        begin, end = offsets[now.at]
        before = max([0, *(e for _, e in offsets[: now.at])])
        stop = max(now.position, now.start + max(before, end))
        yield ids[now.at], "copy", self.copy(now, source, stop, at=now.at + 1)
        if begin >= end or begin < before or within_word(source, now.start + begin):
            return
        may_open = len(now.open) < self.depth and now.position < last
        blank = now.position
        while blank < len(source) and source[blank].isspace():
            blank += 1
        for token, text in self.texts.items():
            to = now.position + len(text)
            fits = source.startswith(text, now.position) and token != ids[now.at] and to != stop
            if fits and (to < stop or to <= blank) and not within_word(source, to):
                if may_open:
                    yield token, "room", self.copy(now, source, to, at=None)
                elif now.open and not text.isspace():
                    yield token, "shorter", self.copy(now, source, to, at=None)
        if now.open and not now.fresh:
            rest = tuple(self.tokens(CLOSING)[0])
            yield rest[0], "close", replace(now, tag=CLOSING, rest=rest[1:])
        if may_open:
            for tag in dict.fromkeys(example.openings):
                if tag not in now.fresh:
                    rest = tuple(self.tokens(tag)[0])
                    yield rest[0], "open", replace(now, tag=tag, rest=rest[1:])

    def copy(self, now, source, stop, *, at):
        written = source[now.position : stop]
        return replace(
            now,
            text=now.text + written,
            position=stop,
            start=stop if at is None else now.start,
            at=at or 0,
            fresh=() if written.strip() else now.fresh,
        )

    def settle(self, now, source):
        """A tag whose last token was taken is written."""
        if now.tag is None or now.rest:
            return now
        position = now.position
        if now.tag == CLOSING:
            words = now.text.rstrip()
            text = words + CLOSING + now.text[len(words) :]
            opened, fresh = now.open[:-1], now.fresh
        else:
            while source[position].isspace():
                position += 1
            text = now.text + source[now.position : position] + now.tag
            opened, fresh = (*now.open, now.tag), (*now.fresh, now.tag)
        return Meaning(text, position, position, 0, opened, fresh)
