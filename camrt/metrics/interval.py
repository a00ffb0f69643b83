"""How sure a mean over photos is: the percentile bootstrap (Efron, Tibshirani, An Introduction to the Bootstrap, 1993, § 13.3).

The photos are drawn again and again with replacement; the middle 95 % of the means are the interval.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from camrt.errors import ParameterError
from camrt.metrics.checks import check_alike, check_values

LEVEL = 0.95
RESAMPLES = 2000


@dataclass(frozen=True)
class Interval:
    """A mean over n photos, and between which values it lies.

    Attributes
    ----------
    mean, low, high : float
    n : int
        One photo alone has no width: low = high = mean.
    """

    mean: float
    low: float
    high: float
    n: int

    @property
    def verdict(self) -> str:
        """Of a difference: "higher", "lower", or "undecided" where 0 is not excluded or there is one photo alone."""
        if self.n > 1 and self.low > 0:
            return "higher"
        return "lower" if self.n > 1 and self.high < 0 else "undecided"


def bootstrap(values: np.ndarray, *, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """Return the mean of one number a photo with its bootstrap interval.

    Parameters
    ----------
    values : ndarray of shape (n,)
        At least one; a failure counts with its worst value.
    level : float, default 0.95
        Between 0 and 1.
    resamples : int, default 2000
    seed : int, default 0

    Raises
    ------
    ParameterError
        There is no value, one is not finite, or the level or the number of resamples is outside what is allowed.

    Examples
    --------
    >>> bootstrap(np.array([0.25]))
    Interval(mean=0.25, low=0.25, high=0.25, n=1)
    """
    values = check_values("values", values)
    if values.ndim != 1 or not values.size:
        raise ParameterError(f"values must be one number a photo (n,), got shape {values.shape}. Measure at least one photo.")
    if not 0 < level < 1 or resamples < 1:
        raise ParameterError(f"level must lie between 0 and 1 and resamples be 1 or more, got {level} and {resamples}.")
    rng, n = np.random.default_rng(seed), len(values)
    means = [values[rng.integers(0, n, n)].mean() for _ in range(resamples)]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(values.mean()), float(low), float(high), n)


def paired(a: np.ndarray, b: np.ndarray, *, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """Return the mean of a − b with its interval; its verdict tells whether a is higher.

    Parameters
    ----------
    a, b : ndarray of shape (n,)
        Two methods on the same photos, in order.
    level, resamples, seed
        As in `bootstrap`.

    Raises
    ------
    ParameterError
        As in `bootstrap`, or shapes differ.

    Examples
    --------
    >>> paired(np.array([0.5, 0.75, 1.0]), np.array([0.25, 0.5, 0.75])).verdict
    'higher'
    """
    first, second = check_values("a", a), check_values("b", b)
    check_alike("a", first, "b", second)
    return bootstrap(first - second, level=level, resamples=resamples, seed=seed)
