"""Packed adapters of one round, on disk from the reply to the sum: memory holds one at a time."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmedlora.errors import RunError


@dataclass(frozen=True)
class Spooled:
    """One array on disk."""

    path: Path

    def read(self) -> NDArray[Any]:
        """The array.

        Raises:
            RunError: it is gone or damaged.
        """
        try:
            array: NDArray[Any] = np.load(self.path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise RunError(f"{self.path}: a reply kept there cannot be read: {error}") from error
        return array

    def part(self, *places: tuple[int, int], kind: np.dtype[Any]) -> NDArray[Any]:
        """Values from (first to end) of each place, one after another; errors as of ``read``.

        Args:
            kind: of the array, which is known to be one-dimensional and of this type.
        """
        try:
            with self.path.open("rb") as file:
                # numpy's format 1.0: magic and version in 8 bytes, 2 of the header's length.
                begin = 10 + int.from_bytes(file.read(10)[8:], "little")
                pieces = []
                for first, end in places:
                    file.seek(begin + first * kind.itemsize)
                    pieces.append(np.fromfile(file, kind, end - first))
        except OSError as error:
            raise RunError(f"{self.path}: a reply kept there cannot be read: {error}") from error
        if [piece.size for piece in pieces] != [end - first for first, end in places]:
            raise RunError(f"{self.path}: a reply kept there is cut short")
        return np.concatenate(pieces) if len(pieces) > 1 else pieces[0]


class Spool:
    """A folder of arrays for as long as a round lasts.

    Args:
        folder: is made at the first array. Its name should be one that is cleared away after a
            crash (``durable.clear_leftovers``).
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0

    def put(self, array: NDArray[Any]) -> Spooled:
        """Write an array.

        Raises:
            RunError: it cannot be written.
        """
        return self._put(lambda path: np.save(path, array, allow_pickle=False))

    def put_bytes(self, data: bytes) -> Spooled:
        """Write an array as numpy saves it; errors as of ``put``."""
        return self._put(lambda path: path.write_bytes(data))

    def _put(self, write: Callable[[Path], object]) -> Spooled:
        self._count += 1
        path = self._folder / f"{self._count:05d}.npy"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            write(path)
        except OSError as error:
            raise RunError(f"cannot write {self._folder}: {error.strerror}") from error
        return Spooled(path)

    def clear(self) -> None:
        """Remove all."""
        shutil.rmtree(self._folder, ignore_errors=True)
