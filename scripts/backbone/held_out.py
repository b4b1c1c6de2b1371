"""Words in, the terms among them that the synthetic test notes hold out."""

from __future__ import annotations

import re
from collections.abc import Sequence

from fedmedlora.corpus.synthetic import held_out_vocabulary

_TERM_WORD = re.compile(r"\w+")
Term = tuple[str, ...]


class HeldOutTerms:
    """Finds terms as runs of words; punctuation is passed over."""

    def __init__(self) -> None:
        self.terms: set[Term] = {tuple(_TERM_WORD.findall(t)) for t in held_out_vocabulary()}
        self._by_first: dict[str, list[Term]] = {}
        for term in sorted(self.terms):
            self._by_first.setdefault(term[0], []).append(term)

    def found_in(self, words: Sequence[str]) -> set[Term]:
        """The terms that stand in a text."""
        spoken = [word for word in words if _TERM_WORD.match(word)]
        return {
            term
            for at, word in enumerate(spoken)
            for term in self._by_first.get(word, ())
            if tuple(spoken[at : at + len(term)]) == term
        }
