"""Gradients of rows in, the sum of units' clipped gradients out.

A unit's rows may pass the model in several pieces, if it has more than fit; it is clipped once,
when all of them are there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from fedmedlora.model.row_gradients import RowGradients


@dataclass(frozen=True)
class Piece:
    """Rows that pass the model at once: some whole units, or a part of one that is too large.

    Attributes:
        rows: places.
        units: of each row, its unit within the piece, from 0.
        sizes: of each row, how many rows its unit has in this step.
        ends: whether its units end here.
    """

    rows: tuple[int, ...]
    units: tuple[int, ...]
    sizes: tuple[int, ...]
    ends: bool = True


def pieces(chosen: Sequence[Sequence[int]], *, most: int) -> Iterator[Piece]:
    """Units cut into pieces of at most ``most`` rows; the parts of a unit follow one another."""
    together: list[Sequence[int]] = []
    for unit in chosen:
        if len(unit) > most:
            for at in range(0, len(unit), most):
                part = tuple(unit[at : at + most])
                same = (0,) * len(part)
                yield Piece(part, same, (len(unit),) * len(part), at + most >= len(unit))
            continue
        if sum(map(len, together)) + len(unit) > most:
            yield _whole(together)
            together = []
        together.append(unit)
    if together:
        yield _whole(together)


def _whole(units: Sequence[Sequence[int]]) -> Piece:
    return Piece(
        tuple(row for unit in units for row in unit),
        tuple(number for number, unit in enumerate(units) for _ in unit),
        tuple(len(unit) for unit in units for _ in unit),
    )


class ClippedSum:
    """Adds up units' gradients, each clipped over all parameters together.

    Attributes:
        by_name: parameter -> the sum, flat; empty if nothing was added.

    Args:
        max_norm: C: a unit's gradient g enters as g min(1, C / |g|). Values of a row that are no
            number enter as 0.
    """

    def __init__(self, max_norm: float) -> None:
        self.by_name: dict[str, torch.Tensor] = {}
        self._max_norm = max_norm
        self._begun: dict[str, torch.Tensor] = {}

    def add(self, gradients: RowGradients, *, weights: Sequence[float], piece: Piece) -> None:
        """Add the units of a piece, or keep them until the piece in which they end.

        Args:
            gradients: of the piece's rows.
            weights: of each row in its unit's gradient.
            piece: which row is whose.
        """
        rows = {name: value.flatten(1) for name, value in gradients.by_name.items()}
        if not rows:
            return
        device = next(iter(rows.values())).device
        members = torch.zeros(max(piece.units) + 1, len(piece.rows), device=device)
        members[list(piece.units), range(len(piece.rows))] = torch.tensor(
            weights, dtype=torch.float32, device=device
        )
        if not piece.ends:
            for name, value in rows.items():
                part = (members @ value)[0]
                self._begun[name] = self._begun[name] + part if name in self._begun else part
            return
        squares = self._squares(members, rows)
        if not bool(torch.isfinite(squares).all()):
            rows = _tamed_rows(rows, members.sum(0))
            self._begun = {name: _tame(value) for name, value in self._begun.items()}
            squares = self._squares_of_units(members, rows)
        factors = self._max_norm / squares.sqrt().clamp(min=self._max_norm)
        for name, value in rows.items():
            added = (factors @ members) @ value
            if name in self._begun:
                added += factors[0] * self._begun[name]
            self.by_name[name] = self.by_name[name] + added if name in self.by_name else added
        self._begun = {}

    def _squares(self, members: torch.Tensor, rows: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The squared norm of every unit's gradient."""
        alone = len(members) == members.shape[1] and not self._begun
        if alone:  # a row each: nothing to add up first
            norms = torch.stack([value.norm(dim=1) for value in rows.values()])
            return (norms * members.sum(0)).square().sum(0)
        return self._squares_of_units(members, rows)

    def _squares_of_units(
        self, members: torch.Tensor, rows: Mapping[str, torch.Tensor]
    ) -> torch.Tensor:
        squares = torch.zeros(len(members), device=members.device)
        for name, value in rows.items():
            of_units = members @ value
            if name in self._begun:
                of_units[0] += self._begun[name]
            squares += of_units.square().sum(1)
        return squares


def _tamed_rows(rows: Mapping[str, torch.Tensor], weights: torch.Tensor) -> dict[str, torch.Tensor]:
    """Rows whose norm is not finite, made such that they can be clipped; the others as they are.

    By each row alone: were it by all rows together, one unit could change what another adds.
    """
    squares = [(value * weights[:, None]).square().sum(1) for value in rows.values()]
    wild = ~torch.isfinite(torch.stack(squares).sum(0))[:, None]
    return {name: torch.where(wild, _tame(value), value) for name, value in rows.items()}


def _tame(values: torch.Tensor) -> torch.Tensor:
    """Values that can be clipped."""
    return torch.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0).clamp(-1e12, 1e12)
