"""Average drop and increase: what the class loses when only the heatmap's part of the image is left.

    drop = max(0, p − p_m) / p,    increase = p_m > p,    p_m the probability on x ⊙ heatmap

Chattopadhay et al., Grad-CAM++, WACV 2018 (arXiv 1710.11063).
"""

from __future__ import annotations

import numpy as np

from camrt.metrics.checks import check_alike, check_heatmap, check_image, check_values


def masked(x: np.ndarray, heatmap: np.ndarray) -> np.ndarray:
    """Return x ⊙ heatmap (C, H, W), float32.

    Parameters
    ----------
    x : ndarray of shape (C, H, W), float32
        Preprocessed, so that 0 is the mean colour.
    heatmap : ndarray of shape (H, W), in [0, 1]
    """
    x = check_image(x)
    return x * check_heatmap(heatmap, x.shape[1:]).astype(np.float32)


def average_drop(whole: np.ndarray, masked: np.ndarray) -> np.ndarray:
    """Return each photo's drop, of the shape of both, in [0, 1]; 0 where p is 0.  Small is good, the mean is the figure.

    Parameters
    ----------
    whole, masked : ndarray of shape (N,)
        The class's probability on the image and on x ⊙ heatmap.

    Raises
    ------
    ParameterError
        Shapes differ, or a value is negative or not finite.

    Examples
    --------
    >>> average_drop(np.array([0.8, 0.5, 0.0]), np.array([0.2, 0.6, 0.1]))
    array([0.75, 0.  , 0.  ])
    """
    before, after = _pair(whole, masked)
    return np.asarray(np.maximum(before - after, 0) / np.where(before == 0, 1, before))


def increase(whole: np.ndarray, masked: np.ndarray) -> np.ndarray:
    """Tell of each photo whether its class gains, bool of the shape of both.  Many are good, the share is the figure.

    Parameters and errors are those of `average_drop`.

    Examples
    --------
    >>> increase(np.array([0.8, 0.5]), np.array([0.2, 0.6]))
    array([False,  True])
    """
    before, after = _pair(whole, masked)
    return np.asarray(after > before)


def _pair(whole: np.ndarray, masked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    before, after = check_values("whole", whole, low=0), check_values("masked", masked, low=0)
    check_alike("whole", before, "masked", after)
    return before, after
