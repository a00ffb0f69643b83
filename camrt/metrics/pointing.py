"""The pointing game, on points and on energy: does the heatmap lie on the object?

Pointing game: Zhang et al., Top-down Neural Attention by Excitation Backprop, ECCV 2016 (arXiv 1608.00507); the tolerance
of 15 pixels is theirs.  Energy: Wang et al., Score-CAM, CVPR Workshops 2020 (arXiv 1910.01279).
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from camrt.errors import ParameterError
from camrt.image import is_flat
from camrt.metrics.checks import check_heatmap, check_region

TOLERANCE = 15  # pixels, of the published protocol; an option


def pointing_game(heatmap: np.ndarray, region: np.ndarray, tolerance: float = 0) -> bool:
    """Tell whether a maximum of the heatmap lies in the region; a flat heatmap misses.

    Parameters
    ----------
    heatmap : ndarray of shape (H, W)
        Of several equal maxima one in the region is enough.
    region : ndarray of shape (H, W), bool
        The object's; see `box_region` and `camrt.image.on_network`.
    tolerance : float, default 0
        Pixels of this array between a maximum and the nearest pixel of the region, centre to centre, that still hit.

    Raises
    ------
    ParameterError
        The region is of another shape or not bool, the heatmap is not finite, or the tolerance is negative.
    """
    heat = check_heatmap(heatmap)
    inside = check_region(region, heat.shape)
    if not tolerance >= 0:
        raise ParameterError(f"tolerance must be 0 pixels or more, got {tolerance}. The published one is {TOLERANCE}.")
    if is_flat(heat.min(), heat.max()) or not inside.any():
        return False
    if tolerance > 0:
        farthest = min(tolerance, sum(heat.shape))  # more is the whole image, and may be more than a float holds
        inside = cv2.distanceTransform((~inside).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE) <= farthest
    return bool(inside[heat == heat.max()].any())


def energy_pointing_game(heatmap: np.ndarray, region: np.ndarray) -> float:
    """Return the share of the heatmap's sum that lies in the region, in [0, 1]; 0 for a heatmap of zeros.

    Parameters
    ----------
    heatmap : ndarray of shape (H, W), at least 0
    region : ndarray of shape (H, W), bool

    Raises
    ------
    ParameterError
        The region is of another shape or not bool, or the heatmap is negative somewhere or not finite.
    """
    heat = check_heatmap(heatmap)
    inside = check_region(region, heat.shape)
    if heat.min() < 0:
        raise ParameterError(f"heatmap must be at least 0 to share it out, got {heat.min():g}. Take its positive part.")
    return float(heat[inside].sum() / heat.sum()) if heat.any() else 0.0


def box_region(boxes: Sequence[Sequence[float]] | np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return (H0, W0) bool: the photo's pixels whose centres lie in one of the boxes.

    Parameters
    ----------
    boxes : sequence of (x0, y0, x1, y1)
        Left, top, right and bottom in the photo's pixels; pixel (0, 0) reaches from 0 to 1.
    shape : (int, int)
        Height and width of the photo.

    Raises
    ------
    ParameterError
        A box has not four finite numbers, or its right or bottom lies before its left or top.

    Examples
    --------
    >>> box_region([(1, 0, 3, 1)], (2, 4)).astype(int)
    array([[0, 1, 1, 0],
           [0, 0, 0, 0]])
    """
    region = np.zeros(shape, bool)
    y, x = (np.arange(n) + 0.5 for n in shape)
    for box in boxes:
        x0, y0, x1, y1 = _checked(box)
        region |= ((y >= y0) & (y <= y1))[:, None] & ((x >= x0) & (x <= x1))
    return region


def _checked(box: Sequence[float] | np.ndarray) -> tuple[float, ...]:
    found = tuple(map(float, box))
    if len(found) != 4 or not np.isfinite(found).all() or found[0] > found[2] or found[1] > found[3]:
        raise ParameterError(
            f"A box must be (x0, y0, x1, y1) with x0 ≤ x1 and y0 ≤ y1, got {found}. Add x and y to a width and height."
        )
    return found
