"""From one annotation format to another, through a mapping, with an exact account."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from fedmedlora.corpus.account import ReadReport
from fedmedlora.corpus.apply import map_documents
from fedmedlora.corpus.brat import write_brat
from fedmedlora.corpus.jsonl import write_jsonl
from fedmedlora.corpus.mapping import Discontinuous, load_mapping
from fedmedlora.corpus.read import READERS
from fedmedlora.errors import ConfigError
from fedmedlora.schema import DEFAULT_SCHEME, Document, Scheme

#: Format name -> its writer.
WRITERS: dict[str, Callable[[Iterable[Document], Path], None]] = {
    "jsonl": write_jsonl,
    "brat": write_brat,
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
        from_format: "jsonl", "brat", "iob" or "paper-json".
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
    rules = None if mapping is None else load_mapping(mapping, scheme=scheme)
    documents, report = map_documents(
        READERS[from_format](Path(source)), rules, scheme=scheme, discontinuous=discontinuous
    )
    WRITERS[to_format](documents, Path(out))
    return report
