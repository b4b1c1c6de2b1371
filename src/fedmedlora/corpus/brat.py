"""Brat standoff in and out: a folder of .txt and .ann files.

The lines are parsed by ``bioc.brat``, one at a time, so that an error can name its line and so
that free text (which may hold tabs) never reaches a parser that splits on them. What bioc accepts
in silence is checked here: dangling ids, quoted text that is not the text, repeated ids and roles.
Offsets count Unicode code points, as brat's do; line ends are never translated. The rules of the
format are in docs/formats.md.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bioc import brat as bioc_brat

from fedmedlora.corpus.account import ReadReport
from fedmedlora.corpus.apply import map_documents
from fedmedlora.corpus.brat_folder import SIDECAR, Listing, read_sidecar, write_brat
from fedmedlora.corpus.files import read_text, storable
from fedmedlora.corpus.mapping import Discontinuous, TypeMapping
from fedmedlora.corpus.source import SourceDocument, SourceRelation, SourceSpan
from fedmedlora.errors import DataError
from fedmedlora.schema import DEFAULT_SCHEME, Document, Scheme

__all__ = ["read_brat", "read_brat_sources", "write_brat"]

_LINE_FORMS = {
    "T": "ID<TAB>TYPE START END[;START END]*<TAB>TEXT with START < END",
    "E": "ID<TAB>TYPE:TRIGGER [ROLE:ID ...]",
    "R": "ID<TAB>TYPE ROLE:ID ROLE:ID",
    "A": "ID<TAB>NAME ID [VALUE]",
    "M": "ID<TAB>NAME ID [VALUE]",
    "N": "ID<TAB>NAME ID BASE:ENTRY<TAB>TEXT",
    "*": "*<TAB>TYPE ID ID ...",
    "#": "ID<TAB>TYPE ID<TAB>TEXT",
}


def read_brat(
    folder: Path | str,
    mapping: TypeMapping | None = None,
    *,
    scheme: Scheme = DEFAULT_SCHEME,
    discontinuous: Discontinuous | None = None,
) -> tuple[list[Document], ReadReport]:
    """The documents of a brat folder, and the account of what was read, mapped and skipped.

    Args:
        folder: holds a .txt and an .ann of the same name for each document; not its subfolders.
        mapping: from the source's types to the scheme; ``None`` keeps the types.
        scheme: whose (head, modifier) pairs are valid; asked only with a mapping.
        discontinuous: overrides the rule for spans of several fragments.

    Raises:
        DataError: with file and line, for anything that docs/formats.md does not allow.
    """
    sources = read_brat_sources(folder)
    return map_documents(sources, mapping, scheme=scheme, discontinuous=discontinuous)


def read_brat_sources(folder: Path | str) -> list[SourceDocument]:
    """The documents of a brat folder in their own types, events resolved to their triggers.

    In the order of the sidecar where there is one, then by file name.

    Raises:
        DataError: as ``read_brat``.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError("not a folder; brat data is a folder of .txt and .ann files", path=folder)
    listed = read_sidecar(folder)
    names = _names(folder, allow_none=(folder / SIDECAR).is_file() and not listed)
    for name in listed:
        if name not in names:
            raise DataError(f"lists {name!r}, but there is no such .ann", path=folder / SIDECAR)
    order = [*listed, *sorted(names - set(listed))]
    sources = [_read_document(folder, n, listing=listed.get(n, Listing(id=n))) for n in order]
    first: dict[str, str] = {}
    for name, source in zip(order, sources, strict=True):
        if source.id in first:
            raise DataError(
                f"document id {source.id!r} belongs to both {first[source.id]!r} and {name!r}",
                path=folder,
            )
        first[source.id] = name
    return sources


def _names(folder: Path, *, allow_none: bool) -> set[str]:
    def with_ending(ending: str) -> set[str]:
        names = {p.name for p in folder.iterdir() if p.is_file() and not p.name.startswith(".")}
        return {name.removesuffix(ending) for name in names if name.endswith(ending)}

    annotated, texts = with_ending(".ann"), with_ending(".txt")
    if not annotated and not allow_none:
        raise DataError("no .ann file in it (subfolders are not read)", path=folder)
    if any(not storable(name) for name in annotated):
        raise DataError("a file in it has a name that is not UTF-8; rename it", path=folder)
    for name in sorted(annotated - texts):
        raise DataError("there is no .txt of the same name", path=folder / f"{name}.ann")
    for name in sorted(texts - annotated):
        raise DataError(
            "there is no .ann of the same name; add an empty one if nothing is annotated",
            path=folder / f"{name}.txt",
        )
    return annotated


@dataclass
class _Lines:
    """What the lines of one .ann hold so far; every id with the line that it is on."""

    spans: dict[str, SourceSpan] = field(default_factory=dict)
    triggers: dict[str, tuple[str, int]] = field(default_factory=dict)
    relations: dict[str, tuple[str, Mapping[str, str], int]] = field(default_factory=dict)
    extras: dict[str, Counter[str]] = field(default_factory=dict)

    def count(self, kind: str, name: str) -> None:
        self.extras.setdefault(kind, Counter())[name] += 1


