"""What is measured: every call in turns, in the same rounds, and nothing of it stays changed."""

from __future__ import annotations

import json

import numpy as np
import pytest

from camrt import bench as module
from camrt import kmeans
from camrt.bench import BATCHES, BESIDE, EFFECTS, WARM_UP, bench
from camrt.errors import ParameterError
from camrt.footprint import Footprint


@pytest.fixture
def asked(monkeypatch) -> list:
    """Whose memory is measured; it is not."""
    calls = []

    def made_up(explainer, source, method, parameters, *, bare):
        calls.append((source, method, parameters, bare))
        return Footprint(1.0, None)

    monkeypatch.setattr(module, "footprint", made_up)
    monkeypatch.setattr(module, "REST", 0)
    return calls


def test_every_part_has_its_figures(tiny, asked):
    steps = []
    found = bench(tiny, runs=2, images=3, methods={"cluster-cam": {}, "hires-cam": {}}, step=lambda: steps.append(1))
    assert len(steps) == 2 + WARM_UP
    assert [(cost.method, cost.passes, cost.backward_passes) for cost in found.costs] == [
        ("cluster-cam", 11, 0),
        ("hires-cam", 1, 1),
    ]
    assert list(found.floor) == list(BATCHES)
    assert list(found.effects) == list(EFFECTS)
    assert list(found.beside) == list(BESIDE)
    assert found.stream.images == 3
    assert [bare for *_, bare in asked] == [5, None]
    assert json.loads(json.dumps(found.to_json()))["costs"][1]["masked_batch"] == 0
    for cost in found.costs:
        assert cost.ratio.low <= cost.explain.high / cost.floor.low + 1e-3
        assert cost.ratio.high >= cost.explain.low / cost.floor.high - 1e-3


def test_a_methods_parameters_are_those_of_the_process_that_measures_memory(tiny, asked):
    found = bench(tiny, runs=1, images=1, methods={"cluster-cam": {"clusters": np.int64(4)}})
    assert found.costs[0].passes == 5
    (_, method, parameters, _), _ = asked
    assert method == "cluster-cam"
    assert json.loads(json.dumps(parameters))["clusters"] == 4


def test_what_was_changed_for_a_measurement_is_put_back(tiny, asked):
    before = kmeans.BLOCK
    bench(tiny, runs=1, images=1)
    assert kmeans.BLOCK == before
    with pytest.raises(ZeroDivisionError):
        module._in_whole_products(lambda: 1 / 0)
    assert kmeans.BLOCK == before
    assert tiny.engine.sessions.spinning == "running"


def test_rounds_are_taken_in_turns_and_the_first_ones_do_not_count():
    order = []
    calls = {name: lambda name=name: order.append(name) for name in "ab"}
    times, kept = module._rounds(calls, ["b"], 3, lambda: None)
    assert "".join(order) == "ab" * (WARM_UP + 3)
    assert [len(times[name]) for name in "ab"] == [3, 3]
    assert {name: len(results) for name, results in kept.items()} == {"b": 3}


@pytest.mark.parametrize("options", [{"runs": 0}, {"images": 0}, {"methods": {}}])
def test_nothing_to_measure_is_refused(tiny, options):
    with pytest.raises(ParameterError, match="must be at least 1"):
        bench(tiny, **options)


def test_another_model_as_the_floor_is_told(tiny, asked, tiny_bundle, tmp_path):
    source = tmp_path / "other.onnx"
    source.write_bytes((tiny_bundle.parent / "tiny.onnx").read_bytes() + b"\x72\x00")  # an empty doc_string more
    with pytest.warns(UserWarning, match="is not the file that the bundle was made from"):
        bench(tiny, source=source, runs=1, images=1)
