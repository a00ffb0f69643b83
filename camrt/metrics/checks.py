"""What the metrics refuse: arrays of the wrong shape, values that are not finite, regions of another size."""

from __future__ import annotations

import numpy as np

from camrt.errors import ParameterError


def check_image(x: np.ndarray) -> np.ndarray:
    """Return a preprocessed image (C, H, W) as float32.

    Raises
    ------
    ParameterError
        It has another number of dimensions, or no pixels.
    """
    x = np.asarray(x, np.float32)
    if x.ndim != 3 or not x.size:
        raise ParameterError(f"x must be one preprocessed image (C, H, W), got shape {x.shape}. Measure images one by one.")
    return x


def check_heatmap(heatmap: np.ndarray, size: tuple[int, int] | None = None) -> np.ndarray:
    """Return a heatmap (H, W) as float64; zeros are legal.

    Parameters
    ----------
    heatmap : ndarray of shape (H, W)
    size : (int, int), optional
        H and W, where they are known.

    Raises
    ------
    ParameterError
        It has another shape, or values that are not finite.
    """
    heatmap = np.asarray(heatmap, np.float64)
    if heatmap.ndim != 2 or not heatmap.size:
        raise ParameterError(f"heatmap must be (H, W), got shape {heatmap.shape}. Take one target's: explanation.heatmap[0].")
    if size is not None and heatmap.shape != size:
        raise ParameterError(
            f"heatmap must be {size[0]} x {size[1]} like the image, got {heatmap.shape[0]} x {heatmap.shape[1]}. "
            "Of an explanation, network_heatmap is as large as the network's input, heatmap as the photo."
        )
    if not np.isfinite(heatmap).all():
        raise ParameterError("heatmap must be finite, got NaN or infinity. A heatmap that could not be made counts as zeros.")
    return heatmap


def check_region(region: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return a region (H, W) of bool.

    Raises
    ------
    ParameterError
        It is of another type or shape.
    """
    region = np.asarray(region)
    if region.dtype != np.bool_ or region.shape != size:
        raise ParameterError(
            f"region must be bool of shape {size}, got {region.dtype} of shape {region.shape}. "
            "camrt.image.on_network brings one from the photo to the network's input."
        )
    return region


def check_values(name: str, values: np.ndarray | float, low: float = -np.inf, high: float = np.inf) -> np.ndarray:
    """Return one number a photo as float64.

    Raises
    ------
    ParameterError
        A value is not finite, or outside of [low, high].
    """
    values = np.asarray(values, np.float64)
    wrong = ~(np.isfinite(values) & (values >= low) & (values <= high))
    if wrong.any():
        must = "finite" if np.isinf(low) else f"at least {low:g}" if np.isinf(high) else f"within {low:g}…{high:g}"
        raise ParameterError(f"{name} must be {must}, got {values[wrong][0]:g}. Give a failure its worst value.")
    return values


def check_alike(first: str, a: np.ndarray, second: str, b: np.ndarray) -> None:
    """Refuse two arrays of different shapes."""
    if a.shape != b.shape:
        raise ParameterError(
            f"{first} and {second} must have the same shape, got {a.shape} and {b.shape}. Give both of the same photos."
        )
