"""The 2012 i2b2 temporal relations challenge's format in: .xml files with the text and its tags.

Tags are found by their pattern, as the challenge's own scripts do, not by an XML parser: some files
of the release have bare ``&`` in attributes, which no parser accepts. The .extent and .tlink files
beside them say the same in another way and are not read. The rules are in docs/formats.md.
"""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fedmedlora.corpus.account import ReadReport
from fedmedlora.corpus.apply import map_documents
from fedmedlora.corpus.files import read_text, storable
from fedmedlora.corpus.mapping import TypeMapping
from fedmedlora.corpus.quoted import refuse_shifted, says_the_same
from fedmedlora.corpus.source import SourceDocument, SourceRelation, SourceSpan
from fedmedlora.errors import DataError
from fedmedlora.schema import DEFAULT_SCHEME, Document, Scheme

_ROOT = "ClinicalNarrativeTemporalAnnotation"
_SPANS = ("EVENT", "TIMEX3", "SECTIME")
_SECTIONS = ("ADMISSION", "DISCHARGE")
#: Attributes that are the annotation itself, not something said about it.
_OWN = ("id", "start", "end", "text", "type", "fromID", "toID", "fromText", "toText")
#: Attributes of few values, each counted by itself; of others only the name is.
_CLOSED = ("modality", "polarity", "mod", "sec_time_rel")
_SECTION = re.compile(r"<!\[CDATA\[(.*?)\]\]>", re.DOTALL)
_REFERENCE = re.compile(r"&(?:amp|lt|gt|quot|apos|#[0-9]{1,7}|#x[0-9a-fA-F]{1,6});")
_ELEMENT = re.compile(r'<(\w+)((?:\s+\w+\s*=\s*"[^"]*")+)\s*(?:/>|>\s*</\1\s*>)')
_ATTRIBUTE = re.compile(r'(\w+)\s*=\s*"([^"]*)"')
_AROUND = re.compile(rf"</?TAGS\s*/?>|</{_ROOT}\s*>|<!--.*?-->|\s+", re.DOTALL)


def read_i2b2_2012(
    path: Path | str, mapping: TypeMapping | None = None, *, scheme: Scheme = DEFAULT_SCHEME
) -> tuple[list[Document], ReadReport]:
    """The documents of .xml files, and the account of what was read, mapped and skipped.

    Args:
        path: an .xml file, or a folder of them; not its subfolders.
        mapping: from the source's types to the scheme; ``None`` keeps the types.
        scheme: whose (head, modifier) pairs are valid; asked only with a mapping.

    Raises:
        DataError: with file and line, for anything that docs/formats.md does not allow.
    """
    return map_documents(read_i2b2_2012_sources(path), mapping, scheme=scheme)


def read_i2b2_2012_sources(path: Path | str) -> list[SourceDocument]:
    """As ``read_i2b2_2012``, in the source's own types.

    An EVENT or a TIMEX3 has the type of its attribute ``type``, a SECTIME is just that. A TLINK's
    ends are ``Arg1`` (from) and ``Arg2`` (to).

    Raises:
        DataError: as ``read_i2b2_2012``.
    """
    path = Path(path)
    if not path.is_dir():
        return [_document(path)]
    files = sorted(p for p in path.glob("*.xml") if p.is_file() and not p.name.startswith("."))
    if not files:
        raise DataError("no .xml file in it (subfolders are not read)", path=path)
    return [_document(file) for file in files]


@dataclass(frozen=True, slots=True)
class _Tag:
    """A tag of TAGS: its element, attributes and line."""

    name: str
    attributes: dict[str, str]
    line: int

    def __getitem__(self, key: str) -> str:
        if key not in self.attributes:
            raise DataError(f"the {self.name} has no attribute {key!r}")
        return self.attributes[key]


@dataclass
class _Tags:
    """What the tags of one file hold so far."""

    spans: dict[str, _Tag] = field(default_factory=dict)
    links: list[_Tag] = field(default_factory=list)
    attributes: Counter[str] = field(default_factory=Counter)
    repairs: Counter[str] = field(default_factory=Counter)


def _document(path: Path) -> SourceDocument:
    if not storable(path.name):
        raise DataError("the file's name is not UTF-8; rename it", path=path.parent)
    # an XML parser hands on every line end as LF, so offsets were counted that way
    raw = re.sub("\r\n?", "\n", read_text(path))
    before, opening, rest = raw.partition("<TEXT>")
    content, closing, after = rest.partition("</TEXT>")
    if f"<{_ROOT}" not in before or not opening or not closing:
        raise DataError(
            f"not an i2b2 2012 file: no <TEXT> ... </TEXT> in a <{_ROOT}>. Files of .xml are read "
            "as i2b2 2012 alone; make others .jsonl, .iob or brat folders (docs/formats.md)",
            path=path,
        )
    pieces = _SECTION.split(content)
    text = "".join(p if n % 2 else _resolved(p) for n, p in enumerate(pieces))
    tags = _Tags()
    for tag in _elements(after, path=path, line=raw.count("\n", 0, len(raw) - len(after)) + 1):
        try:
            _sort(tag, tags)
        except DataError as error:
            raise DataError(str(error), path=path, line=tag.line) from None
    return SourceDocument(
        id=path.stem,
        text=text,
        spans=tuple(_spans(text, list(tags.spans.values()), path=path)),
        relations=tuple(_relations(tags, path=path)),
        extras={"attributes": tags.attributes, "repairs": tags.repairs},
    )


