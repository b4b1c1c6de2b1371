"""What became of answers and of the spans in them: counts only, and they add up."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class ReadCounts:
    """What happened to the answers and to the spans in them; counts add up.

    Attributes:
        answers: answers read.
        unreadable: of them, those in which no word of the source could be found again.
        changed: of them, those whose text is not the source's, character by character.
        truncated: of them, those that end inside a tag.
        spans: tags opened.
        accepted: of them, grounded and allowed: what is predicted, before equal ones are merged.
        unclosed: of them, never closed.
        malformed: of them, not a complete tag.
        unknown_class: of them, with a class that the scheme does not have, or none.
        unasked: of them, of a type of the scheme that the prompt did not ask for.
        unknown_head: of them, with a number that the prompt did not show, or none.
        invalid_pair: of them, a modifier that its head may not take.
        changed_words: of them, with a word that the source does not have there.
        dropped_words: of them, with words that are not consecutive in the source.
        ambiguous: of them, with a word that may be one of several in the source.
        blank: of them, without any word.
        stray_closings: closing tags that close nothing; no span.
        repeated: accepted spans (and heads) that another has said already.
    """

    answers: int = 0
    unreadable: int = 0
    changed: int = 0
    truncated: int = 0
    spans: int = 0
    accepted: int = 0
    unclosed: int = 0
    malformed: int = 0
    unknown_class: int = 0
    unasked: int = 0
    unknown_head: int = 0
    invalid_pair: int = 0
    changed_words: int = 0
    dropped_words: int = 0
    ambiguous: int = 0
    blank: int = 0
    stray_closings: int = 0
    repeated: int = 0

    def __add__(self, other: ReadCounts) -> ReadCounts:
        return ReadCounts(
            *(getattr(self, f.name) + getattr(other, f.name) for f in fields(ReadCounts))
        )
