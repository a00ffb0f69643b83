"""What is summed up for every class while the rows go by."""

from __future__ import annotations

from typing import Any

import numpy as np

from camrt.scale.report.dataset import RowPlace

EXAMPLES = 4  # places of rows that are kept of each class


class Classes:
    """Sums over the rows of each class, in the order in which classes are met.

    Attributes
    ----------
    index : list of int
        The classes.
    labels : list of str
    rows, failed, probable, maps : ndarray of shape (C,), int64
        Rows; rows without a heatmap; rows with a probability; heatmaps that are not flat.
    probability : ndarray of shape (C,), float64
        Sum of the probabilities.
    heatmap, unit : ndarray of shape (C, p), float64
        Sum of the heatmaps, and of what `unit_maps` makes of them.
    places : list of list of RowPlace
        Of the first rows with a heatmap.
    """

    def __init__(self) -> None:
        self.index: list[int] = []
        self.labels: list[str] = []
        self.places: list[list[RowPlace]] = []
        self._slots: dict[int, int] = {}
        self._counts = np.zeros((0, 4), np.int64)
        self._probability = np.zeros(0)
        self._heatmap = self._unit = np.zeros((0, 0))

    def __len__(self) -> int:
        return len(self.index)

    rows = property(lambda self: self._counts[: len(self), 0])
    failed = property(lambda self: self._counts[: len(self), 1])
    probable = property(lambda self: self._counts[: len(self), 2])
    maps = property(lambda self: self._counts[: len(self), 3])
    probability = property(lambda self: self._probability[: len(self)])
    heatmap = property(lambda self: self._heatmap[: len(self)])
    unit = property(lambda self: self._unit[: len(self)])

    def slots(self, targets: np.ndarray, labels: Any) -> np.ndarray:
        """Return where the classes (n,) of rows stand here; new ones get a place, and their label."""
        unique, first, inverse = np.unique(targets, return_index=True, return_inverse=True)
        for target, row in zip(unique.tolist(), first.tolist(), strict=True):
            if target not in self._slots:
                self._slots[target] = len(self)
                self.index.append(target)
                self.labels.append(labels[row].as_py() or f"class {target}")
                self.places.append([])
        self._counts, self._probability = grown(self._counts, len(self)), grown(self._probability, len(self))
        self._heatmap, self._unit = grown(self._heatmap, len(self)), grown(self._unit, len(self))
        return np.array([self._slots[target] for target in unique.tolist()], np.int64)[inverse]

    def count(self, slots: np.ndarray, failed: np.ndarray, probability: np.ndarray) -> None:
        """Add rows: which have no heatmap, and their probabilities, NaN where there is none."""
        probable = np.isfinite(probability)
        columns = np.stack([np.ones(len(slots), np.int64), failed, probable, np.zeros(len(slots), np.int64)], axis=1)
        np.add.at(self._counts, slots, columns)
        np.add.at(self._probability, slots, np.where(probable, probability, 0))

    def add(self, slots: np.ndarray, maps: np.ndarray, units: np.ndarray) -> None:
        """Add heatmaps (n, p), and what `unit_maps` makes of them."""
        if not len(slots):
            return
        if not self._heatmap.shape[1]:
            self._heatmap, self._unit = (np.zeros((len(self._counts), maps.shape[1])) for _ in range(2))
        order = np.argsort(slots, kind="stable")
        there, starts = np.unique(slots[order], return_index=True)
        self._heatmap[there] += np.add.reduceat(maps[order], starts, axis=0, dtype=np.float64)
        self._unit[there] += np.add.reduceat(units[order], starts, axis=0, dtype=np.float64)
        np.add.at(self._counts[:, 3], slots, units.any(axis=1))

    def keep(self, slots: np.ndarray, part: int, rows: np.ndarray) -> None:
        """Keep the places of the first rows of each class."""
        for slot in np.unique(slots).tolist():
            kept = self.places[slot]
            if len(kept) < EXAMPLES:
                kept += [RowPlace(part, row) for row in rows[slots == slot][: EXAMPLES - len(kept)].tolist()]


def grown(array: np.ndarray, length: int) -> np.ndarray:
    """Return an array at least so long, with zeros at its end; it doubles, so that many small steps cost little."""
    if len(array) >= length:
        return array
    more = max(length, 2 * len(array)) - len(array)
    return np.concatenate([array, np.zeros((more, *array.shape[1:]), array.dtype)])
