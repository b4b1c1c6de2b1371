"""What an enforced answer may be made of: the source's tokens in order, and whole tags.

Enters a source text and the tags that its answer may use; leaves, for a place in the text, the
tokens that copy on from there, and a trie of the tags' tokens. Offsets come from the tokenizer's
own offset mapping, so that a token is always known to be a certain stretch of the source.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fedmedlora.tasks.example import CLOSING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Draft:
    """The source from some character on, as tokens.

    Attributes:
        ids: tokens.
        ends: for each token, the character of the source at which it ends.
        clean: for each token, whether a tag may stand right before it: its start is the end of
            the one before, and it does not begin inside a character.
    """

    ids: tuple[int, ...]
    ends: tuple[int, ...]
    clean: tuple[bool, ...]


@dataclass(slots=True)
class TagNode:
    """A node of the trie of tags.

    Attributes:
        children: by token id.
        tag: the tag that is complete here.
        opens: some opening tag is complete here or below.
        closes: the closing tag is.
    """

    children: dict[int, TagNode] = field(default_factory=dict)
    tag: str | None = None
    opens: bool = False
    closes: bool = False


class SourceTokens:
    """Drafts of sources and tries of tags for one tokenizer, kept as long as it is.

    Raises:
        ValueError: the tokenizer has no offset mapping (it is not a fast one).
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        if not tokenizer.is_fast:
            raise ValueError("enforced copying needs a fast tokenizer, with offset mapping")
        self._tokenizer = tokenizer
        self._tags: dict[str, tuple[int, ...]] = {}
        self._tries: dict[tuple[str, ...], TagNode] = {}
        self._alone = self._stand_alone_tokens()
        self._longest = max((len(text) for text in self._alone), default=0)

    def _stand_alone_tokens(self) -> dict[str, int]:
        """Text -> token, for byte-level vocabularies, where any token may follow any other."""
        pre = str(getattr(self._tokenizer.backend_tokenizer, "pre_tokenizer", ""))
        if "ByteLevel" not in pre:
            return {}
        special = set(self._tokenizer.all_special_ids)
        texts: dict[str, int] = {}
        for token in sorted(set(self._tokenizer.get_vocab().values()) - special):
            text = self._tokenizer.decode([token], clean_up_tokenization_spaces=False)
            if text and "\ufffd" not in text:
                texts.setdefault(text, token)
        return texts

    def draft(self, source: str, start: int) -> Draft:
        """The tokens of ``source[start:]``, tokenised by themselves."""
        encoded = self._tokenizer(
            source[start:], add_special_tokens=False, return_offsets_mapping=True
        )
        offsets = encoded["offset_mapping"]
        ends = [start + end for _, end in offsets]
        clean = [
            begin < end and (i == 0 or begin >= offsets[i - 1][1])
            for i, (begin, end) in enumerate(offsets)
        ]
        return Draft(tuple(encoded["input_ids"]), tuple(ends), tuple(clean))

    def shorter(self, source: str, start: int, end: int) -> dict[int, int]:
        """Tokens that copy a beginning of ``source[start:end]``: token -> where it ends.

        They let a tag stand inside what the draft takes in one token.
        """
        found = {}
        for stop in range(start + 1, min(end, start + self._longest + 1)):
            token = self._alone.get(source[start:stop])
            if token is not None:
                found[token] = stop
        return found

    def tag(self, text: str) -> tuple[int, ...]:
        """The tokens of a tag, tokenised by itself."""
        ids = self._tags.get(text)
        if ids is None:
            ids = tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"])
            self._tags[text] = ids
        return ids

    def trie(self, openings: Sequence[str]) -> TagNode:
        """The trie of ``openings`` and the closing tag."""
        key = tuple(openings)
        if key not in self._tries:
            root = TagNode()
            for text in (*openings, CLOSING):
                node = root
                for token in self.tag(text):
                    node = node.children.setdefault(token, TagNode())
                    node.opens |= text != CLOSING
                    node.closes |= text == CLOSING
                node.tag = text
            self._tries[key] = root
        return self._tries[key]
