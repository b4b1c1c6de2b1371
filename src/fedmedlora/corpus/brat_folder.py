"""Writing a brat folder, and the sidecar that holds what brat has no line for.

The sidecar ``fedmedlora.json`` keeps the order of the documents, their ids (file names cannot
spell them all), groups and covered types, and entity ids other than brat's ``T1, T2, ...``. A
folder that is edited in brat keeps it valid: it names annotations by their brat ids.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from bioc import brat as bioc_brat
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedmedlora.corpus.files import read_text, storable, write_text
from fedmedlora.errors import DataError
from fedmedlora.schema import Document, Entity

SIDECAR = "fedmedlora.json"
_FORMAT = "fedmedlora brat folder, version 1"
_BRAT_ID = re.compile(r"T[1-9][0-9]*")
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, slots=True)
class Listing:
    """What the sidecar says of one document.

    Attributes:
        id, group, covers: as in ``Document``.
        entities: brat id -> entity id, where they differ.
    """

    id: str
    group: str | None = None
    covers: frozenset[str] | None = None
    entities: Mapping[str, str] = field(default_factory=dict)


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    file: str
    id: Annotated[str, Field(min_length=1)]
    group: str | None = None
    covers: list[str] | None = None
    entities: dict[str, str] = {}


class _Sidecar(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    format: str
    documents: list[_Entry]


def read_sidecar(folder: Path) -> dict[str, Listing]:
    """File name without its ending -> what the sidecar says; empty where there is no sidecar.

    Raises:
        DataError: the sidecar is broken, of another format, or lists a file twice.
    """
    path = folder / SIDECAR
    if not path.is_file():
        return {}
    try:
        sidecar = _Sidecar.model_validate_json(read_text(path))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "the whole file"
        raise DataError(f"{key}: {first['msg']}", path=path) from None
    if sidecar.format != _FORMAT:
        raise DataError(f"its format is not {_FORMAT!r}; move it away if it is not ours", path=path)
    listings: dict[str, Listing] = {}
    for entry in sidecar.documents:
        if entry.file in listings:
            raise DataError(f"lists the file {entry.file!r} twice", path=path)
        covers = None if entry.covers is None else frozenset(entry.covers)
        listings[entry.file] = Listing(entry.id, entry.group, covers, entry.entities)
    return listings


def write_brat(documents: Iterable[Document], folder: Path | str) -> None:
    """Write a brat folder that ``read_brat`` (without a mapping) gives back as it is.

    The folder appears whole or not at all. It also gets an ``annotation.conf``, so that brat opens
    it.

    Raises:
        DataError: the folder exists and is not empty, two documents have one id, a type has a
            space in it, or the disk refuses.
    """
    folder = Path(folder).absolute()
    documents = list(documents)
    check_new_folder(folder)
    partial = folder.with_name(f".{folder.name[:20]}.{uuid.uuid4().hex}.partial")
    try:
        partial.mkdir(parents=True)
        entries = []
        for name, document in zip(_file_names(documents), documents, strict=True):
            numbers = _brat_ids(document.entities)
            write_text(partial / f"{name}.txt", document.text)
            write_text(partial / f"{name}.ann", _ann(document, numbers))
            renamed = {n: e for e, n in numbers.items() if n != e}
            entries.append(_entry(name, document, renamed))
        content = {"format": _FORMAT, "documents": entries}
        write_text(partial / SIDECAR, json.dumps(content, ensure_ascii=False, indent=1) + "\n")
        write_text(partial / "annotation.conf", _configuration(documents))
        if folder.exists():
            folder.rmdir()
        partial.replace(folder)
    except OSError as error:
        raise DataError(f"cannot be written: {error.strerror}", path=folder) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def check_new_folder(folder: Path) -> None:
    """Refuse a place where ``write_brat`` could not make its folder.

    Raises:
        DataError: it is there and no empty folder, or nothing may be made there.
    """
    folder = folder.absolute()
    if folder.is_symlink() or (
        folder.exists() and not (folder.is_dir() and not any(folder.iterdir()))
    ):
        raise DataError("exists already and is not an empty folder; name a new one", path=folder)
    above = next(parent for parent in folder.parents if parent.exists())
    if not above.is_dir():
        raise DataError(f"cannot be written: {above} is no folder", path=folder)
    if not os.access(above, os.W_OK):
        raise DataError("cannot be written: no permission to write there", path=folder)


def _entry(name: str, document: Document, renamed: Mapping[str, str]) -> dict[str, object]:
    entry: dict[str, object] = {"file": name, "id": document.id}
    if document.group is not None:
        entry["group"] = document.group
    if document.covers is not None:
        entry["covers"] = sorted(document.covers)
    if renamed:
        entry["entities"] = dict(renamed)
    return entry


def _file_names(documents: Sequence[Document]) -> list[str]:
    """A file name for each document: its id where every file system can hold it."""
    names: list[str] = []
    ids: set[str] = set()
    taken: set[str] = set()
    for document in documents:
        if document.id in ids:
            raise DataError(f"two documents have the id {document.id!r}")
        if not storable(document.id):
            raise DataError("a document id holds a NUL or a lone surrogate")
        ids.add(document.id)
        name = document.id
        if not _FILE_NAME.fullmatch(name) or name.casefold() in taken:
            digest = hashlib.sha256(name.encode()).hexdigest()[:16]
            name = f"{re.sub('[^A-Za-z0-9]+', '_', name)[:60].strip('_') or 'document'}-{digest}"
        if name.casefold() in taken:
            raise DataError(f"document id {document.id!r} needs a file name that is taken")
        taken.add(name.casefold())
        names.append(name)
    return names


def _brat_ids(entities: Sequence[Entity]) -> dict[str, str]:
    """Entity id -> brat id: itself where it is one, else the next free number."""
    taken = {entity.id for entity in entities if _BRAT_ID.fullmatch(entity.id)}
    numbers: dict[str, str] = {}
    number = 0
    for entity in entities:
        if entity.id in taken:
            numbers[entity.id] = entity.id
            continue
        number += 1
        while f"T{number}" in taken:
            number += 1
        numbers[entity.id] = f"T{number}"
    return numbers


def _ann(document: Document, numbers: Mapping[str, str]) -> str:
    lines = bioc_brat.BratDocument()
    for entity in document.entities:
        line = bioc_brat.BratEntity()
        line.id, line.type = numbers[entity.id], _one_word(entity.type, document)
        fragments = _fragments(document.text, entity)
        for start, end in fragments:
            line.add_span(start, end)
        quoted = " ".join(document.text[start:end] for start, end in fragments)
        # one space for each character that another tool could take for the end of a cell or line
        line.text = re.sub(r"\s", " ", quoted)
        lines.add_annotation(line)
    for count, relation in enumerate(document.relations, start=1):
        line = bioc_brat.BratRelation()
        line.id, line.type = f"R{count}", _one_word(relation.type, document)
        line.add_argument("Arg1", numbers[relation.head])
        line.add_argument("Arg2", numbers[relation.tail])
        lines.add_annotation(line)
    return str(bioc_brat.dumps_ann(lines))


def _fragments(text: str, entity: Entity) -> list[tuple[int, int]]:
    """One fragment a line, as brat writes a span over line breaks.

    The reader joins fragments with nothing but line breaks between them. A span that starts or
    ends with a line break would lose it that way, and is written as one piece.
    """
    pieces = [
        (entity.start + m.start(), entity.start + m.end())
        for m in re.finditer(r"[^\r\n]+", text[entity.start : entity.end])
    ]
    if pieces and (pieces[0][0], pieces[-1][1]) == (entity.start, entity.end):
        return pieces
    return [(entity.start, entity.end)]


def _one_word(kind: str, document: Document) -> str:
    if not kind or any(c.isspace() for c in kind) or not storable(kind):
        raise DataError(
            f"document {document.id!r}: the type {kind!r} has a space in it or is empty, which "
            "brat cannot hold; map it to another name"
        )
    return kind


def _configuration(documents: Sequence[Document]) -> str:
    kinds = sorted({e.type for d in documents for e in d.entities})
    pairs: dict[str, tuple[set[str], set[str]]] = {}
    for document in documents:
        types = {e.id: e.type for e in document.entities}
        for relation in document.relations:
            heads, tails = pairs.setdefault(relation.type, (set(), set()))
            heads.add(types[relation.head])
            tails.add(types[relation.tail])
    relations = [
        f"{kind}\tArg1:{'|'.join(sorted(heads))}, Arg2:{'|'.join(sorted(tails))}"
        for kind, (heads, tails) in sorted(pairs.items())
    ]
    lines = ["[entities]", *kinds, "[relations]", *relations, "[events]", "[attributes]"]
    return "\n".join(lines) + "\n"
