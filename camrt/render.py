"""Draw a heatmap over its photo."""

from __future__ import annotations

import cv2
import numpy as np

from camrt.errors import ParameterError

COLORMAPS = {
    "turbo": cv2.COLORMAP_TURBO,
    "inferno": cv2.COLORMAP_INFERNO,
    "viridis": cv2.COLORMAP_VIRIDIS,
    "jet": cv2.COLORMAP_JET,
}


def overlay(
    pixels: np.ndarray, heatmap: np.ndarray, seen: np.ndarray, *, alpha: float = 0.5, colormap: str = "turbo"
) -> np.ndarray:
    """Return the photo with the heatmap over it.

    Parameters
    ----------
    pixels : ndarray of shape (H, W, 3), uint8 RGB
    heatmap : ndarray of shape (H, W), float32 in [0, 1]
    seen : ndarray of shape (H, W), bool
        What the network did not see keeps the photo's colours.
    alpha : float in [0, 1], default 0.5
        Weight of the heatmap's colours.
    colormap : {"turbo", "inferno", "viridis", "jet"}

    Returns
    -------
    ndarray of shape (H, W, 3), uint8 RGB

    Raises
    ------
    ParameterError
        `alpha` or `colormap` is not allowed.
    """
    if not 0 <= alpha <= 1:
        raise ParameterError(f"alpha must lie in [0, 1], got {alpha}.")
    blended = cv2.addWeighted(pixels, 1 - alpha, colors(heatmap, colormap), alpha, 0)
    return np.where(seen[..., None], blended, pixels)


def colors(heatmap: np.ndarray, colormap: str = "turbo") -> np.ndarray:
    """Return the colours (H, W, 3), uint8 RGB, of a heatmap (H, W) in [0, 1]."""
    if colormap not in COLORMAPS:
        raise ParameterError(f"colormap must be one of {', '.join(COLORMAPS)}, got {colormap!r}.")
    levels = np.rint(heatmap * 255).astype(np.uint8)
    return np.ascontiguousarray(cv2.applyColorMap(levels, COLORMAPS[colormap])[..., ::-1])


def encode_png(pixels: np.ndarray) -> bytes:
    """Return an image as PNG: RGB (H, W, 3) or grey (H, W), uint8."""
    done, data = cv2.imencode(".png", np.ascontiguousarray(pixels[..., ::-1]) if pixels.ndim == 3 else pixels)
    assert done, "OpenCV encodes every 8-bit image as PNG"
    return data.tobytes()


def encode_jpeg(pixels: np.ndarray, quality: int) -> bytes:
    """Return an RGB image (H, W, 3), uint8, as JPEG."""
    done, data = cv2.imencode(".jpg", np.ascontiguousarray(pixels[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done, "OpenCV encodes every 8-bit RGB image as JPEG"
    return data.tobytes()
