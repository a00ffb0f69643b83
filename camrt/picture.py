"""Small pictures inside a page."""

from __future__ import annotations

import base64

import numpy as np

from camrt.markup import Html, tag
from camrt.render import encode_jpeg

SIDE = 192  # pixels of a picture's longest side
QUALITY = 80  # of JPEG


def picture(pixels: np.ndarray, told: str, title: str | None = None) -> Html:
    """Return an RGB picture (H, W, 3), uint8, with a text for those who do not see it, and perhaps a title."""
    source = f"data:image/jpeg;base64,{base64.b64encode(encode_jpeg(pixels, QUALITY)).decode()}"
    height, width = pixels.shape[:2]
    return tag("img", src=source, alt=told, title=title, width=width, height=height, loading="lazy")


def fitted(shape: tuple[int, ...], side: int, *, enlarged: bool = True) -> tuple[int, int]:
    """Return height and width with `side` as the longest; where nothing may be `enlarged`, at most that.

    >>> fitted((20, 40), 80), fitted((20, 40), 10), fitted((20, 40), 80, enlarged=False)
    ((40, 80), (5, 10), (20, 40))
    """
    ratio = side / max(shape[:2])
    if not enlarged:
        ratio = min(1.0, ratio)
    return max(1, round(shape[0] * ratio)), max(1, round(shape[1] * ratio))
