"""A heatmap as small as a report needs it."""

from __future__ import annotations

import base64

import cv2
import numpy as np

from camrt.errors import ParameterError
from camrt.picture import fitted

LONGEST = 56  # pixels of its longest side


def thumbnail(heatmap: np.ndarray) -> str:
    """Return a heatmap (H, W) as a small grey PNG in base64."""
    size = fitted(heatmap.shape, LONGEST, enlarged=False)
    small = cv2.resize(heatmap, size[::-1], interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".png", np.round(small * 255).astype(np.uint8))
    return base64.b64encode(data.tobytes()).decode()


def read_thumbnail(text: str) -> np.ndarray:
    """Return what `thumbnail` kept, (h, w) float32 in [0, 1].

    Raises
    ------
    ParameterError
        It was changed.
    """
    try:
        grey = cv2.imdecode(np.frombuffer(base64.b64decode(text), np.uint8), cv2.IMREAD_GRAYSCALE)
    except (ValueError, cv2.error):
        grey = None
    if grey is None:
        raise ParameterError("A heatmap among the results is damaged. Measure again: --restart.")
    return np.asarray(grey, np.float32) / 255
