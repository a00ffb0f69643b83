"""camrt.evaluate.tradeoff: which methods none is both quicker and better than."""

from __future__ import annotations

import pytest

from camrt.evaluate.summary import Row
from camrt.evaluate.tradeoff import front_of, plot
from camrt.evaluate.variant import Variant
from camrt.metrics import Interval


def row(name: str, ms: float, mean: float) -> Row:
    return Row(Variant(name, None), figures={m: Interval(mean, mean, mean, 3) for m in ("insertion", "deletion")}, ms=ms)


@pytest.mark.parametrize(("metric", "names"), [("insertion", ["quick", "good"]), ("deletion", ["quick", "low"])])
def test_the_front_has_no_method_that_another_beats_in_both(metric, names):
    rows = [
        row("good", 9.0, 0.9),
        row("quick", 1.0, 0.5),
        row("low", 4.0, 0.2),
        row("beaten", 10.0, 0.5),
        row("same", 1.0, 0.5),
    ]
    assert [found.variant.name for found in front_of(rows, metric)] == names


def test_every_method_is_named_in_the_plot(summary):
    drawn = plot(summary)
    assert all(name in drawn for name in ("grad-cam", "eigen-cam", "cluster-cam:clusters=4", "random map"))
