"""From one annotation format to another, through a mapping, with an exact account."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from fedmedlora.corpus.account import ReadReport
from fedmedlora.corpus.apply import map_documents
from fedmedlora.corpus.brat import write_brat
from fedmedlora.corpus.brat_folder import check_new_folder
from fedmedlora.corpus.files import check_writable
from fedmedlora.corpus.jsonl import write_jsonl
from fedmedlora.corpus.mapping import Discontinuous, load_mapping
from fedmedlora.corpus.read import READERS
from fedmedlora.errors import ConfigError, DataError
from fedmedlora.schema import DEFAULT_SCHEME, Document, Scheme

#: Format name -> its writer.
WRITERS: dict[str, Callable[[Iterable[Document], Path], None]] = {
    "jsonl": write_jsonl,
    "brat": write_brat,
}
#: Format name -> what refuses a place that its writer would refuse.
CHECKS: dict[str, Callable[[Path], None]] = {
    "jsonl": check_writable,
    "brat": check_new_folder,
}


def convert(
    source: Path | str,
    out: Path | str,
    *,
    from_format: str,
    to_format: str,
    mapping: str | Path | None = None,
    scheme: Scheme = DEFAULT_SCHEME,
    discontinuous: Discontinuous | None = None,
) -> ReadReport:
    """Read ``source``, map it to the scheme and write ``out``, whole or not at all.

    Args:
        source: a file or folder of ``from_format``.
        out: a file (jsonl; replaced if it exists) or a new or empty folder (brat).
        from_format: "jsonl", "brat", "iob", "paper-json", "i2b2-2010" or "i2b2-2012".
        to_format: "jsonl" or "brat".
        mapping: the name of a shipped mapping or the path of a mapping file; ``None`` keeps types.
        scheme: what the mapping maps to.
        discontinuous: overrides the mapping's rule for spans of several fragments.

    Returns:
        The account of what was read, mapped and skipped.

    Raises:
        ConfigError: an unknown format, or a broken mapping.
        DataError: the source cannot be read, or the output not be written.
    """
    for name, known in ((from_format, tuple(READERS)), (to_format, tuple(WRITERS))):
        if name not in known:
            raise ConfigError(f"unknown format {name!r}; use one of {', '.join(known)}")
    check_output(Path(out), [Path(source)], to_format=to_format)
    rules = None if mapping is None else load_mapping(mapping, scheme=scheme)
    documents, report = map_documents(
        READERS[from_format](Path(source)), rules, scheme=scheme, discontinuous=discontinuous
    )
    WRITERS[to_format](documents, Path(out))
    return report


def check_output(out: Path, sources: Iterable[Path], *, to_format: str) -> None:
    """Refuse a place to write before any work is done whose result could not be written there.

    Args:
        out: as for ``convert``.
        sources: what is read: none of it may be written over.
        to_format: "jsonl" or "brat".

    Raises:
        DataError: it is one of the sources, or as ``check_writable`` and ``check_new_folder``.
    """
    if any(out.exists() and source.exists() and out.samefile(source) for source in sources):
        raise DataError("is what is to be read; name another place to write", path=out)
    CHECKS[to_format](out)
