"""Explanations as pictures and arrays, as answers carry them."""

from __future__ import annotations

import io
from dataclasses import replace

import cv2
import numpy as np

from camrt.explanation import Explanation
from camrt.photo import Photo
from camrt.render import encode_png
from camrt.server.errors import Refusal

OVERLAY, HEATMAP, NONE = "overlay", "heatmap", "none"


def shrunk(explanation: Explanation, longest: int | None) -> Explanation:
    """Return the explanation on a photo whose longer side has at most so many pixels."""
    height, width = explanation.geometry.photo
    if longest is None or max(height, width) <= longest:
        return explanation
    ratio = longest / max(height, width)
    size = (max(1, round(height * ratio)), max(1, round(width * ratio)))
    pixels = cv2.resize(explanation.photo.pixels, size[::-1], interpolation=cv2.INTER_AREA)
    return replace(explanation, photo=Photo(pixels), geometry=replace(explanation.geometry, photo=size))


def check_area(explanation: Explanation, most: int) -> None:
    """Refuse pictures of more pixels than one answer may have."""
    height, width = explanation.geometry.photo
    if height * width * len(explanation.targets) > most:
        raise Refusal(
            422,
            f"{len(explanation.targets)} pictures of {width} x {height} pixels are more than {most:,} in all. "
            "Ask for fewer classes, or for smaller pictures with longest=1024.",
        )


def pictures(explanation: Explanation, kind: str, alpha: float, colormap: str) -> list[bytes]:
    """Return a PNG for every target: its heatmap in grey, or over the photo."""
    if kind == OVERLAY:
        return [encode_png(explanation.overlay(i, alpha=alpha, colormap=colormap)) for i in range(len(explanation.targets))]
    return [encode_png(np.rint(one * 255).astype(np.uint8)) for one in explanation.heatmap]


def npy(array: np.ndarray) -> bytes:
    """Return an array as an .npy file."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()
