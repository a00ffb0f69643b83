"""Where a map has its peak, and how people call that place."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

THIRD = 1 / 3


class Peak(NamedTuple):
    """Where a map is greatest.

    Attributes
    ----------
    row, column : float in [-1, 1]
        0 is the middle; −1 the first, 1 the last row or column of cells.
    """

    row: float
    column: float

    @property
    def distance(self) -> float:
        """Return how far from the centre it lies: 0 there, 1 in a corner."""
        return float(np.hypot(self.row, self.column) / np.sqrt(2))

    @property
    def words(self) -> str:
        """Return the place in words.

        >>> Peak(-1, 0.9).words, Peak(0.1, -0.2).words, Peak(0, 1).words
        ('top right', 'centre', 'right')
        """
        vertical = "top" if self.row < -THIRD else "bottom" if self.row > THIRD else ""
        horizontal = "left" if self.column < -THIRD else "right" if self.column > THIRD else ""
        return " ".join(filter(None, (vertical, horizontal))) or "centre"


def peak(heatmap: np.ndarray) -> Peak | None:
    """Return the peak of a map (h, w), the middle of it where it is a plateau; None where the map is the same everywhere.

    >>> peak(np.array([[0.0, 0, 1], [0, 0, 0], [0, 0, 0]]))
    Peak(row=-1.0, column=1.0)
    """
    if heatmap.max() == heatmap.min():
        return None
    where = np.argwhere(heatmap == heatmap.max()).mean(axis=0)
    return Peak(*(float(2 * at / (side - 1) - 1) if side > 1 else 0.0 for at, side in zip(where, heatmap.shape, strict=True)))
