"""The data files of a study in: the reader is chosen by what the path is; splits are checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from fedmedlora.corpus.apply import map_documents
from fedmedlora.corpus.brat import read_brat_sources
from fedmedlora.corpus.brat_folder import SIDECAR
from fedmedlora.corpus.i2b2_2010 import read_i2b2_2010_sources
from fedmedlora.corpus.i2b2_2012 import read_i2b2_2012_sources
from fedmedlora.corpus.iob import read_iob_sources
from fedmedlora.corpus.jsonl import read_jsonl
from fedmedlora.corpus.mapping import TypeMapping
from fedmedlora.corpus.paper_json import read_paper_json_sources
from fedmedlora.corpus.source import SourceDocument, from_document
from fedmedlora.errors import DataError
from fedmedlora.schema import DEFAULT_SCHEME, Document, Scheme


def _jsonl_sources(path: Path) -> list[SourceDocument]:
    return [from_document(document) for document in read_jsonl(path)]


#: Format name -> its reader.
READERS: dict[str, Callable[[Path], list[SourceDocument]]] = {
    "jsonl": _jsonl_sources,
    "brat": read_brat_sources,
    "iob": read_iob_sources,
    "paper-json": read_paper_json_sources,
    "i2b2-2010": read_i2b2_2010_sources,
    "i2b2-2012": read_i2b2_2012_sources,
}

_FORMATS = {
    ".jsonl": "jsonl",
    ".json": "paper-json",
    ".iob": "iob",
    ".bio": "iob",
    ".tsv": "iob",
    ".conll": "iob",
    ".xml": "i2b2-2012",
}


def read_documents(
    path: Path | str,
    *,
    covers: frozenset[str] | None = None,
    mapping: TypeMapping | None = None,
    scheme: Scheme = DEFAULT_SCHEME,
) -> list[Document]:
    """The documents at ``path``, whatever its format.

    Args:
        path: a .jsonl, .json (the paper's), .iob, .bio, .tsv, .conll or .xml (i2b2 2012) file, or a
            folder: of brat files if it holds an .ann or our sidecar, else of files of those
            endings, else of i2b2 2010 if it or a subfolder holds a .con.
        covers: what the annotators looked for, for documents that do not say it themselves.
        mapping: from the source's types to the scheme; ``None`` keeps the types.
        scheme: what the mapping maps to.

    Raises:
        DataError: the path is none of these, or its reader refuses it.
    """
    documents, _ = map_documents(read_sources(Path(path)), mapping, scheme=scheme)
    if covers is None:
        return documents
    return [d if d.covers is not None else replace(d, covers=covers) for d in documents]


def read_sources(path: Path) -> list[SourceDocument]:
    """As ``read_documents``, in the source's own types.

    Raises:
        DataError: as ``read_documents``, or two files of a folder hold one document id.
    """
    if not path.is_dir():
        if not path.exists():
            raise DataError("no such file or folder; check the path", path=path)
        return READERS[_format_of(path)](path)
    if any(path.glob("*.ann")) or (path / SIDECAR).is_file():
        return read_brat_sources(path)
    files = sorted(
        p
        for p in path.iterdir()
        if p.suffix.lower() in _FORMATS and p.is_file() and not p.name.startswith(".")
    )
    if not files and any(path.rglob("*.con")):
        return read_i2b2_2010_sources(path)
    if not files:
        raise DataError(
            f"the folder holds neither .ann or .con files nor any of {', '.join(_FORMATS)}",
            path=path,
        )
    sources: list[SourceDocument] = []
    seen: dict[str, Path] = {}
    for file in files:
        for source in READERS[_format_of(file)](file):
            if source.id in seen:
                raise DataError(
                    f"document id {source.id!r} is in {seen[source.id].name} already", path=file
                )
            seen[source.id] = file
            sources.append(source)
    return sources


def check_splits(splits: Mapping[str, Sequence[Document]]) -> None:
    """Refuse a document, or a group of documents, that is in two splits, or an id that is twice.

    Args:
        splits: name ("train", "validation", "test") -> its documents.

    Raises:
        DataError: names the id or the group, and both splits.
    """
    ids: dict[str, str] = {}
    groups: dict[str, str] = {}
    for split, documents in splits.items():
        for document in documents:
            if document.id in ids:
                where = f"both {ids[document.id]} and {split}"
                if ids[document.id] == split:
                    where = f"{split} twice"
                raise DataError(
                    f"document {document.id!r} is in {where}; ids must be unique over all splits"
                )
            ids[document.id] = split
            if document.group is None:
                continue
            if groups.setdefault(document.group, split) != split:
                raise DataError(
                    f"group {document.group!r} is in both {groups[document.group]} and {split} "
                    f"(there by document {document.id!r}); keep a group's documents in one split"
                )


def _format_of(path: Path) -> str:
    if path.suffix.lower() not in _FORMATS:
        raise DataError(
            f"no reader for the ending {path.suffix!r}; known are {', '.join(_FORMATS)}, and "
            "folders of brat or i2b2 2010 files",
            path=path,
        )
    return _FORMATS[path.suffix.lower()]
