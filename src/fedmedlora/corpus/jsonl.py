"""Neutral JSONL in and out: one document a line, offsets in characters.

The rules of the format are in docs/formats.md. What enters is a file, what leaves is documents
that keep the ids, the order and the offsets of the file; and the other way round.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from fedmedlora.corpus.files import read_text, storable, write_text
from fedmedlora.errors import DataError, SchemaError
from fedmedlora.schema import Document, Entity, Relation

_KINDS = {str: "a string", int: "an integer", list: "a list", dict: "an object"}
_Kind = TypeVar("_Kind", str, int, list[Any], dict[str, Any])


def read_jsonl(path: Path | str, *, covers: frozenset[str] | None = None) -> list[Document]:
    """The documents of a neutral JSONL file, in file order.

    Args:
        path: the file.
        covers: what the annotators looked for, for documents whose record does not say it.

    Raises:
        DataError: with file and line: not UTF-8, not JSON, a missing, unknown or repeated key, a
            value of the wrong type, an offset outside the text, a repeated id, a relation to
            nothing, or no document at all.
    """
    path = Path(path)
    documents: list[Document] = []
    lines: dict[str, int] = {}
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            document = _document(_object(line))
        except (DataError, SchemaError) as error:
            raise DataError(str(error), path=path, line=number) from None
        if document.id in lines:
            raise DataError(
                f"document id {document.id!r} was used on line {lines[document.id]} already",
                path=path,
                line=number,
            )
        lines[document.id] = number
        if document.covers is None and covers is not None:
            document = replace(document, covers=covers)
        documents.append(document)
    if not documents:
        raise DataError("no document in it: the file is empty", path=path)
    return documents


def write_jsonl(documents: Iterable[Document], path: Path | str) -> None:
    """Write documents as neutral JSONL, atomically; ``read_jsonl`` gives them back as they are.

    Raises:
        DataError: a text cannot be stored as UTF-8, or the disk refuses the file.
    """
    records = (json.dumps(as_record(document), ensure_ascii=False) for document in documents)
    write_text(Path(path), "".join(f"{record}\n" for record in records))


def as_record(document: Document) -> dict[str, Any]:
    """The document as the object of its line; ``group`` and ``covers`` only where they are set."""
    record: dict[str, Any] = {
        "id": document.id,
        "text": document.text,
        "entities": [
            {"id": e.id, "type": e.type, "start": e.start, "end": e.end} for e in document.entities
        ],
        "relations": [{"type": r.type, "head": r.head, "tail": r.tail} for r in document.relations],
    }
    if document.group is not None:
        record["group"] = document.group
    if document.covers is not None:
        record["covers"] = sorted(document.covers)
    return record


def _object(line: str) -> dict[str, Any]:
    try:
        value = json.loads(line, object_pairs_hook=_without_repeats)
    except json.JSONDecodeError as error:
        raise DataError(
            f"not JSON: {error.msg} at column {error.colno}; each line must be one whole object"
        ) from None
    except (ValueError, RecursionError):
        raise DataError("not JSON that can be read: numbers too long or nested too deep") from None
    if not isinstance(value, dict):
        raise DataError("the line is JSON but not an object")
    return value


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise DataError("a key occurs twice in one object")
    return value


def _document(record: dict[str, Any]) -> Document:
    _only(record, ("id", "text", "entities", "relations", "group", "covers"), place="document")
    name = _string(record, "id", place="document")
    place = f"document {name!r}"
    covers = None
    if record.get("covers") is not None:
        listed = _value(record, "covers", list, place=place)
        if not all(isinstance(item, str) and item for item in listed):
            raise DataError(f"{place}: 'covers' must be a list of type names")
        covers = frozenset(listed)
    text = _value(record, "text", str, place=place)
    if not storable(text):
        raise DataError(f"{place}: 'text' holds a NUL or a lone surrogate; clean it at its source")
    return Document(
        id=name,
        text=text,
        entities=tuple(
            _entity(item, place=f"{place}, entity {n}")
            for n, item in enumerate(_value(record, "entities", list, place=place), start=1)
        ),
        relations=tuple(
            _relation(item, place=f"{place}, relation {n}")
            for n, item in enumerate(_value(record, "relations", list, place=place), start=1)
        ),
        group=None if record.get("group") is None else _string(record, "group", place=place),
        covers=covers,
    )


def _entity(given: object, *, place: str) -> Entity:
    item = _only(given, ("id", "type", "start", "end"), place=place)
    return Entity(
        id=_string(item, "id", place=place),
        type=_string(item, "type", place=place),
        start=_value(item, "start", int, place=place),
        end=_value(item, "end", int, place=place),
    )


def _relation(given: object, *, place: str) -> Relation:
    item = _only(given, ("type", "head", "tail"), place=place)
    return Relation(
        type=_string(item, "type", place=place),
        head=_string(item, "head", place=place),
        tail=_string(item, "tail", place=place),
    )


def _only(item: object, known: tuple[str, ...], *, place: str) -> dict[str, Any]:
    if not isinstance(item, dict):
        raise DataError(f"{place}: must be an object")
    unknown = [key for key in item if key not in known]
    if unknown:
        raise DataError(f"{place}: unknown key {unknown[0][:40]!r}; known are {', '.join(known)}")
    return item


def _value(item: dict[str, Any], key: str, kind: type[_Kind], *, place: str) -> _Kind:
    if key not in item:
        raise DataError(f"{place}: the key {key!r} is missing")
    value = item[key]
    # bool is a subclass of int, and true is no offset
    if not isinstance(value, kind) or isinstance(value, bool):
        raise DataError(f"{place}: {key!r} must be {_KINDS[kind]}, not {_named(value)}")
    return value


def _string(item: dict[str, Any], key: str, *, place: str) -> str:
    value = _value(item, key, str, place=place)
    if not value or not storable(value):
        raise DataError(f"{place}: {key!r} must be a non-empty string without NUL or surrogates")
    return value


def _named(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    return _KINDS.get(type(value), "a number")
