"""How much maps look at the same place: means of the correlations between pairs of them, from sums alone.

With u_i a map minus its mean, divided by its norm, u_i·u_j is the correlation of two maps.  Over n maps with S = Σu_i

    agreement    mean of u_i·u_j, i ≠ j                 (|S|² − n) / (n(n − 1))
    crossing     mean of u_i·v_j, v_j of other maps     S·(T − S) / (n(N − n)),  T the sum over all N maps
    of one map   mean of u_i·u_j, j ≠ i                 (u_i·S − 1) / (n − 1)

so that one reading of the maps is enough for the first two, and a second for the third.
"""

from __future__ import annotations

import numpy as np

FLAT = 1e-6  # norm of a map minus its mean, against its largest value, below which it points nowhere


def unit_maps(maps: np.ndarray) -> np.ndarray:
    """Return u (n, p), float32, of maps (n, p): centred, of norm 1; zeros for a flat map.

    >>> unit_maps(np.array([[0.0, 0, 4, 4], [1, 1, 1, 1]])).tolist()
    [[-0.5, -0.5, 0.5, 0.5], [0.0, 0.0, 0.0, 0.0]]
    """
    if not maps.size:
        return np.zeros(maps.shape, np.float32)
    centred = maps - maps.mean(axis=1, keepdims=True)
    norm = np.sqrt(np.einsum("np,np->n", centred, centred))[:, None]
    flat = norm <= FLAT * np.abs(maps).max(axis=1, keepdims=True, initial=0)
    return np.asarray(np.where(flat, 0, centred / np.where(flat, 1, norm)), np.float32)


def agreement(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the mean correlation (C,) between two maps of each class; NaN where there are fewer than two.

    Parameters
    ----------
    sums : ndarray of shape (C, p)
        S of each class.
    counts : ndarray of shape (C,)
        n of each class.

    Examples
    --------
    Two maps that are alike, two that are opposites:

    >>> agreement(np.array([[1.0, -1, 1, -1], [0, 0, 0, 0]]), np.array([2, 2])).tolist()
    [1.0, -1.0]
    """
    squared = np.einsum("cp,cp->c", sums, sums)
    return _divided(squared - counts, counts * (counts - 1.0))


def crossing(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the mean correlation (C,) between a map of each class and one of another; NaN where there is no other."""
    others = np.einsum("cp,cp->c", sums, sums.sum(axis=0) - sums)
    return _divided(others, counts * (counts.sum() - counts.astype(np.float64)))


def agreement_of_each(units: np.ndarray, sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the mean correlation (n,) of each map with the others of its class; NaN where there are none.

    Parameters
    ----------
    units : ndarray of shape (n, p)
    sums : ndarray of shape (n, p)
        S of each map's class.
    counts : ndarray of shape (n,)
        n of each map's class.
    """
    return _divided(np.einsum("np,np->n", units, sums) - 1, counts - 1.0)


def known(value: float) -> float | None:
    """Return a figure; None for NaN."""
    return None if np.isnan(value) else float(value)


def _divided(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.asarray(np.where(below > 0, above / np.where(below > 0, below, 1), np.nan))
