"""Bring a tiny model into normal form, and judge a bundle by what the source computes."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, ValueInfoProto

from camrt.bundle import Bundle
from exporters.graph import Graph
from exporters.passes import Normal, normalise
from tests import graphs


def normal(built: ModelProto, **asked: object) -> Normal:
    """Return a model in the form that can be cut."""
    found = Normal(built, **asked)
    normalise(found)
    return found


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
    model = ModelProto()
    model.CopyFrom(built)
    tensor = tensor or model.graph.output[0].name
    if tensor not in {value.name for value in model.graph.output}:
        model.graph.output.append(ValueInfoProto(name=tensor))
    image = model.graph.input[0].name
    return np.concatenate([graphs.run(model, {image: one[None]}, tensor)[0].reshape(1, -1) for one in x])


def assert_reproduces(bundle: Bundle, built: ModelProto, tensor: str | None = None) -> None:
    """Hold that a batch of three through the bundle equals three single images through the source."""
    x = images(bundle)
    np.testing.assert_allclose(split(bundle, x), source_scores(built, x, tensor), rtol=1e-4, atol=1e-4)