def _resolved(text: str) -> str:
    return _REFERENCE.sub(lambda match: html.unescape(match[0]), text)


def _elements(text: str, *, path: Path, line: int) -> Iterator[_Tag]:
    """The tags in order; ``line`` is that of the first character."""
    at = 0
    while at < len(text):
        match = _AROUND.match(text, at)
        if match is None:
            match = _ELEMENT.match(text, at)
            if match is None:
                raise DataError(
                    'not a well-formed tag; it must be <NAME KEY="VALUE" ... />, without quotation '
                    "marks inside a value",
                    path=path,
                    line=line,
                )
            yield _Tag(match[1], dict(_ATTRIBUTE.findall(match[2])), line)
        line += match[0].count("\n")
        at = match.end()


def _sort(tag: _Tag, tags: _Tags) -> None:
    """Put a tag where it belongs; errors hold no place yet."""
    if tag.name == "TLINK":
        tags.links.append(tag)
        return
    if tag.name not in _SPANS:
        raise DataError(f"an unknown tag {tag.name}; known are {', '.join(_SPANS)} and TLINK")
    known = tags.spans.get(tag["id"])
    if known is not None:
        if known.attributes != tag.attributes:
            raise DataError(f"the id {tag['id']!r} is on line {known.line} already, for another")
        tags.repairs["tag repeated as it was"] += 1
        return
    tags.spans[tag["id"]] = tag
    for name, value in tag.attributes.items():
        if name not in _OWN:
            tags.attributes[f"{name} {value.upper()}" if name in _CLOSED else name] += 1


def _type(tag: _Tag) -> str:
    return "SECTIME" if tag.name == "SECTIME" else tag["type"].strip().upper() or tag.name


def _offset(tag: _Tag, key: str) -> int:
    value = tag[key].strip()
    if not re.fullmatch("-1|[0-9]{1,9}", value):
        raise DataError(f"the {tag.name}'s {key} is no number")
    return int(value)


def _spans(text: str, tags: Sequence[_Tag], *, path: Path) -> Iterator[SourceSpan]:
    """The spans of tags, with the first character counted 0 or 1: as more of their texts say."""
    places = []
    for tag in tags:
        try:
            places.append((tag, _type(tag), _offset(tag, "start"), _offset(tag, "end")))
            tag["text"]
        except DataError as error:
            raise DataError(str(error), path=path, line=tag.line) from None
    agreeing = {
        base: [
            0 <= start - base < end - base <= len(text)
            and says_the_same(text[start - base : end - base], tag["text"])
            for tag, _, start, end in places
        ]
        for base in (0, 1)
    }
    base = max(agreeing, key=lambda base: sum(agreeing[base]))
    disagreeing = []
    for (tag, kind, start, end), agrees in zip(places, agreeing[base], strict=True):
        nowhere = (start, end) == (-1, -1)
        if not nowhere and not 0 <= start - base < end - base <= len(text):
            raise DataError(
                f"start {start} and end {end} are not a span of a text of {len(text)} characters",
                path=path,
                line=tag.line,
            )
        if not agrees and not nowhere:
            disagreeing.append(tag.line)
        yield SourceSpan(tag["id"], kind, ((start - base, end - base),) if agrees else ())
    refuse_shifted(disagreeing, len(tags), path=path)


def _relations(tags: _Tags, *, path: Path) -> Iterator[SourceRelation]:
    sections = {
        tag.attributes.get("type", "").upper(): name
        for name, tag in tags.spans.items()
        if tag.name == "SECTIME"
    }
    for tag in tags.links:
        try:
            kind, ends = _type(tag), {"Arg1": tag["fromID"], "Arg2": tag["toID"]}
        except DataError as error:
            raise DataError(str(error), path=path, line=tag.line) from None
        for role, target in ends.items():
            if target not in tags.spans and target.upper() in _SECTIONS:
                tags.repairs["TLINK to Admission or Discharge by that name"] += 1
                ends[role] = sections.get(target.upper(), "")
            elif target not in tags.spans:
                raise DataError(
                    f"the TLINK points to {target!r}, which is no span of this file",
                    path=path,
                    line=tag.line,
                )
        if "" in ends.values():
            tags.repairs["TLINK left out: no SECTIME of that name"] += 1
        else:
            yield SourceRelation(kind, ends)
