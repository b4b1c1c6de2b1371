"""Text that a format repeats beside its offsets, held against the text at these offsets."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from pathlib import Path

from fedmedlora.errors import DataError


def says_the_same(found: str, quoted: str) -> bool:
    """Whether two strings are equal but for case, white space and XML's escapes."""
    return _bare(found) == _bare(quoted)


def refuse_shifted(disagreeing: Sequence[int], total: int, *, path: Path) -> None:
    """Refuse a file whose offsets are shifted, rather than a few of them wrong.

    Args:
        disagreeing: the lines, counted from 1, of the spans whose text is not at their place.
        total: how many spans the file has.
        path: the file.

    Raises:
        DataError: more than half of the spans disagree.
    """
    if 2 * len(disagreeing) > total:
        raise DataError(
            f"here and for {len(disagreeing)} of {total} spans in all the text given is not the "
            "text at the offsets: these belong to another version of the note; get the release's "
            "own files again, or correct the line if it is the only one",
            path=path,
            line=disagreeing[0],
        )


def _bare(text: str) -> str:
    return re.sub(r"\s+", "", html.unescape(text)).casefold()
