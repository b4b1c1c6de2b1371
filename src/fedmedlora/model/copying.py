"""What an enforced answer may be made of: the source's tokens in order, and whole tags.

Enters a source text and the tags that its answer may use; leaves, for a place in the text, the
tokens that copy on from there, and a trie of the tags' tokens. Offsets come from the tokenizer's
own offset mapping, so that a token is always known to be a certain stretch of the source.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fedmedlora.errors import BackboneError
from fedmedlora.model.encoding import encode_texts
from fedmedlora.tasks.example import CLOSING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_KEPT = 20_000  # drafts, and stretches, kept before all are forgotten
_BLOCK = 800  # characters of a source that are tokenised at once, at least; windows are shorter
_SPACE = "▁"  # SentencePiece's
_JOINER = "\u200d"  # of several signs into one, in emoji


@dataclass(frozen=True, slots=True)
class Draft:
    """A stretch of the source from some character on, as tokens.

    Attributes:
        stop: one past its last character; the rest of a long source is another draft.
        ids: tokens.
        ends: for each token, the character of the source at which it ends; never falling.
        clean: for each token, whether a tag may stand right before it: it begins where the one
            before ends, and neither inside a word of letters nor inside a character.
    """

    stop: int
    ids: tuple[int, ...]
    ends: tuple[int, ...]
    clean: tuple[bool, ...]


@dataclass(slots=True)
class TagNode:
    """A node of the trie of tags.

    Attributes:
        children: by token id.
        tag: the tag that is complete here.
        opens: the opening tags that are complete here or below.
        closes: whether the closing tag is.
    """

    children: dict[int, TagNode] = field(default_factory=dict)
    tag: str | None = None
    opens: frozenset[str] = frozenset()
    closes: bool = False


class SourceTokens:
    """Drafts of sources and tries of tags for one tokenizer.

    Raises:
        BackboneError: the tokenizer has no offset mapping (it is not a fast one).
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        if not tokenizer.is_fast:
            raise BackboneError(
                "enforced decoding needs a fast tokenizer, with offset mapping: save the backbone "
                "with its tokenizer.json, or set decoding.mode to free"
            )
        self._tokenizer = tokenizer
        self._tries: dict[tuple[str, ...], TagNode] = {}
        self._drafts: dict[tuple[str, int], Draft] = {}
        self._others: dict[tuple[str, int, int], dict[int, int]] = {}
        self._alone = _stand_alone_tokens(tokenizer)
        self._longest = max((len(text) for text in self._alone), default=0)

    def draft(self, source: str, start: int) -> Draft:
        """The tokens of ``source[start:]`` by themselves, as far as its block goes.

        Blocks end before white space, at places that depend on the source alone. Without them a
        source would be tokenised to its end after every tag.
        """
        key = (source, start)
        if key not in self._drafts:
            if len(self._drafts) >= _KEPT:
                self._drafts.clear()
            self._drafts[key] = self._read(source, start)
        return self._drafts[key]

    def _read(self, source: str, start: int) -> Draft:
        stop = (start // _BLOCK + 1) * _BLOCK
        while stop < len(source) and not (
            source[stop].isspace() and not source[stop - 1].isspace() and stop > start
        ):
            stop += 1
        [ids], [offsets] = encode_texts(self._tokenizer, [source[start:stop]])
        ends: list[int] = []
        clean: list[bool] = []
        last = 0
        for begin, end in offsets:
            clean.append(begin < end and begin >= last and not _in_word(source, start + begin))
            last = max(last, end)
            ends.append(start + last)
        return Draft(min(stop, len(source)), tuple(ids), tuple(ends), tuple(clean))

    def others(self, source: str, start: int, end: int) -> Mapping[int, int]:
        """Tokens that copy another stretch from ``start`` on than the draft's: token -> its end.

        They let a tag stand inside what the draft takes in one token, as the white space or the
        bracket before a word, and are what the text before a tag is made of by itself: shorter
        ones, and of white space longer ones.
        """
        if not self._alone:
            return {}
        key = (source, start, end)
        if key not in self._others:
            if len(self._others) >= _KEPT:
                self._others.clear()
            self._others[key] = self._read_others(source, start, end)
        return self._others[key]

    def _read_others(self, source: str, start: int, end: int) -> dict[int, int]:
        blank = start
        while blank < len(source) and source[blank].isspace():
            blank += 1
        found = {}
        for stop in range(start + 1, min(max(end - 1, blank), start + self._longest) + 1):
            token = self._alone.get(source[start:stop])
            if token is not None and stop != end and not _in_word(source, stop):
                found[token] = stop
        return found

    def trie(self, openings: Sequence[str]) -> TagNode:
        """The trie of ``openings`` and the closing tag, each tokenised by itself."""
        key = tuple(openings)
        if key not in self._tries:
            root = TagNode()
            texts = [*dict.fromkeys(openings), CLOSING]
            for text, ids in zip(texts, encode_texts(self._tokenizer, texts)[0], strict=True):
                node = root
                for token in ids:
                    node = node.children.setdefault(token, TagNode())
                    if text == CLOSING:
                        node.closes = True
                    else:
                        node.opens |= {text}
                node.tag = text
            self._tries[key] = root
        return self._tries[key]


def _in_word(text: str, at: int) -> bool:
    """Whether the place before ``text[at]`` is inside a character, or between two letters of
    scripts that part words.

    Small models like to mark a part of a word; annotators do not. Scripts without upper and lower
    case, such as Chinese, may be written without spaces, so there a tag may stand anywhere.
    """
    if not 0 < at < len(text):
        return False
    left, right = text[at - 1], text[at]
    if _is_mark(right) or _JOINER in (left, right):
        return True
    return right.lower() != right.upper() and (left.lower() != left.upper() or _is_mark(left))


def _is_mark(sign: str) -> bool:
    """Whether a sign belongs to the one before: accents, variation selectors, skin tones."""
    return unicodedata.category(sign)[0] == "M" or "\U0001f3fb" <= sign <= "\U0001f3ff"


def _stand_alone_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Text -> token, of the tokens that are this text wherever they stand.

    In a byte-level vocabulary these are all that are whole characters. With SentencePiece's mark of
    white space they are white space alone: what continues a word there is another token than what
    begins one. Other tokenizers have none: they do not encode white space, or not as tokens.
    """
    special = set(tokenizer.all_special_ids)
    backend = tokenizer.backend_tokenizer
    kind = f"{backend.pre_tokenizer!r}{backend.normalizer!r}"
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    texts: dict[str, int] = {}
    if "ByteLevel" in kind:
        table = _byte_of_sign()
        for token, number in vocabulary:
            if number in special or not all(sign in table for sign in token):
                continue
            try:
                text = bytes(table[sign] for sign in token).decode()
            except UnicodeDecodeError:
                continue
            texts.setdefault(text, number)
    elif _SPACE in kind:
        for token, number in vocabulary:
            if token and not token.strip(_SPACE):
                texts.setdefault(" " * len(token), number)
    return texts


def _byte_of_sign() -> dict[str, int]:
    """The printable signs that stand for the 256 bytes in byte-level vocabularies."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {chr(byte): byte for byte in printable}
    hidden = [byte for byte in range(256) if byte not in table.values()]
    return table | {chr(256 + i): byte for i, byte in enumerate(hidden)}
