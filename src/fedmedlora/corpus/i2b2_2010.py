"""The 2010 i2b2/VA challenge's format in: .txt, .con, .ast and .rel files of a folder.

A place is ``LINE:WORD LINE:WORD``, first and last word; lines count from 1, words from 0, and runs
of white space part words. A line that begins with white space has an empty word 0, as in the
release; where the text that a line of the .con repeats says otherwise, it is counted without. The
rules are in docs/formats.md.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedmedlora.corpus.account import ReadReport
from fedmedlora.corpus.apply import map_documents
from fedmedlora.corpus.files import read_text, storable
from fedmedlora.corpus.mapping import TypeMapping
from fedmedlora.corpus.quoted import refuse_shifted, says_the_same
from fedmedlora.corpus.source import SourceDocument, SourceRelation, SourceSpan
from fedmedlora.errors import DataError
from fedmedlora.schema import DEFAULT_SCHEME, Document, Scheme

_ENDINGS = (".txt", ".con", ".ast", ".rel")
_N = "([0-9]{1,9})"
_CONCEPT = rf'c="(.*)"\s+{_N}:{_N}\s+{_N}:{_N}'
_FORMS = {
    ".con": (re.compile(rf'{_CONCEPT}\|\|t="([^"]+)"'), 'c="TEXT" L:W L:W||t="TYPE"'),
    ".ast": (
        re.compile(rf'{_CONCEPT}\|\|t="([^"]+)"\|\|a="([A-Za-z_ -]+)"'),
        'c="TEXT" L:W L:W||t="TYPE"||a="ASSERTION"',
    ),
    ".rel": (
        re.compile(rf'{_CONCEPT}\|\|r="([^"]+)"\|\|{_CONCEPT}'),
        'c="TEXT" L:W L:W||r="TYPE"||c="TEXT" L:W L:W',
    ),
}

_WORD = re.compile(r"\S+", re.ASCII)

#: First line, first word, last line, last word, as the format counts them.
_Place = tuple[int, int, int, int]


def read_i2b2_2010(
    folder: Path | str, mapping: TypeMapping | None = None, *, scheme: Scheme = DEFAULT_SCHEME
) -> tuple[list[Document], ReadReport]:
    """The documents of a release's folder, and the account of what was read, mapped and skipped.

    Args:
        folder: holds, itself or in subfolders, a .txt and a .con of the same name for each
            document, and optionally its .ast and .rel.
        mapping: from the source's types to the scheme; ``None`` keeps the types.
        scheme: whose (head, modifier) pairs are valid; asked only with a mapping.

    Raises:
        DataError: with file and line, for anything that docs/formats.md does not allow.
    """
    return map_documents(read_i2b2_2010_sources(folder), mapping, scheme=scheme)


def read_i2b2_2010_sources(folder: Path | str) -> list[SourceDocument]:
    """As ``read_i2b2_2010``, in the source's own types, by document name.

    A relation's ends are ``Arg1`` and ``Arg2``, in the order of its line.

    Raises:
        DataError: as ``read_i2b2_2010``.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError("not a folder; i2b2 2010 data is one of .txt and .con files", path=folder)
    files = _files(folder)
    texts, concepts = files[".txt"], files[".con"]
    if not concepts:
        raise DataError("no .con file in it or in its subfolders", path=folder)
    for ending in (".con", ".ast", ".rel"):
        for name in sorted(files[ending].keys() - texts.keys()):
            raise DataError("there is no .txt of the same name", path=files[ending][name])
    for name in sorted(texts.keys() - concepts.keys()):
        raise DataError(
            "there is no .con of the same name; add an empty one if nothing is annotated, or move "
            "the file out of this folder",
            path=texts[name],
        )
    return [
        _document(name, {ending: found[name] for ending, found in files.items() if name in found})
        for name in sorted(concepts)
    ]


def _files(folder: Path) -> dict[str, dict[str, Path]]:
    """Ending -> document name -> its one file."""
    files: dict[str, dict[str, Path]] = {ending: {} for ending in _ENDINGS}
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        hidden = any(part.startswith((".", "__MACOSX")) for part in inside.parts)
        if path.suffix not in files or hidden or not path.is_file():
            continue
        if not storable(path.name):
            raise DataError("a file in it has a name that is not UTF-8; rename it", path=folder)
        if path.stem in files[path.suffix]:
            other = files[path.suffix][path.stem].relative_to(folder)
            raise DataError(f"{other} has the same name; names are the documents' ids", path=path)
        files[path.suffix][path.stem] = path
    return files


