"""Hold that a feature map lies as the image does: what changes in the image's upper right changes the map's upper right.

A map whose rows are the image's columns, or that a Reshape took for one, would give a heatmap that looks as good as any.
The image is changed in one field of a grid after the other; where the features change, weighted by how much, is compared
with where the field is.  Refused is only what clearly lies otherwise: networks that look everywhere at once tell nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from camrt.errors import ExportError

GRID = 4  # fields across and down
CLEAR, WEAK = 0.8, 0.5  # correlations that are evidence, and that are none
STILL = 1e-6  # of the largest change: a field that changes less says nothing

Features = Callable[[np.ndarray], np.ndarray]  # (N, 3, H, W) → (N, C, h, w)


def check_place(head: Features, images: np.ndarray, layer: str) -> None:
    """Refuse features whose rows and columns are not the image's.

    Parameters
    ----------
    head : callable
    images : ndarray of shape (2, 3, H, W)
        The second one's fields are put into the first.
    layer : str
        How the message names the features.

    Raises
    ------
    ExportError
        They are turned, mirrored, or no places at all.
    """
    if min(images.shape[2:]) < GRID:
        return
    fields, changes = _changes(head, images)
    if len(fields) < GRID * GRID // 2:
        return
    cells = np.indices(changes.shape[1:])
    total = changes.sum(axis=(1, 2))
    centres = [(changes * axis).sum(axis=(1, 2)) / total for axis in cells]
    for own, word in enumerate(("rows", "columns")):
        along, across = (_correlation(fields[:, axis], centres[own]) for axis in (own, 1 - own))
        if along < -CLEAR or (abs(across) > CLEAR and abs(along) < WEAK):
            how = "are mirrored" if along < -CLEAR else f"are the image's {('columns', 'rows')[own]}"
            raise ExportError(
                f"The features at {layer!r} do not lie as the image does: their {word} {how}, so that a heatmap would show the "
                "wrong places. Choose an earlier layer with --layer, or export the model without what turns its maps."
            )


def _changes(head: Features, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the fields (M, 2) that change the features, and how much each changes every cell, (M, h, w)."""
    first, second = images[:1], images[1:2]
    before = head(first).astype(np.float64)
    height, width = (length // GRID for length in first.shape[2:])
    fields, changes = [], []
    for row, column in np.ndindex(GRID, GRID):
        changed = first.copy()
        field = (..., slice(row * height, (row + 1) * height), slice(column * width, (column + 1) * width))
        changed[field] = second[field]
        fields.append((row, column))
        with np.errstate(invalid="ignore"):  # infinity less infinity tells nothing
            changes.append(np.abs(head(changed) - before)[0].sum(axis=0))
    found = np.stack(changes)
    found = np.where(np.isfinite(found), found, 0)
    total = found.sum(axis=(1, 2))
    moved = total > STILL * max(total.max(), np.finfo(np.float32).tiny)
    return np.array(fields)[moved], found[moved]


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Return the correlation of two series, 0 where one does not vary."""
    a, b = a - a.mean(), b - b.mean()
    size = np.sqrt((a * a).sum() * (b * b).sum())
    return float((a * b).sum() / size) if size > 1e-9 else 0.0
