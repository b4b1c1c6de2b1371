"""The NER JSON of the paper's code in: a list of {tokens, tags, html}, one sentence each.

Each record becomes a document. Where ``html`` is filled it is the annotation, since that code's
own converter tags only the first token of an entity; else the tags are. The rules are in
docs/formats.md.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

from fedmedlora.corpus.account import ReadReport
from fedmedlora.corpus.apply import map_documents
from fedmedlora.corpus.files import read_text, storable
from fedmedlora.corpus.iob import tag_parts, tagged_spans
from fedmedlora.corpus.mapping import TypeMapping
from fedmedlora.corpus.source import SourceDocument, SourceSpan
from fedmedlora.errors import DataError
from fedmedlora.schema import DEFAULT_SCHEME, Document, Scheme

_MARK = re.compile(r"""<span class=(["'])([^"'<>]+)\1>|</span>""")

#: A type and its place, [start, end).
_Place = tuple[str, int, int]


def read_paper_json(
    path: Path | str, mapping: TypeMapping | None = None, *, scheme: Scheme = DEFAULT_SCHEME
) -> tuple[list[Document], ReadReport]:
    """The documents of such a file, and the account of what was read, mapped and skipped.

    Args:
        path: the file.
        mapping: from the source's types to the scheme; ``None`` keeps the types.
        scheme: what the mapping maps to.

    Raises:
        DataError: with file and record: not JSON, a missing key, a value of the wrong type, tokens
            and tags of different number, tokens that are not the html's text, or open markup.
    """
    return map_documents(read_paper_json_sources(path), mapping, scheme=scheme)


def read_paper_json_sources(path: Path | str) -> list[SourceDocument]:
    """As ``read_paper_json``, in the file's own types.

    Raises:
        DataError: as ``read_paper_json``.
    """
    path = Path(path)
    try:
        records = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise DataError(f"not JSON: {error.msg}", path=path, line=error.lineno) from None
    except (ValueError, RecursionError):
        raise DataError("not JSON that can be read", path=path) from None
    if not isinstance(records, list):
        raise DataError("must be a list of {tokens, tags, html}", path=path)
    if not records:
        raise DataError("no document in it: the list is empty", path=path)
    sources = []
    for number, record in enumerate(records, start=1):
        try:
            sources.append(_source(f"{path.stem}-{number}", record))
        except DataError as error:
            raise DataError(f"record {number}: {error}", path=path) from None
    return sources


def _source(name: str, record: object) -> SourceDocument:
    if not isinstance(record, dict):
        raise DataError("must be an object")
    tokens, tags = _strings(record, "tokens"), _strings(record, "tags")
    if len(tokens) != len(tags):
        raise DataError(f"{len(tokens)} tokens but {len(tags)} tags")
    html = record.get("html") or ""
    if not isinstance(html, str):
        raise DataError("'html' must be a string")
    tagged = _tagged(tokens, tags)
    repairs: Counter[str] = Counter()
    if html:
        text, places = _without_marks(html)
        dense = _dense(text)
        if tokens and "".join(text.split()) != "".join("".join(tokens).split()):
            raise DataError("the tokens are not the text of the html; export the file again")
        if tokens and {(k, dense[s], dense[e]) for k, s, e in places} != set(tagged):
            repairs["html taken where the tags say otherwise"] += 1
    else:
        text, places = _rebuilt(tokens, tags)
    if not text or not storable(text):
        raise DataError("no text in it, or a NUL or a lone surrogate")
    spans = tuple(
        SourceSpan(f"T{n}", kind, ((start, end),))
        for n, (kind, start, end) in enumerate(places, start=1)
    )
    return SourceDocument(id=name, text=text, spans=spans, extras={"repairs": repairs})


def _strings(record: dict[str, Any], key: str) -> list[str]:
    value = record.get(key)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise DataError(f"{key!r} must be a list of strings")
    return value


def _token_spans(tags: list[str]) -> list[_Place]:
    parts = []
    for number, tag in enumerate(tags, start=1):
        part = tag_parts(tag)
        if part is None:
            raise DataError(f"tag {number} is none: O, or one of B I E S L U, a '-' and a type")
        parts.append(part)
    return tagged_spans(parts)[0]


def _tagged(tokens: list[str], tags: list[str]) -> list[_Place]:
    """The tags' spans, in characters that are not spaces: comparable whatever the spacing."""
    before = [0]
    for token in tokens:
        before.append(before[-1] + len("".join(token.split())))
    return [(kind, before[first], before[end]) for kind, first, end in _token_spans(tags)]


def _dense(text: str) -> list[int]:
    """For each offset of ``text``, how many characters before it are not spaces."""
    counts = [0]
    for character in text:
        counts.append(counts[-1] + (not character.isspace()))
    return counts


def _rebuilt(tokens: list[str], tags: list[str]) -> tuple[str, list[_Place]]:
    """Tokens joined by one space, unless the file keeps the spaces as tokens of their own."""
    glue = "" if any(token.isspace() for token in tokens) else " "
    starts, at = [], 0
    for token in tokens:
        starts.append(at)
        at += len(token) + len(glue)
    places = [
        (kind, starts[first], starts[end - 1] + len(tokens[end - 1]))
        for kind, first, end in _token_spans(tags)
    ]
    if any(start == end for _, start, end in places):
        raise DataError("a tagged token is empty")
    return glue.join(tokens), places


def _without_marks(html: str) -> tuple[str, list[_Place]]:
    pieces: list[str] = []
    open_marks: list[tuple[str, int, int]] = []
    places: list[tuple[int, _Place]] = []
    length = at = order = 0
    for mark in _MARK.finditer(html):
        pieces.append(html[at : mark.start()])
        length += mark.start() - at
        at = mark.end()
        if mark[2] is not None:
            open_marks.append((mark[2], length, order))
            order += 1
        elif not open_marks:
            raise DataError(f"html: </span> at character {mark.start()} closes nothing")
        else:
            kind, start, opened = open_marks.pop()
            if start == length:
                raise DataError(f"html: the span that ends at character {mark.start()} is empty")
            places.append((opened, (kind, start, length)))
    if open_marks:
        raise DataError(f"html: {len(open_marks)} spans are never closed")
    return "".join([*pieces, html[at:]]), [place for _, place in sorted(places)]