def _read_document(folder: Path, name: str, *, listing: Listing) -> SourceDocument:
    text = read_text(folder / f"{name}.txt", keep_bom=True)
    path = folder / f"{name}.ann"
    lines = _Lines()
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            _read_line(line.removesuffix("\r"), number, text=text, lines=lines)
        except DataError as error:
            raise DataError(str(error), path=path, line=number) from None
    for trigger, number in lines.triggers.values():
        if trigger not in lines.spans:
            raise DataError(
                f"the event's trigger {trigger!r} is not in this file", path=path, line=number
            )
    ids = {span: listing.entities.get(span, span) for span in lines.spans}
    if len(set(ids.values())) != len(ids):
        raise DataError(f"gives two spans of {name!r} one id", path=folder / SIDECAR)
    relations = []
    for kind, arguments, number in lines.relations.values():
        resolved = {}
        for role, target in arguments.items():
            span = lines.triggers[target][0] if target in lines.triggers else target
            if span not in lines.spans:
                raise DataError(
                    f"the relation points to {target!r}, which is no span or event of this file",
                    path=path,
                    line=number,
                )
            resolved[role] = ids[span]
        relations.append(SourceRelation(kind, resolved))
    return SourceDocument(
        id=listing.id,
        text=text,
        spans=tuple(SourceSpan(ids[s.id], s.type, s.fragments) for s in lines.spans.values()),
        relations=tuple(relations),
        group=listing.group,
        covers=listing.covers,
        extras=lines.extras,
    )


def _read_line(line: str, number: int, *, text: str, lines: _Lines) -> None:
    """Parse one line into ``lines``; errors hold no place yet, and never the line's text."""
    kind = line[0]
    if kind not in _LINE_FORMS:
        raise DataError(
            f"the line starts with none of {' '.join(_LINE_FORMS)}, as every brat line does"
        )
    cells = line.split("\t", 2)
    free = cells[2] if kind in "T#N" and len(cells) == 3 else None
    if free is not None:
        cells[2] = "-"
    if kind == "N":  # bioc passes over normalizations without a word
        if len(cells) < 2 or len(cells[1].split(" ")) != 3:
            raise DataError(_malformed(kind))
        lines.count("normalizations", cells[1].split(" ")[2].partition(":")[0])
        return
    if kind == "#" and free is None:
        cells.append("-")
    try:
        (parsed,) = bioc_brat.loads_ann("\t".join(cells)).annotations
    except (AssertionError, ValueError):
        # bioc's message quotes the line
        raise DataError(_malformed(kind)) from None
    match kind:
        case "T":
            fragments = tuple(sorted((i.begin, i.end) for i in parsed.locations))
            _check_place(fragments, free or "", text=text)
            _once(parsed.id, lines.spans)
            lines.spans[parsed.id] = SourceSpan(parsed.id, parsed.type, fragments)
        case "E":
            _once(parsed.id, lines.triggers)
            lines.triggers[parsed.id] = (parsed.trigger_id, number)
            lines.count("events", parsed.type)
            for argument in cells[1].split()[1:]:
                lines.count("event_arguments", argument.partition(":")[0])
        case "R":
            _once(parsed.id, lines.relations)
            if len(parsed.arguments) != len(cells[1].split()) - 1:
                raise DataError("the relation has one role twice")
            lines.relations[parsed.id] = (parsed.type, dict(parsed.arguments), number)
        case "*":
            lines.count("equivalences", parsed.type)
        case "#":
            lines.count("notes", parsed.type)
        case _:
            lines.count("attributes", parsed.type)


def _malformed(kind: str) -> str:
    return f"not a well-formed {kind} line; it must be {_LINE_FORMS[kind]}"


def _once(name: str, known: Mapping[str, object]) -> None:
    if name in known:
        raise DataError(f"the id {name!r} is on an earlier line already")


def _check_place(fragments: tuple[tuple[int, int], ...], quoted: str, *, text: str) -> None:
    for start, end in fragments:
        if not 0 <= start < end <= len(text):
            raise DataError(
                f"offsets [{start}, {end}) are not a span of a text of {len(text)} characters"
            )
    # Tools write a line break inside a span as a space, twice or not at all: spaces are compared
    # as one, everything else exactly.
    found = " ".join(text[start:end] for start, end in fragments)
    if _spaces_as_one(found) != _spaces_as_one(quoted):
        start, end = fragments[0][0], fragments[-1][1]
        raise DataError(
            f"the quoted text is not the text at [{start}, {end}). Offsets count Unicode code "
            "points with line ends as they are: UTF-16 units, bytes, or a .txt whose line ends "
            "were changed shift them"
        )


def _spaces_as_one(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()
