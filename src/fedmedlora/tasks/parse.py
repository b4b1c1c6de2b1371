"""One answer in, its text without tags and its tags out: never fails, whatever the model wrote."""

from __future__ import annotations

import re
from dataclasses import dataclass

from fedmedlora.tasks.markup import TAG

#: A tag that lacks its ``>``, with the attributes that are still readable as such.
_BROKEN = r"""<\s*(?P<broken_close>/\s*)?span\b(?:\s+\w+\s*=\s*(?:"[^"<>]*"|'[^'<>]*'))*\s*"""
_ANY_TAG = re.compile(f"(?P<tag>{TAG.pattern})|{_BROKEN}", re.IGNORECASE)
_ATTRIBUTE = re.compile(r"""(\w+)\s*=\s*(?:["'“”‘’]([^"'“”‘’]*)["'“”‘’]|([^\s"'“”‘’]+))""")
#: What a tag says is read from this many characters of it; no honest tag is longer.
_ATTRIBUTE_CHARACTERS = 200
_TRUNCATED = re.compile(r"<\s*(?:/\s*)?(?:s|sp|spa|span\b[^<>]*)?\Z", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class TagSpan:
    """A closed span of an answer.

    Attributes:
        start: first character, in the answer's text without tags.
        end: one past the last.
        type: the class as written, or None.
        head: the head attribute as written, or None.
    """

    start: int
    end: int
    type: str | None
    head: str | None


@dataclass(frozen=True, slots=True)
class Parsed:
    """An answer taken apart.

    Attributes:
        text: the answer without tags.
        spans: the closed spans, in the order of their opening tags.
        unclosed: opening tags that nothing closes.
        malformed: opening tags that are not complete.
        stray: closing tags that close nothing.
        truncated: whether the answer ends inside a tag.
    """

    text: str
    spans: tuple[TagSpan, ...]
    unclosed: int
    malformed: int
    stray: int
    truncated: bool


def parse_opening(tag: str) -> tuple[str | None, str | None]:
    """Class and head of a complete opening tag, None where it says nothing."""
    found = TAG.fullmatch(tag)
    return _attributes(found["attributes"]) if found else (None, None)


def parse_answer(answer: str, *, source: str) -> Parsed:
    """Take ``answer`` apart; a closing tag closes the last span that is open.

    ``source`` is what the answer should copy: if it ends with what looks like the beginning of a
    tag, that is text.
    """
    parsed = _parse(answer, truncated=False)
    tail = None if parsed.text == source else _TRUNCATED.search(answer)
    if tail is None or source.endswith(tail.group()):
        return parsed
    return _parse(answer[: tail.start()], truncated=True)


def _parse(answer: str, *, truncated: bool) -> Parsed:
    pieces: list[str] = []
    length = position = malformed = stray = 0
    opened: list[tuple[int, re.Match[str]]] = []
    closed: list[tuple[int, int, re.Match[str]]] = []
    for tag in _ANY_TAG.finditer(answer):
        pieces.append(answer[position : tag.start()])
        length += tag.start() - position
        position = tag.end()
        if tag["close"] is None and tag["broken_close"] is None:
            opened.append((length, tag))
        elif not opened:
            stray += 1
        else:
            start, opening = opened.pop()
            if opening["tag"] is None:
                malformed += 1
            else:
                closed.append((start, length, opening))
    pieces.append(answer[position:])
    malformed += sum(tag["tag"] is None for _, tag in opened)
    closed.sort(key=lambda span: span[2].start())
    return Parsed(
        text="".join(pieces),
        spans=tuple(
            TagSpan(start, end, *_attributes(tag["attributes"])) for start, end, tag in closed
        ),
        unclosed=sum(tag["tag"] is not None for _, tag in opened),
        malformed=malformed,
        stray=stray,
        truncated=truncated,
    )


def _attributes(written: str) -> tuple[str | None, str | None]:
    found: dict[str, str] = {}
    for name, quoted, bare in _ATTRIBUTE.findall(written[:_ATTRIBUTE_CHARACTERS]):
        found.setdefault(name.casefold(), (quoted or bare).strip())
    return found.get("class"), found.get("head")
