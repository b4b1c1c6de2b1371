"""Text in, sentence spans out: half-open character offsets, only white space between them."""

from __future__ import annotations

import re
from collections.abc import Iterator

_LINE = re.compile(r"[^\r\n\v\f\x85\u2028\u2029]+")
_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")


def sentence_spans(text: str) -> Iterator[tuple[int, int]]:
    """The sentences of ``text`` in order, as ``(start, end)`` without white space at either end."""
    for line in _LINE.finditer(text):
        start = line.start()
        for gap in [*_END.finditer(text, line.start(), line.end()), None]:
            stop = line.end() if gap is None else gap.start()
            piece = text[start:stop]
            if piece.strip():
                left = start + len(piece) - len(piece.lstrip())
                yield left, start + len(piece.rstrip())
            if gap is not None:
                start = gap.end()
