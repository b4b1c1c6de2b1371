"""IOB, BIO, BIOES and BILOU files in: ``token<TAB>tag`` lines, sentences parted by blank lines.

The format holds no text, so one is rebuilt: tokens joined by one space, sentences by a line break.
Offsets point into that text. The rules are in docs/formats.md.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fedmedlora.corpus.account import ReadReport
from fedmedlora.corpus.apply import map_documents
from fedmedlora.corpus.files import read_text
from fedmedlora.corpus.mapping import TypeMapping
from fedmedlora.corpus.source import SourceDocument, SourceSpan
from fedmedlora.errors import DataError
from fedmedlora.schema import DEFAULT_SCHEME, Document, Scheme

#: What a blank line parts.
BlankLine = Literal["sentence", "document"]

_TAG = re.compile(r"O|([BIESLU])-(\S+)")
_DOCUMENT_START = "-DOCSTART-"


def read_iob(
    path: Path | str,
    mapping: TypeMapping | None = None,
    *,
    scheme: Scheme = DEFAULT_SCHEME,
    blank_line: BlankLine = "sentence",
) -> tuple[list[Document], ReadReport]:
    """The documents of a tagged file, and the account of what was read, mapped and skipped.

    Args:
        path: the file.
        mapping: from the source's types to the scheme; ``None`` keeps the types.
        scheme: what the mapping maps to.
        blank_line: "sentence": documents start at ``-DOCSTART-`` lines, or the whole file is one;
            "document": each block of lines is one.

    Raises:
        DataError: with file and line: not UTF-8, a line that is not token and tag, a tag of no
            known form, a document without tokens, or no document at all.
    """
    return map_documents(read_iob_sources(path, blank_line=blank_line), mapping, scheme=scheme)


def read_iob_sources(
    path: Path | str, *, blank_line: BlankLine = "sentence"
) -> list[SourceDocument]:
    """As ``read_iob``, in the file's own types.

    Raises:
        DataError: as ``read_iob``.
    """
    path = Path(path)
    blocks: list[_Block] = [_Block()]
    marked = False
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        line = line.removesuffix("\r")
        if line.startswith(_DOCUMENT_START):
            if marked or not blocks[-1].empty:
                _refuse_empty(blocks[-1], path=path, line=number)
                blocks.append(_Block())
            marked = True
        elif line.strip():
            blocks[-1].sentences[-1].append(_token(line, path=path, line=number))
        elif blocks[-1].sentences[-1]:
            if blank_line == "document":
                blocks.append(_Block())
            else:
                blocks[-1].sentences.append([])
    if blocks[-1].empty and len(blocks) > 1 and not marked:
        blocks.pop()
    if blocks[-1].empty:
        raise DataError("no token in it, or in its last document", path=path)
    ids = [f"{path.stem}-{n}" for n in range(1, len(blocks) + 1)]
    if not marked and blank_line == "sentence":
        ids = [path.stem]
    return [_source(name, block.sentences) for name, block in zip(ids, blocks, strict=True)]


@dataclass
class _Block:
    """The sentences of one document: (token, tag's letter, type) each."""

    sentences: list[list[tuple[str, str, str]]] = field(default_factory=lambda: [[]])

    @property
    def empty(self) -> bool:
        return not any(self.sentences)


def tag_parts(tag: str) -> tuple[str, str] | None:
    """A tag's letter and type ("O" has the type ""); ``None`` where it is no tag."""
    match = _TAG.fullmatch(tag)
    if match is None:
        return None
    return (match[1], match[2]) if match[1] else ("O", "")


def tagged_spans(tags: Sequence[tuple[str, str]]) -> tuple[list[tuple[str, int, int]], int]:
    """The spans that one sentence's tags mean.

    B, S and U start a span, E, L, S and U end it. I, E and L go on with an open span of their type;
    where there is none they start one, which is IOB1's way and else a repair.

    Args:
        tags: letter and type of each token.

    Returns:
        ((type, first token, one past the last token) of each span, how many I, E or L started one).
    """
    spans: list[tuple[str, int, int]] = []
    started = 0
    open_span: tuple[str, int] | None = None
    for index, (letter, kind) in enumerate(tags):
        goes_on = letter in "IEL" and open_span is not None and open_span[0] == kind
        if not goes_on:
            if open_span is not None:
                spans.append((*open_span, index))
            open_span = None if letter == "O" else (kind, index)
            started += letter in "IEL"
        if letter in "ESLU" and open_span is not None:
            spans.append((*open_span, index + 1))
            open_span = None
    if open_span is not None:
        spans.append((*open_span, len(tags)))
    return spans, started


def _token(text: str, *, path: Path, line: int) -> tuple[str, str, str]:
    cells = text.split("\t")
    if len(cells) != 2 or not cells[0]:
        raise DataError(
            f"{len(cells)} cells parted by tabs, where token<TAB>tag must be 2",
            path=path,
            line=line,
        )
    parts = tag_parts(cells[1].strip())
    if parts is None:
        raise DataError(
            "the second cell is no tag: O, or one of B I E S L U, a '-' and a type",
            path=path,
            line=line,
        )
    return (cells[0], *parts)


def _refuse_empty(block: _Block, *, path: Path, line: int) -> None:
    if block.empty:
        raise DataError("the document before this line has no tokens", path=path, line=line)


def _source(name: str, sentences: Sequence[Sequence[tuple[str, str, str]]]) -> SourceDocument:
    lines: list[str] = []
    spans: list[SourceSpan] = []
    started = 0
    offset = 0
    for sentence in filter(None, sentences):
        starts: list[int] = []
        at = offset
        for token, _, _ in sentence:
            starts.append(at)
            at += len(token) + 1
        found, repairs = tagged_spans([(letter, kind) for _, letter, kind in sentence])
        started += repairs
        for kind, first, end in found:
            place = (starts[first], starts[end - 1] + len(sentence[end - 1][0]))
            spans.append(SourceSpan(f"T{len(spans) + 1}", kind, (place,)))
        lines.append(" ".join(token for token, _, _ in sentence))
        offset = at
    repaired = Counter({"I, E or L that starts a span": started}) if started else Counter[str]()
    return SourceDocument(
        id=name, text="\n".join(lines), spans=tuple(spans), extras={"repairs": repaired}
    )
