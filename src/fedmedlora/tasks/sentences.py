"""Text in, sentence spans out: half-open character offsets, only white space between them.

A line break or a wide gap always ends a sentence; within a line the boundaries are sentencex's,
less those after a clinical abbreviation or a list number (docs/decisions/0002-sentences.md).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

from sentencex import get_sentence_boundaries

#: The splitter is quadratic in unpaired quotes: it gets no more characters than this at a time.
CHUNK_CHARACTERS = 5_000

#: White space this wide parts the columns of a line: there, too, a sentence ends.
COLUMN_GAP = 24

_LINE_BREAK = re.compile(rf"[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]|\s{{{COLUMN_GAP},}}")
_SURROGATE = re.compile("[\ud800-\udfff]")
_LIST_NUMBER = re.compile(r"\(?(?:\d{1,3}|[A-Za-z]|[ivxIVX]{1,4})[.)]")
#: Abbreviations of notes that sentencex breaks after although a dose, a count or a lower-case word
#: follows. Words that just as often end a telegraphic sentence (neg, pos, lab) are not among them.
_ABBREVIATIONS = (
    "approx appt avg cap caps conc cont dept diff dx esp fig figs fx gtt hosp hr hrs hx incl inf "
    "inj max mcg min mins misc mo mos no nos oint plt plts pt pts ref refs resp rx sol soln susp "
    "sx tab tabs tbsp temp tsp tx vag vit vol vs wk wks yr yrs"
)
#: What comes before a wrong boundary: one of these, or letters with dots (p.o., q.4-6h.).
_ABBREVIATED = re.compile(
    rf"(?<![\w.])(?:(?:{'|'.join(_ABBREVIATIONS.split())})|[a-z]\.\S{{0,12}})\.\Z", re.IGNORECASE
)


def sentence_spans(text: str) -> Iterator[tuple[int, int]]:
    """The sentences of ``text`` in order, as ``(start, end)`` without white space at either end.

    Every character that is not white space lies in exactly one of them.
    """
    start = 0
    while start < len(text):
        found = _LINE_BREAK.search(text, start)
        end = found.start() if found else len(text)
        yield from _line_spans(text[start:end], start)
        start = found.end() if found else len(text)


def _line_spans(line: str, offset: int) -> Iterator[tuple[int, int]]:
    for left, right in pairwise([0, *_boundaries(line), len(line)]):
        piece = line[left:right].strip()
        if piece:
            start = offset + line.index(piece[0], left)
            yield start, start + len(piece)


def _boundaries(line: str) -> list[int]:
    """Offsets within ``line``, increasing, at which a new sentence begins."""
    safe = _SURROGATE.sub("?", line)
    cuts: list[int] = []
    start = 0
    while start < len(safe):
        chunk = safe[start : start + CHUNK_CHARACTERS]
        found = [start + b["end_index"] for b in get_sentence_boundaries("en", chunk)]
        if start + len(chunk) == len(safe):
            cuts += found[:-1]
            break
        # The chunk's end is no boundary: what the last sentence begins goes into the next chunk,
        # and where there is none but that, the chunk is cut at white space.
        blank = max(chunk.rfind(" "), chunk.rfind("\t"))
        cuts += found[:-1]
        start = found[-2] if len(found) > 1 else start + (blank + 1 or len(chunk))
    return _kept(line, cuts)


def _kept(line: str, cuts: list[int]) -> list[int]:
    """Those of ``cuts`` that follow neither an abbreviation nor a list number."""
    kept = [0]
    for cut in cuts:
        before = line[max(kept[-1], cut - 40) : cut].strip()
        after = line[cut : cut + 1]
        abbreviated = (after.islower() or after.isdigit()) and _ABBREVIATED.search(before)
        if not abbreviated and not _LIST_NUMBER.fullmatch(before):
            kept.append(cut)
    return kept[1:]
