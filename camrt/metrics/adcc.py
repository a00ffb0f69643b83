"""ADCC: average drop, coherency and complexity in one number, their harmonic mean.

    ADCC = 3 / (1 / coherency + 1 / (1 − complexity) + 1 / (1 − drop))

Poppi et al., Revisiting the Evaluation of Class Activation Mapping for Explainability, CVPR Workshops 2021
(arXiv 2104.10252).
"""

from __future__ import annotations

import numpy as np

from camrt.image import is_flat
from camrt.metrics.checks import check_heatmap, check_values


def complexity(heatmap: np.ndarray) -> float:
    """Return the mean of a heatmap (H, W) in [0, 1]; a small one is good."""
    return float(check_heatmap(heatmap).mean())


def coherency(heatmap: np.ndarray, again: np.ndarray) -> float:
    """Return (Pearson's correlation + 1) / 2, in [0, 1]; 0 where a map is flat.  Large is good.

    Parameters
    ----------
    heatmap : ndarray of shape (H, W)
        H(x).
    again : ndarray of shape (H, W)
        H(x ⊙ H(x)): that of the same class on the masked image.

    Raises
    ------
    ParameterError
        Their shapes differ, or a value is not finite.
    """
    a = check_heatmap(heatmap)
    b = check_heatmap(again, a.shape)
    if any(is_flat(m.min(), m.max()) for m in (a, b)):
        return 0.0
    a, b = a - a.mean(), b - b.mean()
    pearson = (a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum())
    return float(np.clip((pearson + 1) / 2, 0, 1))


def adcc(coherency: np.ndarray | float, complexity: np.ndarray | float, drop: np.ndarray | float) -> np.ndarray:
    """Return ADCC in [0, 1] of every photo; 0 where coherency, 1 − complexity or 1 − drop is 0.  Large is good.

    Parameters
    ----------
    coherency, complexity, drop : ndarray of shape (N,) or float, in [0, 1]
        `drop` as `average_drop` gives it.

    Raises
    ------
    ParameterError
        A value is outside of [0, 1] or not finite.

    Examples
    --------
    >>> adcc(0.5, 0.5, 0.5).item()
    0.5
    """
    names = ("coherency", "complexity", "drop")
    given = [check_values(name, v, 0, 1) for name, v in zip(names, (coherency, complexity, drop), strict=True)]
    terms = np.stack(np.broadcast_arrays(given[0], 1 - given[1], 1 - given[2]))
    some = (terms > 0).all(axis=0)
    with np.errstate(over="ignore"):  # of a term next to 0; ADCC is then 0
        return np.asarray(np.where(some, 3 / (1 / np.where(some, terms, 1)).sum(axis=0), 0))
