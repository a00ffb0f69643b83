"""Heatmaps in colours, and over their photos where these can still be read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from camrt.errors import CamrtError, ImageError
from camrt.image import upsample
from camrt.photo import load_photo
from camrt.picture import SIDE, fitted
from camrt.render import colors, overlay
from camrt.scale.on_photo import features_heatmap, geometry_of, on_photo
from camrt.scale.paths import image_at

MAX_PIXELS = 40_000_000  # of a photo that is read: it takes three bytes a pixel


@dataclass(frozen=True)
class Drawn:
    """A row, drawn with its photo where that can be read.

    Attributes
    ----------
    pixels : ndarray of shape (H, W, 3), uint8 RGB
    missing : str or None
        Why the photo could not be read, so that the heatmap stands alone.
    """

    pixels: np.ndarray
    missing: str | None = None


def tile(heatmap: np.ndarray, side: int = SIDE) -> np.ndarray:
    """Return the colours (H, W, 3) of a heatmap (h, w), `side` pixels at its longest side."""
    return colors(np.clip(upsample(heatmap, fitted(heatmap.shape, side)), 0, 1))


def alone(row: Mapping[str, Any]) -> np.ndarray:
    """Return the colours (H, W, 3) of a row's heatmap, in the network's window."""
    return tile(features_heatmap(row))


def over_photo(row: Mapping[str, Any]) -> Drawn:
    """Return a row's heatmap over its photo, or alone where that cannot be read.

    Parameters
    ----------
    row : mapping
        By the names of the columns.
    """
    try:
        return Drawn(_over_photo(row))
    except (CamrtError, OSError, ValueError, cv2.error) as error:
        return Drawn(alone(row), str(error))


def _over_photo(row: Mapping[str, Any]) -> np.ndarray:
    photo = load_photo(image_at(row["source"] or ""), MAX_PIXELS).pixels
    if photo.shape[:2] != (row["photo_height"], row["photo_width"]):
        raise ImageError("The photo is no longer the one that was explained: its size has changed.")
    small = cv2.resize(photo, fitted(photo.shape, SIDE)[::-1], interpolation=cv2.INTER_AREA)
    if row["heatmap"] is None:
        return small
    size = (small.shape[0], small.shape[1])
    return overlay(small, on_photo(row, size), geometry_of(row, size).seen())
