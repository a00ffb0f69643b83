"""What bare passes of a network cost, and what an explanation costs over them.

The floor is the time of the passes that an explanation cannot do without, in the batch size b that is best for them:

    one image and M masked ones   t(1) + M · t(b) / b,  b ≤ M
    P passes of a stream          P · t(b) / b,         b ≤ P

t(b) is the time of one call with b images, taken in every round anew.  A ratio is the median of those of the rounds.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of several runs."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        low, middle, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else list(values) * 3
        return cls(*(round(value, 4) for value in (middle, low, high)))

    @classmethod
    def of_ratios(cls, times: Sequence[float], floors: Sequence[float]) -> Spread:
        return cls.of([time / floor for time, floor in zip(times, floors, strict=True)])


@dataclass(frozen=True)
class Floor:
    """The times of the bare network.

    Attributes
    ----------
    times : mapping of int to sequence of float
        Milliseconds a call in every round, by images a call; 1 is among them.
    """

    times: Mapping[int, Sequence[float]]

    def an_image(self) -> dict[int, Spread]:
        """Return the milliseconds an image, by images a call."""
        return {size: Spread.of([ms / size for ms in times]) for size, times in self.times.items()}

    def best(self, most: int) -> int:
        """Return the batch size, of at most so many images, whose images take the least time."""
        return min(
            (size for size in self.times if size <= max(most, 1)), key=lambda size: statistics.median(self.times[size]) / size
        )

    def of_explanation(self, masked: int) -> list[float]:
        """Return for every round the milliseconds of one image and of so many masked ones.

        >>> Floor({1: [10.0], 4: [20.0], 8: [48.0]}).of_explanation(masked=10)
        [60.0]
        """
        return [one + more for one, more in zip(self.times[1], self.of_stream(masked), strict=True)]

    def of_stream(self, passes: int) -> list[float]:
        """Return for every round the milliseconds of so many passes."""
        best = self.best(passes)
        return [passes * ms / best for ms in self.times[best]]
