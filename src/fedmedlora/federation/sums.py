"""Hashes of all files of a folder, in the form that ``sha256sum -c SHA256SUMS`` checks.

A flipped bit anywhere in the folder, this file included, a file that is gone and one that was added
are found.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from fedmedlora.durable import write_bytes
from fedmedlora.errors import AdapterError

SUMS_FILE = "SHA256SUMS"
_LINE = re.compile(r"([0-9a-f]{64})  (\S.*)")


def write_sums(folder: Path) -> None:
    """Write the hashes of all files that are in a folder now, its subfolders' too."""
    lines = [f"{file_sha256(folder / name)}  {name}\n" for name in _names(folder)]
    write_bytes(folder / SUMS_FILE, "".join(lines).encode())


def check_sums(folder: Path) -> None:
    """Refuse a folder that is not as it was when its hashes were written.

    Raises:
        AdapterError: it is not; the message names the first file.
        OSError: a file cannot be read.
    """
    place = folder / SUMS_FILE
    try:
        *lines, end = place.read_bytes().decode().split("\n")
    except ValueError as error:
        raise AdapterError(f"{place} is broken") from error
    found = [_LINE.fullmatch(line) for line in lines]
    wanted = {one[2]: one[1] for one in found if one is not None}
    if end or None in found or len(wanted) != len(lines):
        raise AdapterError(f"{place} is broken")
    names = _names(folder)
    for name in sorted(set(names) ^ set(wanted)):
        word = "is missing" if name in wanted else "was added"
        raise AdapterError(f"{folder / name} {word}")
    for name in names:
        if file_sha256(folder / name) != wanted[name]:
            raise AdapterError(f"{folder / name} was changed or damaged")


def sums_sha256(folder: Path) -> str:
    """SHA-256 (hex) of the hashes' file: stands for the whole folder; "" if it has none."""
    place = folder / SUMS_FILE
    return file_sha256(place) if place.exists() else ""


def _names(folder: Path) -> list[str]:
    files = (path for path in folder.rglob("*") if not path.is_dir())
    return sorted(
        name for path in files if (name := path.relative_to(folder).as_posix()) != SUMS_FILE
    )


def file_sha256(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
