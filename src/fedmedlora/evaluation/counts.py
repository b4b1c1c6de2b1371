"""Counts of true positives, predictions and gold; precision, recall and F1 derive from them.

Counts add over documents, types and cohorts; ratios never do.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Counts:
    """What was found, what was predicted and what was there.

    Attributes:
        tp: true positives, at most ``predicted`` and at most ``gold``.
        predicted: predictions.
        gold: gold annotations.
    """

    tp: int = 0
    predicted: int = 0
    gold: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.tp + other.tp, self.predicted + other.predicted, self.gold + other.gold)

    @property
    def precision(self) -> float | None:
        """``tp / predicted`` in [0, 1]; ``None`` where nothing was predicted (0 / 0)."""
        return self.tp / self.predicted if self.predicted else None

    @property
    def recall(self) -> float | None:
        """``tp / gold`` in [0, 1]; ``None`` where gold has nothing (0 / 0)."""
        return self.tp / self.gold if self.gold else None

    @property
    def f1(self) -> float | None:
        """``2 tp / (predicted + gold)`` in [0, 1]; ``None`` only where both are empty (0 / 0).

        This is the harmonic mean of precision and recall, carried on to the cases in which one of
        them is 0 / 0: a model that finds nothing where there was something has F1 0, not "none".
        """
        total = self.predicted + self.gold
        return 2 * self.tp / total if total else None
