"""What every method costs: what its run reports, what the catalogue promises, and the rows that the sessions really see."""

from __future__ import annotations

from collections import Counter
from math import prod

import pytest

import camrt
from camrt.engine import Engine
from camrt.methods import METHODS
from tests.methods.judge import photos

C, CELLS, T = 40, 12 * 15, 2  # channels, h · w, targets

# method, parameters, what the catalogue says, full passes, tail passes, backward passes
COSTS = [
    (
        "cluster-cam", {"clusters": 7},
        "1 + K + J of the tail (baseline=blur: one more; masking=image: 1 + K; masking=features: 1 + K of the tail)", 8, C, 0,
    ),
    ("cluster-cam", {"clusters": 7, "tail_clusters": 12, "baseline": "blur"}, None, 9, 12, 0),
    ("cluster-cam", {"clusters": 7, "masking": "image"}, None, 8, 0, 0),
    ("cluster-cam", {"clusters": 7, "masking": "image", "baseline": "blur"}, None, 9, 0, 0),
    ("cluster-cam", {"clusters": 7, "masking": "features"}, None, 1, 7, 0),
    ("group-cam", {"groups": 8}, "2 + T · G + T backward", 2 + T * 8, 0, T),
    ("group-cam", {"groups": 8, "grouping": "kmeans"}, None, 2 + T * 8, 0, T),
    ("group-cam", {"groups": 64}, None, 2 + T * C, 0, T),  # no more groups than channels
    ("group-cam", {}, None, 2 + T * C // 2, 0, T),  # 32 groups of 40 channels: 20 of two
    ("hires-cam", {}, "1 + T backward", 1, 0, T),
    ("grad-cam", {}, "1 + T backward", 1, 0, T),
    ("grad-cam++", {}, "1 + T backward", 1, 0, T),
    ("xgrad-cam", {}, "1 + T backward", 1, 0, T),
    ("layer-cam", {}, "1 + T backward", 1, 0, T),
    ("eigengrad-cam", {}, "1 + T backward", 1, 0, T),
    ("cam", {}, "1, once C + 1 of the tail", 1, 0, 0),
    ("eigen-cam", {}, "1", 1, 0, 0),
    ("ablation-cam", {}, "1 + C of the tail", 1, C, 0),
    ("recipro-cam", {}, "1 + h·w of the tail", 1, CELLS, 0),
    ("score-cam", {}, "1 + C", 1 + C, 0, 0),
    ("rise", {"masks": 70}, "1 + masks", 71, 0, 0),
]  # fmt: skip


def rows_of(engine: Engine, monkeypatch) -> Counter:
    """Return how many rows each graph is given from now on."""
    counted, run = Counter(), engine.sessions.run

    def counting(graph, feeds, *outputs):
        shape = feeds["maps"].shape()[:2] if "maps" in feeds else next(iter(feeds.values())).shape()[:1]
        counted[graph] += prod(shape)
        return run(graph, feeds, *outputs)

    monkeypatch.setattr(engine.sessions, "run", counting)
    return counted


def test_every_method_is_priced():
    assert {name for name, *_ in COSTS} == set(METHODS)


@pytest.mark.parametrize(("method", "parameters", "promise", "passes", "tail", "backward"), COSTS)
@pytest.mark.parametrize("images", [1, 3])
def test_a_method_costs_what_it_promises(linear, monkeypatch, images, method, parameters, promise, passes, tail, backward):
    assert promise in (None, METHODS[method].passes)
    linear.explainer.engine.black_logits()  # once for an explainer, as the next
    linear.explainer.engine.linear_tail()
    rows = rows_of(linear.explainer.engine, monkeypatch)
    explanations = linear.explainer.explain(photos(images), targets=[0, 3], method=method, **parameters)
    for explanation in explanations:
        run = explanation.run
        assert (run.passes, run.tail_passes, run.backward_passes) == (passes, tail, backward)
    assert (rows["head"], rows["score"]) == (0, images * passes)
    assert (rows["tail"], rows["gradient"]) == (images * tail, images * backward)


@pytest.mark.parametrize(("method", "more"), [("cam", C + 1), ("score-cam", 1)])
def test_what_does_not_depend_on_the_image_is_asked_once(linear, monkeypatch, method, more):
    explainer = camrt.load(linear.explainer.engine.bundle.folder, providers=["cpu"], threads=1)
    rows = rows_of(explainer.engine, monkeypatch)
    asked = []
    for _ in range(2):
        rows.clear()
        explainer.explain(photos()[0], method=method)
        asked.append(rows.total())
    assert asked[0] - asked[1] == more
