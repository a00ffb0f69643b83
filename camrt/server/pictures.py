"""Explanations as pictures and arrays, as answers carry them."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from reprlib import repr as brief

import cv2
import numpy as np

from camrt.errors import ParameterError
from camrt.explanation import Explanation
from camrt.photo import Photo
from camrt.render import COLORMAPS, encode_png
from camrt.server.errors import Refusal

OVERLAY, HEATMAP, NONE = "overlay", "heatmap", "none"


@dataclass(frozen=True)
class Look:
    """How pictures look.

    Attributes
    ----------
    alpha : float
    colormap : str
    longest : int or None
        Most pixels of the longer side.
    """

    alpha: float = 0.5
    colormap: str = "turbo"
    longest: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.alpha, bool | str) or not 0 <= self.alpha <= 1:
            raise ParameterError(f"alpha must lie in [0, 1], got {brief(self.alpha)}.")
        if self.colormap not in COLORMAPS:
            raise ParameterError(f"colormap must be one of {', '.join(COLORMAPS)}, got {brief(self.colormap)}.")
        if self.longest is not None and (type(self.longest) is not int or self.longest < 1):
            raise ParameterError(f"longest must be a number of pixels, got {brief(self.longest)}.")


def shrunk(explanation: Explanation, longest: int | None) -> Explanation:
    """Return the explanation on a photo whose longer side has at most so many pixels."""
    height, width = explanation.geometry.photo
    if longest is None or max(height, width) <= longest:
        return explanation
    ratio = longest / max(height, width)
    size = (max(1, round(height * ratio)), max(1, round(width * ratio)))
    pixels = cv2.resize(explanation.photo.pixels, size[::-1], interpolation=cv2.INTER_AREA)
    return replace(explanation, photo=Photo(pixels), geometry=replace(explanation.geometry, photo=size))


def check_area(explanations: Sequence[Explanation], most: int) -> None:
    """Refuse pictures of more pixels than one answer may have.

    Raises
    ------
    Refusal
        422.
    """
    area = sum(math.prod(one.geometry.photo) * len(one.targets) for one in explanations)
    if area > most:
        raise Refusal(
            422,
            f"Pictures of {area:,} pixels are more than {most:,} in all. "
            "Ask for fewer images or classes, or for smaller pictures with longest=1024.",
        )


def pictures(explanation: Explanation, kind: str, look: Look) -> list[bytes]:
    """Return a PNG for every target: its heatmap in grey, or over the photo."""
    if kind == OVERLAY:
        drawn = (explanation.overlay(i, alpha=look.alpha, colormap=look.colormap) for i in range(len(explanation.targets)))
        return [encode_png(one) for one in drawn]
    return [encode_png(np.rint(one * 255).astype(np.uint8)) for one in explanation.heatmap]


def npy(array: np.ndarray) -> bytes:
    """Return an array as an .npy file."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()
