"""Places for the names of points, so that none covers another, or a point."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import cos, hypot, pi, sin

RADIUS = 4.0  # kept free around each point
REACH = (7.0, 13.0, 20.0, 29.0, 40.0, 53.0)  # how far from its point a name may stand, nearest first
TURNS = (0, 4, 2, 6, 1, 7, 3, 5)  # eighths of a turn: right of the point first, then left, above, below, between


@dataclass(frozen=True)
class Box:
    """A rectangle: left, bottom, right and top."""

    left: float
    bottom: float
    right: float
    top: float

    @property
    def centre(self) -> tuple[float, float]:
        return (self.left + self.right) / 2, (self.bottom + self.top) / 2

    def distance(self, point: tuple[float, float]) -> float:
        x, y = min(max(point[0], self.left), self.right), min(max(point[1], self.bottom), self.top)
        return hypot(x - point[0], y - point[1])

    def meets(self, other: Box) -> bool:
        return self.left < other.right and other.left < self.right and self.bottom < other.top and other.bottom < self.top

    def within(self, other: Box) -> bool:
        return other.left <= self.left and self.right <= other.right and other.bottom <= self.bottom and self.top <= other.top


def place(points: Sequence[tuple[float, float]], sizes: Sequence[tuple[float, float]], room: Box) -> list[Box]:
    """Return a box for each point's name.

    Parameters
    ----------
    points : sequence of (x, y)
    sizes : sequence of (width, height)
        Of the names, in the same unit.
    room : Box
        Where names may stand; one for which there is no free place stands right of its point, whatever is there.
    """
    taken = [Box(x - RADIUS, y - RADIUS, x + RADIUS, y + RADIUS) for x, y in points]
    placed: dict[int, Box] = {}
    for i in sorted(range(len(points)), key=lambda i: -_crowd(points, i)):
        tried = list(_around(points[i], sizes[i]))
        free = (box for box in tried if box.within(room) and not any(box.meets(other) for other in taken))
        placed[i] = next(free, tried[0])
        taken.append(placed[i])
    return [placed[i] for i in range(len(points))]


def _crowd(points: Sequence[tuple[float, float]], i: int) -> float:
    """Return how near the others are: those in a crowd choose first."""
    return sum(1 / (1 + hypot(points[i][0] - x, points[i][1] - y)) for x, y in points)


def _around(point: tuple[float, float], size: tuple[float, float]) -> Iterator[Box]:
    """Yield boxes around a point: each touches the circle at its reach with the side that looks at the point."""
    for reach in REACH:
        for turn in TURNS:
            x, y = point[0] + reach * cos(turn * pi / 4), point[1] + reach * sin(turn * pi / 4)
            left = x - size[0] * (1 - cos(turn * pi / 4)) / 2
            bottom = y - size[1] * (1 - sin(turn * pi / 4)) / 2
            yield Box(left, bottom, left + size[0], bottom + size[1])
