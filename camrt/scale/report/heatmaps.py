"""Heatmaps out of Arrow's lists of lists, as one array."""

from __future__ import annotations

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

LARGEST = 28  # cells a side: larger maps are shrunk, so that the sums of many classes stay small


def read_heatmaps(column: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Return the heatmaps of a column, cut off below 0, and which rows have one.

    Parameters
    ----------
    column : list<list<halffloat>> array of length N
        Null where there is no heatmap; all others of one shape.

    Returns
    -------
    maps : ndarray of shape (n, h, w), float32
        Of the rows that have one; h and w are 0 where there is none.
    there : ndarray of shape (N,), bool

    Raises
    ------
    ValueError
        The shapes differ, or values are missing or not finite.
    """
    there = np.asarray(column.is_valid())
    lines = column.flatten()  # of what is not null
    count, values = int(there.sum()), lines.flatten()
    if not count:
        return np.zeros((0, 0, 0), np.float32), there
    height, width = _only(column), _only(lines)
    maps = values.to_numpy(zero_copy_only=False).astype(np.float32)
    if lines.null_count or values.null_count or maps.size != count * height * width or not np.isfinite(maps).all():
        raise ValueError("values of heatmaps are missing or not finite")
    return np.maximum(maps, 0, out=maps).reshape(count, height, width), there


def _only(lists: pa.Array) -> int:
    """Return the one length that all lists have."""
    ends = pc.min_max(pc.list_value_length(lists))
    if ends["min"] != ends["max"] or not ends["max"].as_py():
        raise ValueError("the heatmaps differ in shape")
    return int(ends["max"].as_py())


def reduced(maps: np.ndarray) -> np.ndarray:
    """Return maps (n, h, w), those of more than `LARGEST` cells a side as means over areas."""
    if max(maps.shape[1:]) <= LARGEST or not len(maps):
        return maps
    height, width = (min(side, LARGEST) for side in maps.shape[1:])
    return np.stack([cv2.resize(one, (width, height), interpolation=cv2.INTER_AREA) for one in maps])


def mean_heatmap(total: np.ndarray, count: int, size: tuple[int, int] | None) -> np.ndarray | None:
    """Return the mean (h, w) of `count` heatmaps whose sum is `total` (h·w,); None where there is none."""
    return (total / count).reshape(size) if count and size else None
