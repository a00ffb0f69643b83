"""The places of the rows with the least values, while they go by."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from camrt.scale.report.dataset import RowPlace


class Least:
    """The rows with the least values; the first ones of those that are alike.

    Parameters
    ----------
    most : int
        How many are kept.
    """

    def __init__(self, most: int):
        self._most = most
        self._values = np.zeros(0)
        self._places = np.zeros((0, 2), np.int64)

    def add(self, values: np.ndarray, part: int, rows: np.ndarray) -> None:
        """Add rows (n,) of a part with their values (n,); NaN is passed over."""
        limit = self._values[-1] if len(self._values) == self._most else np.inf
        low = values < limit
        if not low.any():
            return
        places = np.stack([np.full(int(low.sum()), part), rows[low]], axis=1)
        values, places = np.concatenate([self._values, values[low]]), np.concatenate([self._places, places])
        order = np.argsort(values, kind="stable")[: self._most]
        self._values, self._places = values[order], places[order]

    def __iter__(self) -> Iterator[tuple[float, RowPlace]]:
        for value, (part, row) in zip(self._values.tolist(), self._places.tolist(), strict=True):
            yield value, RowPlace(part, row)
