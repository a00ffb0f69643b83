"""Bring a tiny model into normal form, and judge a bundle by what the source computes."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, ValueInfoProto

from camrt.bundle import Bundle
from camrt.errors import ExportError
from exporters.border import Border
from exporters.graph import Graph
from exporters.passes import Normal, normalise
from tests import graphs

CONV = "c = Conv <pads = [1, 1, 1, 1]> (x, w)  r = Relu (c)"  # (N, 5, 16, 16), with w of the shape W
W = (5, 3, 3, 3)
SAME = Border()  # the source takes the image itself
MEAN = f"{CONV} p = GlobalAveragePool (r)  f = Flatten (p)"  # (N, 5)


def normal(built: ModelProto, **asked: object) -> Normal:
    """Return a model in the form that can be cut; the model itself stays as it is."""
    found = Normal(copied(built), **asked)
    normalise(found)
    return found


def copied(built: ModelProto) -> ModelProto:
    model = ModelProto()
    model.CopyFrom(built)
    return model


def shape_of(found: Normal, tensor: str) -> tuple:
    return Graph(found.model).shapes[tensor][1]


def assert_refused(built: ModelProto, message: str, **asked: object) -> None:
    """Hold that a model cannot be brought into normal form, and that one line says why."""
    with pytest.raises(ExportError, match=message) as caught:
        normal(built, **asked)
    assert "\n" not in str(caught.value)


def image_of(border: Border, source: np.ndarray) -> np.ndarray:
    """Return in normal form, (N, C, H, W) and scaled, what a source takes."""
    x = source.astype(np.float64)
    x = x.transpose(0, 3, 1, 2) if border.channels_last else x
    if border.gain:
        x = x * np.reshape(border.gain, (-1, 1, 1)) + np.reshape(border.offset, (-1, 1, 1))
    return x.astype(np.float32)


def logits(found: Normal, source: np.ndarray) -> np.ndarray:
    """Return what the normal form gives for what the source takes."""
    return graphs.run(found.model, {found.image: image_of(found.border, source)}, found.logits)[0]


def view(built: ModelProto) -> tuple[Graph, str, str]:
    """Return what the functions of exporters.layers take: graph, image, logits."""
    found = normal(built)
    return Graph(found.model), found.image, found.logits


def operators(built: ModelProto) -> list[str]:
    return [node.op_type for node in built.graph.node]


def images(bundle: Bundle, count: int = 3) -> np.ndarray:
    shape = (count, *bundle.manifest.image.shape[1:])
    return np.random.default_rng(7).standard_normal(shape, np.float32)


def split(bundle: Bundle, x: np.ndarray) -> np.ndarray:
    """Return tail(head(x)), all images in one batch."""
    (features,) = graphs.run(bundle.path("head"), {"image": x})
    assert features.shape == (len(x), *bundle.manifest.features.shape[1:])
    (logits,) = graphs.run(bundle.path("tail"), {"features": features})
    assert logits.shape == (len(x), bundle.manifest.classes)
    return logits


def source_scores(built: ModelProto, x: np.ndarray, tensor: str | None = None) -> np.ndarray:
    """Return the source's output, or a tensor inside it, one image after the other."""
    model = copied(built)
    tensor = tensor or model.graph.output[0].name
    if tensor not in {value.name for value in model.graph.output}:
        model.graph.output.append(ValueInfoProto(name=tensor))
    image = model.graph.input[0].name
    return np.concatenate([graphs.run(model, {image: one[None]}, tensor)[0].reshape(1, -1) for one in x])


def assert_reproduces(
    bundle: Bundle, built: ModelProto, tensor: str | None = None, *, border: Border = SAME, tolerance: float = 1e-4
) -> None:
    """Hold that a batch of three through the bundle equals three single images through the source."""
    x = images(bundle)
    expected = source_scores(built, border.source_input(x), tensor)
    np.testing.assert_allclose(split(bundle, x), expected, rtol=tolerance, atol=tolerance)
