"""A graph of float16 that rounds each tensor on the CPU too, where ONNX Runtime itself does not."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from exporters.precision import to_float16
from exporters.rounding import rounding_each
from tests import graphs
from tests.exporters.helpers import normal, operators
from tests.exporters.test_half import NETWORKS, gradient_of, head

CHAIN = "h = Cast <to = 10> (x)  u = Mul (h, up)  d = Mul (u, down)  scores = Cast <to = 1> (d)"
FACTORS = {"up": np.float16(1000), "down": np.float16(0.001)}


def results(value: float) -> tuple[float, float]:
    """Return what ONNX Runtime and the rounding graph make of a value times 1000 times 0.001."""
    built = graphs.parse(CHAIN, **FACTORS)
    x = np.full((1, 3, 16, 16), value, np.float32)
    return tuple(float(graphs.run(model, {"x": x})[0].flat[0]) for model in (built, rounding_each(built)))


def test_what_overflows_on_the_way_is_infinite():
    assert results(100)[1] == np.inf


def test_every_step_is_rounded():
    expected = np.float16(np.float16(np.float16(1.2345) * np.float16(1000)) * np.float16(0.001))
    assert results(1.2345)[1] == expected


@pytest.mark.parametrize("name", NETWORKS)
def test_the_graph_is_float32_throughout_and_gives_nearly_the_same(name):
    found = normal(NETWORKS[name][0]())
    half = to_float16(found.graph(), found.image, found.logits)
    rounding = rounding_each(half)
    onnx.checker.check_model(rounding, full_check=True)
    assert TensorProto.FLOAT16 not in {tensor.data_type for tensor in rounding.graph.initializer}
    x = np.random.default_rng(0).standard_normal((2, 3, 32, 32), np.float32)
    expected, rounded = (graphs.run(model, {found.image: x}, found.logits)[0] for model in (half, rounding))
    np.testing.assert_allclose(rounded, expected, rtol=0, atol=2e-3 * max(1, np.abs(expected).max()))


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_are_rounded_too(name, cut):
    bundle = cut(NETWORKS[name][0](), precision="fp16")
    features = np.abs(head(bundle, np.random.default_rng(0).standard_normal((2, 3, 32, 32), np.float32)))
    rounding = rounding_each(onnx.load(bundle.path("gradient")))
    cotangent = np.random.default_rng(2).standard_normal((2, bundle.manifest.classes), np.float32)
    found = graphs.run(rounding, {"features": features, "cotangent": cotangent})[0]
    expected = gradient_of(bundle, features)
    np.testing.assert_allclose(found, expected, rtol=0, atol=5e-3 * np.abs(expected).max())
    np.testing.assert_array_equal(found, found.astype(np.float16))


def test_a_model_in_float32_stays_as_it_is():
    built = normal(graphs.classifier()).model
    assert operators(rounding_each(built)) == operators(built)
