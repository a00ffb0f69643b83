"""Tiny bundles of every sort that the compiled graphs are tested on."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper

from camrt.bundle import Bundle, open_bundle
from exporters import export
from tests import graphs

from .helpers import Both


def gated() -> Any:
    """Return a network cut early: behind its features, of both signs, come a convolution and two linear layers."""
    body = """
        [conv1] c = Conv <strides=[2,2], pads=[1,1,1,1]> (x, w1)   [relu1] r = Relu (c)
        [conv2] features = Conv <pads=[1,1,1,1]> (r, w2, b2)
        [conv3] d = Conv <strides=[2,2], pads=[1,1,1,1]> (features, w3)   [relu3] t = Relu (d)
        [flatten] f = Flatten (t)   [fc1] h = Gemm (f, w4, b4)   [relu4] a = Relu (h)   [fc2] scores = Gemm (a, w5, b5)
    """
    weights = {"w1": (6, 3, 3, 3), "w2": (14, 6, 3, 3), "b2": (14,), "w3": (6, 14, 3, 3), "w4": (6 * 4 * 5, 16),
               "b4": (16,), "w5": (16, 5), "b5": (5,)}  # fmt: skip
    return graphs.parse(body, image="N,3,16,20", seed=2, **weights)


def dead_on_dark() -> Any:
    """Return a network without bias: the black image has the features 0, and the logarithm of their mean is -inf."""
    body = """
        [conv1] c = Conv <strides=[2,2], pads=[1,1,1,1]> (x, w1)   [abs1] features = Abs (c)
        [pool] p = GlobalAveragePool (features)   [log] l = Log (p)   [flatten] f = Flatten (l)   [fc] scores = Gemm (f, w2, b2)
    """
    return graphs.parse(body, w1=(6, 3, 3, 3), w2=(6, 4), b2=(4,))


def one_by_one() -> Any:
    """Return a network whose tail takes the scale of its values from the whole batch."""
    body = """
        [conv1] c = Conv <strides=[2,2], pads=[1,1,1,1]> (x, w1)   [relu1] features = Relu (c)
        [pool] p = GlobalAveragePool (features)   [flatten] f = Flatten (p)
        [scale] q, qs, q0 = DynamicQuantizeLinear (f)   [back] d = DequantizeLinear (q, qs, q0)   [fc] scores = Gemm (d, w2, b2)
    """
    return graphs.parse(body, w1=(9, 3, 3, 3), w2=(9, 4), b2=(4,))


def twins() -> Any:
    """Return a network of twelve features of which four are distinct."""
    built = graphs.classifier(seed=7)
    for tensor in built.graph.initializer:
        if tensor.name in ("w2", "b2"):
            first = numpy_helper.to_array(tensor)[:4]
            tensor.CopyFrom(numpy_helper.from_array(np.concatenate([first] * 3), tensor.name))
    return built


BUNDLES: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "classifier": (graphs.classifier, {}),
    "residual": (graphs.residual, {}),
    "early, not square": (gated, {"layer": "features"}),
    "not square, sigmoid": (lambda: graphs.classifier(end="Sigmoid", image=("N", 3, 40, 28), seed=1), {}),
    "one channel, probabilities": (
        lambda: graphs.classifier(4, 7, image=("N", 1, 24, 24), seed=2), {"kind": "probabilities"}
    ),
    "scores": (lambda: graphs.classifier(seed=3, opset=13), {"kind": "scores"}),
    "opset 21": (lambda: graphs.classifier(seed=4, opset=21), {}),
    "one class": (lambda: graphs.classifier(1, seed=5), {"kind": "sigmoid"}),
    "dead on dark": (dead_on_dark, {}),
    "one by one": (one_by_one, {}),
    "twins": (twins, {}),
}  # fmt: skip


@pytest.fixture(scope="session")
def bundle(tmp_path_factory) -> Callable[[str], Bundle]:
    """Return one of `BUNDLES`, or "shapes", opened."""

    @cache
    def bundle(name: str) -> Bundle:
        if name == "shapes":
            return open_bundle("shapes")
        build, options = BUNDLES[name]
        folder = tmp_path_factory.mktemp("bundle")
        source = graphs.save(build(), folder / "model.onnx")
        channels = build().graph.input[0].type.tensor_type.shape.dim[1].dim_value
        overrides = {"scale": 1 / 255, "mean": [0.5] * channels, "std": [0.25] * channels}
        export(source, folder / "bundle", **{"overrides": overrides, **options})
        return open_bundle(folder / "bundle")

    return bundle


@pytest.fixture(scope="session")
def both(bundle) -> Callable[..., Both]:
    """Return a method on one of the bundles in both runtimes, opened once."""
    opened: dict[str, Both] = {}

    def both(name: str = "classifier", method: str = "cluster-cam", options: Any = None, **settings: Any) -> Both:
        key = repr((name, method, options, settings))
        if key not in opened:
            opened[key] = Both(bundle(name), method, settings, options or {})
        return opened[key]

    return both


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
