"""Packed adapters of one round, on disk from the reply to the sum: memory holds one at a time."""

from __future__ import annotations

import io
import shutil
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
        file = io.BytesIO()
        np.save(file, array, allow_pickle=False)
        return self.put_bytes(file.getvalue())

    def put_bytes(self, data: bytes) -> Spooled:
        """Write an array as numpy saves it; errors as of ``put``."""
        self._count += 1
        path = self._folder / f"{self._count:05d}.npy"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        except OSError as error:
            raise RunError(f"cannot write {self._folder}: {error.strerror}") from error
        return Spooled(path)

    def clear(self) -> None:
        """Remove all."""
        shutil.rmtree(self._folder, ignore_errors=True)
