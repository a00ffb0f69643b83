"""A row's heatmap on its photo, as `Explanation.heatmap` is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from camrt.errors import ImageError
from camrt.image import Geometry, restore, upsample
from camrt.preprocess import MAX_SIDE
from camrt.scale.schema import GEOMETRY

NO_HEATMAP = np.zeros((1, 1), np.float32)


def on_photo(row: Mapping[str, Any], photo: tuple[int, int] | None = None) -> np.ndarray:
    """Return a row's heatmap on its photo.

    Parameters
    ----------
    row : mapping
        By the names of the columns: a row of a data frame, or a dict.
    photo : (int, int), optional
        Height and width of the heatmap; by default the photo's own.

    Returns
    -------
    ndarray of shape (H0, W0), float32 in [0, 1]
        0 where the network did not look, and everywhere where the row has no heatmap.

    Raises
    ------
    ImageError
        The row's numbers cannot be those of a photo; those of a photo that could not be read are missing.
    """
    where = geometry_of(row, photo)
    return np.asarray(np.clip(restore(upsample(features_heatmap(row), where.network), where), 0, 1))


def features_heatmap(row: Mapping[str, Any]) -> np.ndarray:
    """Return a row's heatmap (h, w), float32, cut off below 0; a single 0 where it has none."""
    found = row["heatmap"]
    if found is None:
        return NO_HEATMAP
    return np.asarray(np.maximum(np.stack([np.asarray(line, np.float32) for line in found]), 0), np.float32)


def geometry_of(row: Mapping[str, Any], photo: tuple[int, int] | None = None) -> Geometry:
    """Return where the network's window lies on a row's photo, or on that photo in the size `photo`.

    Raises
    ------
    ImageError
        The row's numbers cannot be those of a photo.
    """
    sides = [0 if row[name] is None or row[name] != row[name] else int(row[name]) for name in GEOMETRY]  # pandas has NaN
    height, width, *resized, top, left, rows, columns = sides
    size = photo or (height, width)
    if min(*size, *resized, rows, columns) > 0 and max(*resized, rows, columns) <= MAX_SIDE:
        where = Geometry(size, (resized[0], resized[1]), top, left, (rows, columns))
        if where.seen().any():
            return where
    raise ImageError("The row does not tell where the network's window lies on the photo.")
