"""camrt.evaluate.placing: names beside points, none over another."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from camrt.evaluate.placing import RADIUS, Box, place

ROOM = Box(0, 0, 400, 280)


@pytest.mark.parametrize("seed", range(5))
def test_names_cover_neither_each_other_nor_points(seed):
    rng = np.random.default_rng(seed)
    points = [(float(x), float(y)) for x, y in rng.uniform((40, 120), (360, 180), (14, 2))]
    sizes = [(float(width), 9.5) for width in rng.uniform(30, 90, 14)]
    boxes = place(points, sizes, ROOM)
    assert not any(a.meets(b) for a, b in combinations(boxes, 2))
    assert not any(box.distance(point) < RADIUS / 2 for box in boxes for point in points)
    assert all(box.within(ROOM) for box in boxes)
    assert all(box.right - box.left == pytest.approx(width) for box, (width, _) in zip(boxes, sizes, strict=True))


def test_a_lonely_point_has_its_name_at_its_right():
    (box,) = place([(100, 100)], [(50, 10)], ROOM)
    assert (box.left, box.centre[1]) == (107, 100)


def test_a_name_without_a_free_place_stands_right_of_its_point():
    first, second = place([(5, 5), (6, 5)], [(300, 10), (300, 10)], Box(0, 0, 10, 10))
    assert (first.left, second.left) == (12, 13)
