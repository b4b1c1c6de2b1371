"""Bytes to text and back: UTF-8 only, no NUL, offsets kept, every write atomic.

Line ends are never translated, so that an offset into the text is the offset its annotator saw.
"""

from __future__ import annotations

import os
import uuid
from contextlib import suppress
from pathlib import Path

from fedmedlora.errors import DataError

_BOM = "\ufeff"


def read_text(path: Path, *, keep_bom: bool = False) -> str:
    """The text of a UTF-8 file, its line ends and tabs as they are.

    Args:
        path: the file.
        keep_bom: whether a byte order mark at the start is a character of the text. It is where
            offsets count it (brat's .txt), and is not where it only marks the encoding.

    Raises:
        DataError: the file is missing, unreadable, not UTF-8, or holds a NUL byte.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise DataError("no such file; check the path", path=path) from None
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", path=path) from None
    nul = data.find(b"\0")
    if nul >= 0:
        raise DataError(
            f"NUL byte at byte {nul}: not a text file; remove the byte or export it again",
            path=path,
            line=data.count(b"\n", 0, nul) + 1,
        )
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"byte {error.start} (0x{data[error.start]:02x}) is not UTF-8; convert the file",
            path=path,
            line=data.count(b"\n", 0, error.start) + 1,
        ) from None
    return text if keep_bom else text.removeprefix(_BOM)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8: the whole file appears at once, or the old one stays.

    Raises:
        DataError: the text holds a NUL or a lone surrogate, or the disk refuses it.
    """
    if not storable(text):
        raise DataError("a text holds a NUL or a lone surrogate, which no text file can", path=path)
    check_writable(path)
    # A link stays a link: what it points to is replaced.
    target = path.resolve()
    partial = target.with_name(f".{uuid.uuid4().hex}.partial")
    try:
        with partial.open("xb") as file:
            file.write(text.encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
    except OSError as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise DataError(f"cannot be written: {error.strerror}", path=path) from None


def check_writable(path: Path) -> None:
    """Refuse a place where ``write_text`` could not write, or would put a file over something else.

    To be asked before work whose result is to be written there.

    Raises:
        DataError: it has no name, is a folder, a device or write-protected, or its folder is
            missing.
    """
    try:
        target = path.resolve()
    except (OSError, RuntimeError):
        raise DataError("cannot be written: its symbolic links go round", path=path) from None
    if not path.name or target.is_dir():
        raise DataError("cannot be written: is a folder; name a file in it", path=path)
    if not target.parent.is_dir():
        raise DataError("cannot be written: there is no such folder; make it first", path=path)
    if target.exists() and not target.is_file():
        raise DataError("cannot be written: is no ordinary file; name another", path=path)
    if not os.access(target if target.exists() else target.parent, os.W_OK):
        raise DataError("cannot be written: no permission to write there", path=path)


def storable(text: str) -> bool:
    """Whether ``text`` can be written as UTF-8 without a NUL and read again as it was."""
    if "\0" in text:
        return False
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
