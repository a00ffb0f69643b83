"""What a method and a stream cost over their floors, on made-up times."""

from __future__ import annotations

from types import SimpleNamespace

from camrt.cost import Cost, Streamed
from camrt.floor import Floor, Spread

FLOOR = Floor({1: [10.0, 12.0], 4: [20.0, 24.0]})


def explained(forward: float) -> SimpleNamespace:
    """Stand for an explanation of a pass and ten masked ones."""
    told = {"passes": 11, "tail_passes": 0, "backward_passes": 2, "masked_batch": 5, "timings": {"forward": forward}}
    return SimpleNamespace(run=SimpleNamespace(method="some-cam", parameters={"clusters": 10}, **told))


def test_a_methods_cost_is_over_the_floor_of_the_same_round():
    cost = Cost.of(FLOOR, [120.0, 72.0], [explained(1.0), explained(3.0)])
    assert (cost.method, cost.parameters, cost.passes, cost.backward_passes) == ("some-cam", {"clusters": 10}, 11, 2)
    assert cost.floor == Spread.of([60, 72])  # one image alone, ten in calls of four
    assert cost.ratio == Spread.of([2, 1])
    assert cost.stages == {"forward": Spread.of([1, 3])}


def test_a_streams_cost_is_over_as_many_passes_in_the_best_batch():
    streamed = Streamed.of(FLOOR, [440.0, 264.0], images=4, passes=11)
    assert streamed.per_second == Spread.of([4 / 0.44, 4 / 0.264])
    assert streamed.ratio == Spread.of([2, 1])
