"""Small pictures: heatmaps as colours, and over their photos where these can still be read."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from camrt.errors import CamrtError, ImageError
from camrt.image import Geometry, restore, upsample
from camrt.markup import Html, tag
from camrt.photo import load_photo
from camrt.preprocess import MAX_SIDE
from camrt.render import colors, encode_jpeg, overlay
from camrt.scale.paths import image_at
from camrt.scale.schema import GEOMETRY

SIDE = 192  # pixels of a picture's longest side
MAX_PIXELS = 40_000_000  # of a photo that is read: it takes three bytes a pixel
QUALITY = 80  # of JPEG
NO_HEATMAP = np.zeros((1, 1), np.float32)


@dataclass(frozen=True)
class Picture:
    """A picture of a row.

    Attributes
    ----------
    pixels : ndarray of shape (H, W, 3), uint8 RGB
    missing : str or None
        Why the photo is not there, only the heatmap.
    """

    pixels: np.ndarray
    missing: str | None = None


def colours(heatmap: np.ndarray, side: int = SIDE) -> np.ndarray:
    """Return the colours (H, W, 3) of a heatmap (h, w), `side` pixels at its longest side."""
    return colors(np.clip(upsample(heatmap, _fitted(heatmap.shape, side)), 0, 1))


def picture(row: Mapping[str, Any], photos: bool = True) -> Picture:
    """Return the picture of a row: its heatmap over its photo, or alone in the network's window.

    Parameters
    ----------
    row : mapping
        By the names of the columns.
    photos : bool, default True
        Read the photo.
    """
    heatmap = NO_HEATMAP if row["heatmap"] is None else np.maximum(np.array(row["heatmap"], np.float32), 0)
    try:
        if not photos:
            raise ImageError("The photo was not asked for.")
        return Picture(_over_photo(row, heatmap))
    except (CamrtError, OSError, ValueError, cv2.error) as error:
        return Picture(colours(heatmap), str(error))


def _over_photo(row: Mapping[str, Any], heatmap: np.ndarray) -> np.ndarray:
    photo = load_photo(image_at(row["source"] or ""), MAX_PIXELS).pixels
    if photo.shape[:2] != (row["photo_height"], row["photo_width"]):
        raise ImageError("The photo is no longer the one that was explained: its size has changed.")
    small = cv2.resize(photo, _fitted(photo.shape, SIDE)[::-1], interpolation=cv2.INTER_AREA)
    if heatmap is NO_HEATMAP:
        return small
    where = geometry_of(row, (small.shape[0], small.shape[1]))
    on_photo = np.clip(restore(upsample(heatmap, where.network), where), 0, 1)
    return overlay(small, on_photo, where.seen())


def geometry_of(row: Mapping[str, Any], photo: tuple[int, int]) -> Geometry:
    """Return where the network's window lies on a row's photo, or on that photo in the size `photo`.

    Raises
    ------
    ImageError
        The row's numbers cannot be those of a photo.
    """
    sides = {name: row[name] for name in GEOMETRY}
    lengths = [value for name, value in sides.items() if name not in ("top", "left", "photo_height", "photo_width")]
    if None in sides.values() or not all(0 < side <= MAX_SIDE for side in lengths):
        raise ImageError("The row does not tell where the network's window lies on the photo.")
    resized, network = ((row[f"{of}_height"], row[f"{of}_width"]) for of in ("resized", "network"))
    where = Geometry(photo, resized, row["top"], row["left"], network)
    if not where.seen().any():
        raise ImageError("The row does not tell where the network's window lies on the photo.")
    return where


def _fitted(shape: tuple[int, ...], side: int) -> tuple[int, int]:
    """Return height and width with `side` as the longest."""
    ratio = side / max(shape[:2])
    return max(1, round(shape[0] * ratio)), max(1, round(shape[1] * ratio))


def image(pixels: np.ndarray, told: str, title: str | None = None) -> Html:
    """Return an RGB picture (H, W, 3), uint8, with a text for those who do not see it."""
    source = f"data:image/jpeg;base64,{base64.b64encode(encode_jpeg(pixels, QUALITY)).decode()}"
    height, width = pixels.shape[:2]
    return tag("img", src=source, alt=told, title=title, width=width, height=height, loading="lazy")
