"""One example: a prompt, its gold answer, and all that reading any answer back needs."""

from __future__ import annotations

from dataclasses import dataclass

from fedmedlora.schema import Entity

CLOSING = "</span>"
"""The closing tag of every span; opening tags are listed by ``Example.openings``."""


@dataclass(frozen=True, slots=True)
class Example:
    """A question about one window of a document.

    Attributes:
        id: unique: ``document:task:start-end``, and ``:head`` where one head is marked.
        task: ``"entities"`` or ``"modifiers"``.
        document: id of the document.
        start: first character of the window in the document.
        end: one past the window's last character.
        prompt: everything before the answer, byte for byte the same in training and evaluation.
        source: what the answer must copy: ``document.text[start:end]``, where a ``<`` that could
            begin a span tag is replaced by ``‹``; of the same length.
        answer: the gold answer: ``source`` with tags; a plain copy if there is nothing to mark.
        openings: the opening tags that an answer may use, in the order of the prompt.
        heads: modifiers: the main entities shown in the prompt, in the order of their numbers;
            entities: empty.
    """

    id: str
    task: str
    document: str
    start: int
    end: int
    prompt: str
    source: str
    answer: str
    openings: tuple[str, ...]
    heads: tuple[Entity, ...]
