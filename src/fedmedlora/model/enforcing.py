"""One enforced answer: what may come next at every place, and what follows from a choice.

At every place an answer may copy on, open one of the allowed tags, or close the last one; of these
the most probable is taken (greedy). Enter the logits of tokens fed; leave the tokens to feed next
and, at the end, an answer whose text is the source's own, character by character.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedmedlora.model.copying import Draft, SourceTokens, TagNode
from fedmedlora.tasks.example import CLOSING

Logits = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Rules:
    """What holds for all answers.

    Attributes:
        tokens: of the tokenizer.
        draft: copied tokens checked at once.
        depth: how deep tags may nest.
        open_bias: added to the logit of beginning a tag.
        end: the end-of-sequence token.
    """

    tokens: SourceTokens
    draft: int
    depth: int
    open_bias: float
    end: int


@dataclass(frozen=True, slots=True)
class _Copy:
    """A token that copies the source up to ``end``; ``drafted`` if it is the draft's own."""

    end: int
    drafted: bool


@dataclass(frozen=True, slots=True)
class _Place:
    """A place at which a choice is due: before ``draft[at]``, the text written to ``position``."""

    draft: Draft
    at: int
    position: int


class EnforcedAnswer:
    """The state of one answer.

    Args:
        source: what it copies.
        openings: the opening tags that it may use.
        prompt: token ids; the last is fed first.
        rules: of all answers.
    """

    def __init__(
        self, source: str, openings: Sequence[str], prompt: Sequence[int], rules: Rules
    ) -> None:
        self._source, self._rules = source, rules
        self._last = len(source.rstrip())  # from here on nothing is left to mark
        self._root = rules.tokens.trie(openings)
        self._here = self._place(rules.tokens.draft(source, 0), 0, 0)
        self._pending = list(prompt[-1:])
        self._text = ""
        self._open: list[str] = []
        self._fresh = 0  # tags opened since something other than white space was copied
        self._leaning = False  # the last token was chosen because it makes room for a tag
        self._node: TagNode | None = None  # the tag begun, where its next token is to be chosen
        # Where the answer is if the token that seemed to begin a tag was a copy: before "<5 mg"
        # some tokenizers begin both with the same token, and only the next one tells.
        self._rival: _Place | None = None

    @property
    def done(self) -> bool:
        """Whether nothing is left to choose."""
        return self._node is None and self._ended(self._here)

    def finish(self) -> str:
        """The whole answer: what is open is closed, behind its last word."""
        text = self._text + self._source[self._here.position :]
        words = text.rstrip()
        return words + CLOSING * len(self._open) + text[len(words) :]

    def feed(self) -> list[int]:
        """What must be fed, then as much of the draft as is to be checked; nothing at the end."""
        if self.done:
            return []
        if self._node is not None and self._rival is None:
            return self._pending
        place = self._rival or self._here
        return [*self._pending, *place.draft.ids[place.at : place.at + self._ahead()]]

    def _ahead(self) -> int:
        """How many tokens of the draft are fed; fewer after a tag, to keep feeds equally long."""
        return max(self._rules.draft - len(self._pending), self._rules.draft // 2)

    def wanted(self) -> Iterator[int]:
        """Every token whose logit ``advance`` may ask for."""
        if self.done:
            return
        yield from self._root.children
        if self._node is not None:
            yield from self._node.children
            yield self._rules.end
            if self._rival is None:
                return
        place = self._rival or self._here
        stop = min(place.at + self._ahead() + 1, len(place.draft.ids))
        position = place.position
        for at in range(place.at, stop):
            yield place.draft.ids[at]
            end = place.draft.ends[at]
            if place.draft.clean[at]:
                yield from self._rules.tokens.others(self._source, position, end)
            position = end

    def drafted(self) -> tuple[int, Sequence[int]]:
        """Where in ``feed`` the draft begins, and its tokens that can be nothing but a copy."""
        if self.done or self._node is not None:
            return 0, ()
        place = self._here
        ids = place.draft.ids[place.at : place.at + self._ahead()]
        tags = self._root.children
        plain = next((i for i, token in enumerate(ids) if token in tags), len(ids))
        return len(self._pending), ids[:plain]

    def advance(self, logits: Logits, columns: Mapping[int, int], *, sure: int = 0) -> int:
        """Do what the logits say.

        Args:
            logits: (tokens fed, columns); a row says what may follow that token.
            columns: token -> column, of ``wanted``.
            sure: so many of the tokens of ``drafted`` are known to beat all that is ``wanted``,
                whatever bias it gets; they are copied without a look at the rules.

        Returns:
            how many of the fed tokens stay.
        """
        if self.done:
            return 0
        fed, ahead = len(self._pending), self._ahead()
        if self._node is not None and not self._go_on(self._node, logits[fed - 1], columns):
            return fed
        draft = self._here.draft
        accepted = self._copy_drafted(sure)
        while not self.done:
            token = self._choose(logits[fed - 1 + accepted], columns)
            if token is None:
                break
            if accepted == ahead or self._here.draft is not draft:
                # What follows the token accepted last was not asked for: its logits are still due.
                self._pending = [token]
                break
            accepted += 1
        return fed + accepted

    def _copy_drafted(self, count: int) -> int:
        """Copy the draft's next tokens, up to the source's last word; how many that were."""
        draft, at, end = self._here.draft, self._here.at, self._here.position
        stop = at + count
        while at < stop and end < self._last:
            end = draft.ends[at]
            at += 1
        copied = at - self._here.at
        if copied:
            self._copy(self._place(draft, at, end))
            self._leaning = False
        return copied

    def _choose(self, logits: Logits, columns: Mapping[int, int]) -> int | None:
        """Make one choice; the draft's next token if that is it, None if the draft ends here."""
        token, _ = self._best_at(self._here, logits, columns)
        copy, tag = self._copies(self._here).get(token), self._tags(self._here).get(token)
        if tag is not None and copy is not None:
            self._pending, self._node = [token], tag
            self._rival = self._after(self._here, copy)
        elif tag is not None:
            self._pending = []
            self._follow(token, tag)
        elif copy is not None:
            self._copy(self._after(self._here, copy))
            self._leaning = not copy.drafted
            if copy.drafted:
                return token
            self._pending = [token]
        return None

    def _go_on(self, node: TagNode, logits: Logits, columns: Mapping[int, int]) -> bool:
        """Choose the next token of the tag begun; True if it was no tag but a copy."""
        ways = self._ways(node, self._here.position, self._fresh)
        rival = self._rival
        copies = {} if rival is None or self._ended(rival) else self._copies(rival)
        # A choice that is sure to open gets the bias once, where something else was possible.
        closing = self._may_close(self._fresh)
        undecided = rival is not None or (closing and any(way.closes for way in ways.values()))
        bias = self._bias if undecided else 0.0
        token, score = _best_tag(
            logits, columns, tags=ways, taken=copies, closing=closing, bias=bias
        )
        if rival is not None:
            other, value = self._best_at(rival, logits, columns)
            if other == token and token in copies:
                self._pending, self._node = [token], ways[token]
                self._rival = self._after(rival, copies[token])
                return False
            self._node = self._rival = None
            if value >= score:
                self._copy(rival)
                return True
        self._pending = []
        self._follow(token, ways[token])
        return False

    def _best_at(
        self, place: _Place, logits: Logits, columns: Mapping[int, int]
    ) -> tuple[int, float]:
        """The best token at a place, and its score; end-of-sequence where the source ends."""
        if self._ended(place):
            return self._rules.end, float(logits[columns[self._rules.end]])
        best, score = -1, -np.inf
        room = self._bias if self._may_open(place.position) else 0.0
        copies = self._copies(place)
        for token, copy in copies.items():
            value = float(logits[columns[token]]) + (0.0 if copy.drafted else room)
            if value > score:
                best, score = token, value
        tag, value = _best_tag(
            logits,
            columns,
            tags=self._tags(place),
            taken=copies,
            closing=self._may_close(self._fresh_at(place)),
            bias=self._bias,
        )
        return (tag, value) if value > score else (best, score)

    @property
    def _bias(self) -> float:
        return 0.0 if self._leaning else self._rules.open_bias

    def _ended(self, place: _Place) -> bool:
        return place.at >= len(place.draft.ids) or place.position >= self._last

    def _may_open(self, position: int) -> bool:
        return len(self._open) < self._rules.depth and position < self._last

    def _may_close(self, fresh: int) -> bool:
        return bool(self._open) and not fresh

    def _copies(self, place: _Place) -> dict[int, _Copy]:
        draft, at = place.draft, place.at
        copies = {draft.ids[at]: _Copy(draft.ends[at], drafted=True)}
        may_open = self._may_open(place.position)
        if not draft.clean[at] or not (may_open or self._open):
            return copies
        others = self._rules.tokens.others(self._source, place.position, draft.ends[at])
        for token, end in others.items():
            # Inside a tag that cannot hold another, white space makes room for nothing.
            if may_open or not self._source[place.position : end].isspace():
                copies.setdefault(token, _Copy(end, drafted=False))
        return copies

    def _tags(self, place: _Place) -> dict[int, TagNode]:
        if not place.draft.clean[place.at]:
            return {}
        return self._ways(self._root, place.position, self._fresh_at(place))

    def _fresh_at(self, place: _Place) -> int:
        return 0 if self._source[self._here.position : place.position].strip() else self._fresh

    def _ways(self, node: TagNode, position: int, fresh: int) -> dict[int, TagNode]:
        """The children of ``node`` that lead to a tag that may stand here."""
        opening, closing = self._may_open(position), self._may_close(fresh)
        if not opening and not closing:
            return {}
        # The same tag twice around the same words would say nothing more.
        barred = frozenset(self._open[len(self._open) - fresh :])
        return {
            token: child
            for token, child in node.children.items()
            if (opening and (child.opens - barred if barred else child.opens))
            or (closing and child.closes)
        }

    def _after(self, place: _Place, copy: _Copy) -> _Place:
        if copy.drafted:
            return self._place(place.draft, place.at + 1, copy.end)
        return self._place(self._rules.tokens.draft(self._source, copy.end), 0, copy.end)

    def _place(self, draft: Draft, at: int, position: int) -> _Place:
        while at >= len(draft.ids) and draft.stop < len(self._source):
            draft, at = self._rules.tokens.draft(self._source, draft.stop), 0
        return _Place(draft, at, position)

    def _copy(self, place: _Place) -> None:
        written = self._source[self._here.position : place.position]
        self._text += written
        if written.strip():
            self._fresh = 0
        self._here = place

    def _follow(self, token: int, node: TagNode) -> None:
        """Enter a tag by ``token``; go on while only one way leads on."""
        self._pending.append(token)
        while node.tag is None:
            ways = self._ways(node, self._here.position, self._fresh)
            if len(ways) > 1:
                self._node = node
                return
            [(token, node)] = ways.items()
            self._pending.append(token)
        self._node, self._leaning = None, False
        position = self._here.position
        if node.tag == CLOSING:
            words = self._text.rstrip()
            self._text = words + CLOSING + self._text[len(words) :]
            self._open.pop()
        else:
            while self._source[position].isspace():
                position += 1
            self._text += self._source[self._here.position : position] + node.tag
            self._open.append(node.tag)
            self._fresh += 1
        self._here = self._place(self._rules.tokens.draft(self._source, position), 0, position)


def _best_tag(
    logits: Logits,
    columns: Mapping[int, int],
    *,
    tags: Mapping[int, TagNode],
    taken: Collection[int],
    closing: bool,
    bias: float,
) -> tuple[int, float]:
    """The best token towards a tag, and its score: with the bias if it is sure to open one."""
    best, score = -1, -np.inf
    for token, node in tags.items():
        value = float(logits[columns[token]])
        if token not in taken and not (closing and node.closes):
            value += bias
        if value > score:
            best, score = token, value
    return best, score
