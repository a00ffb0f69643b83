"""Which classes look like shortcuts: the network looks at one place in photo after photo, where it does not look for others.

A class is suspicious when

    1. at least MIN_PHOTOS of its photos have a heatmap: of few, some agree by chance;
    2. its agreement is at least HIGH: one place stands out of the mean of its maps;
    3. it exceeds by MORE or more what its maps have in common with those of other classes: photographers centre whatever they
       photograph, and a network whose every map is a blob in the middle says nothing of this class.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from camrt.scale.report.agreement import agreement, crossing, known
from camrt.scale.report.classes import Classes
from camrt.scale.report.dataset import RowPlace
from camrt.scale.report.heatmaps import mean_heatmap
from camrt.scale.report.peak import Peak, peak

MIN_PHOTOS = 10
HIGH = 0.4
MORE = 0.25


@dataclass(frozen=True)
class ClassFigures:
    """The figures of a class.

    Attributes
    ----------
    index : int
    label : str
    photos, failed, maps : int
        Photos; those without a heatmap; heatmaps that are not flat.
    probability : float or None
        Mean.
    heatmap : ndarray of shape (h, w), or None
        Mean.
    peak : Peak or None
        Of the mean heatmap.
    agreement : float or None
        Mean correlation of two heatmaps of this class.
    others : float or None
        Mean correlation of a heatmap of this class with one of another.
    places : list of RowPlace
        Of some of its rows.
    """

    index: int
    label: str
    photos: int
    failed: int
    maps: int
    probability: float | None
    heatmap: np.ndarray | None
    peak: Peak | None
    agreement: float | None
    others: float | None
    places: list[RowPlace]

    @property
    def enough(self) -> bool:
        """Tell whether there are heatmaps enough to judge."""
        return self.maps >= MIN_PHOTOS

    @property
    def excess(self) -> float:
        """Return how much more the class agrees with itself than with others; −inf where that cannot be told."""
        return self.agreement - self.others if self.agreement is not None and self.others is not None else -np.inf

    @property
    def suspicious(self) -> bool:
        """Tell whether the class looks like a shortcut."""
        return self.enough and self.agreement is not None and self.agreement >= HIGH and self.excess >= MORE


def figures(classes: Classes, size: tuple[int, int] | None) -> list[ClassFigures]:
    """Return the figures of all classes: suspicious ones first, by falling excess, then the others by falling photos."""
    agreeing, others = agreement(classes.unit, classes.maps), crossing(classes.unit, classes.maps)
    found = []
    for slot, index in enumerate(classes.index):
        mean = mean_heatmap(classes.heatmap[slot], classes.rows[slot] - classes.failed[slot], size)
        found.append(ClassFigures(
            index=index, label=classes.labels[slot], photos=int(classes.rows[slot]), failed=int(classes.failed[slot]),
            maps=int(classes.maps[slot]), heatmap=mean, peak=None if mean is None else peak(mean),
            probability=float(classes.probability[slot] / classes.probable[slot]) if classes.probable[slot] else None,
            agreement=known(agreeing[slot]), others=known(others[slot]), places=classes.places[slot],
        ))  # fmt: skip
    return sorted(found, key=lambda one: (not one.suspicious, -one.excess if one.suspicious else 0, -one.photos, one.index))