@dataclass(frozen=True, slots=True)
class _Line:
    """A well-formed line: its number and what its pattern found."""

    number: int
    cells: Sequence[str]

    def concept(self, first: int) -> tuple[str, _Place]:
        """(text, place) of the concept whose cells begin at ``first``."""
        quoted, *place = self.cells[first : first + 5]
        a, b, c, d = map(int, place)
        return quoted, (a, b, c, d)


def _lines(path: Path | None) -> Iterator[_Line]:
    if path is None:
        return
    form, shown = _FORMS[path.suffix]
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        match = form.fullmatch(line.strip())
        if match is None:
            raise DataError(f"not of the form {shown}", path=path, line=number)
        yield _Line(number, match.groups())


def _document(name: str, files: Mapping[str, Path]) -> SourceDocument:
    path = files[".con"]
    text = read_text(files[".txt"])
    words = _Words(text)
    repairs: Counter[str] = Counter()
    spans: list[SourceSpan] = []
    at_place: dict[_Place, str] = {}
    disagreeing: list[int] = []
    for line in _lines(path):
        quoted, place = line.concept(0)
        try:
            found = words.find(place, quoted, repairs=repairs)
        except DataError as error:
            raise DataError(str(error), path=path, line=line.number) from None
        if found is None:
            disagreeing.append(line.number)
        span = SourceSpan(f"T{len(spans) + 1}", line.cells[5], () if found is None else (found,))
        spans.append(span)
        at_place.setdefault(place, span.id)
    refuse_shifted(disagreeing, len(spans), path=path)
    assertions: Counter[str] = Counter()
    for line in _lines(files.get(".ast")):
        assertions[f"assertion {line.cells[6]}"] += 1
        if line.concept(0)[1] not in at_place:
            repairs["assertion at a place where no concept is"] += 1
    return SourceDocument(
        id=name,
        text=text,
        spans=tuple(spans),
        relations=tuple(_relations(files.get(".rel"), at_place)),
        extras={"attributes": assertions, "repairs": repairs},
    )


def _relations(path: Path | None, at_place: Mapping[_Place, str]) -> Iterator[SourceRelation]:
    for line in _lines(path):
        ends = {}
        for role, first in (("Arg1", 0), ("Arg2", 6)):
            _, place = line.concept(first)
            if place not in at_place:
                raise DataError(
                    f"the relation's {role} is at {_shown(place)}, where the .con has no concept",
                    path=path,
                    line=line.number,
                )
            ends[role] = at_place[place]
        yield SourceRelation(line.cells[5], ends)


class _Words:
    """The character ranges of a text's words, by line."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._lines: list[list[tuple[int, int]]] = []
        start = 0
        for line in text.split("\n"):
            words = [(start + m.start(), start + m.end()) for m in _WORD.finditer(line)]
            if words and words[0][0] > start:
                words.insert(0, (start, start))
            self._lines.append(words)
            start += len(line) + 1

    def find(self, place: _Place, quoted: str, *, repairs: Counter[str]) -> tuple[int, int] | None:
        """The characters from a place's first to its last word; None if they are not ``quoted``.

        Raises:
            DataError: the place is not in the text, or ends before it begins.
        """
        first_line, first, last_line, last = place
        if (first_line, first) > (last_line, last):
            raise DataError(f"the place {_shown(place)} ends before it begins")
        for number, word in ((first_line, first), (last_line, last)):
            if not 1 <= number <= len(self._lines):
                raise DataError(
                    f"the place {_shown(place)} is outside a text of {len(self._lines)} lines"
                )
            if word >= len(self._lines[number - 1]):
                raise DataError(
                    f"the place {_shown(place)} is outside line {number}, which has "
                    f"{len(self._lines[number - 1])} words"
                )
        for empty in (True, False):
            start = self._word(first_line, first, empty=empty)[0]
            end = self._word(last_line, last, empty=empty)[1]
            if start < end and says_the_same(self._text[start:end], quoted):
                if not empty:
                    repairs["words counted without the empty one of a line that is indented"] += 1
                return start, end
        return None

    def _word(self, line: int, word: int, *, empty: bool) -> tuple[int, int]:
        words = [(start, end) for start, end in self._lines[line - 1] if empty or start < end]
        return words[min(word, len(words) - 1)]


def _shown(place: _Place) -> str:
    return "{}:{} {}:{}".format(*place)
