"""Run what an emitter wrote, and judge a compiled bundle by the Python runtime."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from unittest.mock import patch

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto, helper

import exporters.fusion.graph
from camrt.answer import signed_maps
from camrt.bundle import Bundle
from camrt.case import Case, probabilities
from camrt.engine import Engine
from camrt.explainer import Explainer
from camrt.heatmap import Outcome, heatmap
from camrt.methods import get_method
from exporters.emitter import Emitter
from exporters.fusion.graph import fuse
from exporters.graph import fitting_ir, subgraphs
from tests import graphs


def emitted(emit: Callable[..., Any], feeds: dict[str, np.ndarray], opset: int = 17) -> list[np.ndarray]:
    """Return what `emit` computes: called with an emitter and the names of the feeds, it returns names."""
    return graphs.run(emitted_model(emit, feeds, opset), feeds)


def emitted_model(emit: Callable[..., Any], feeds: dict[str, np.ndarray], opset: int = 17) -> ModelProto:
    """Return a model of any batch size."""
    op = Emitter("e", opset=opset)
    names = emit(op, *feeds)
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), ["N", *value.shape[1:]])
        for name, value in feeds.items()
    ]
    outputs = [ValueInfoProto(name=name) for name in ([names] if isinstance(names, str) else names)]
    graph = helper.make_graph(op.nodes, "emitted", inputs, outputs, op.initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = fitting_ir(model)
    return model


def every_graph(graph: GraphProto) -> Iterator[GraphProto]:
    """Yield a graph and the bodies in it, however deep."""
    yield graph
    for node in graph.node:
        for body in subgraphs(node):
            yield from every_graph(body)


def every_node(model: ModelProto) -> Iterator[NodeProto]:
    for graph in every_graph(model.graph):
        yield from graph.node


# --- whole explanations ---------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Answer:
    """What one of the two runtimes said to images (N, C, H, W) about their targets (N, T)."""

    logits: np.ndarray
    targets: np.ndarray
    probabilities: np.ndarray
    signed: np.ndarray
    heatmap: np.ndarray
    outcomes: np.ndarray


@dataclass(frozen=True)
class Both:
    """A bundle's method in both runtimes."""

    bundle: Bundle
    method: str
    settings: dict[str, Any]
    options: dict[str, Any]

    @cached_property
    def explainer(self) -> Explainer:
        return Explainer(Engine(self.bundle, ["cpu"], threads=1))

    @cached_property
    def session(self) -> Any:
        model, _ = fused(self.bundle, self.method, **self.options, **self.settings)
        return graphs.session(model)

    def images(self, count: int = 1, seed: int = 0) -> np.ndarray:
        """Return images in which some places are bright: random blocks under noise."""
        rng = np.random.default_rng(seed)
        channels, height, width = self.bundle.manifest.image.shape[1:]
        coarse = rng.normal(0, 1, (count, channels, 4, 4)).repeat(-(-height // 4), 2).repeat(-(-width // 4), 3)
        return (coarse[:, :, :height, :width] + rng.normal(0, 0.3, (count, channels, height, width))).astype(np.float32)

    def graph(self, x: np.ndarray, target: Any = None) -> Answer:
        """Return what the compiled graph says."""
        feeds = {"image": x} | ({} if target is None else {"target": np.array(target, np.int64)})
        names = [output.name for output in self.session.get_outputs()]
        found = dict(zip(names, self.session.run(names, feeds), strict=True))
        signed = next(value for name, value in found.items() if name not in INTERFACE)
        return Answer(**{name: found[name] for name in REQUIRED}, signed=signed)

    def python(self, x: np.ndarray, targets: np.ndarray) -> Answer:
        """Return what the Python runtime says."""
        case = Case(self.explainer.engine, x)
        case.targets = targets
        signed, codes = signed_maps(case, get_method(self.method), get_method(self.method).settings(self.settings))
        with np.errstate(invalid="ignore", over="ignore"):
            p = np.take_along_axis(probabilities(case.logits, self.bundle.manifest.kind), targets, axis=1)
        return Answer(case.logits, targets, p, signed, heatmap(signed, case.size), codes)

    def agree(self, x: np.ndarray, target: Any = None) -> Answer:
        """Hold that both say the same, and return it."""
        found = self.graph(x, target)
        assert_same(found, self.python(x, found.targets))
        return found


INTERFACE = ("logits", "targets", "probabilities", "heatmap", "outcomes", "scores", "camrt/labels")
REQUIRED = ("logits", "targets", "probabilities", "heatmap", "outcomes")


def assert_same(found: Answer, expected: Answer) -> None:
    """Hold that outcomes are equal, heatmaps within 1e-4, and signed maps within 1e-4 of their largest value."""
    np.testing.assert_allclose(found.logits, expected.logits, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found.probabilities, expected.probabilities, rtol=1e-4, atol=1e-6)
    assert found.outcomes.tolist() == expected.outcomes.tolist()
    assert found.heatmap.shape == expected.heatmap.shape
    np.testing.assert_allclose(found.heatmap, expected.heatmap, rtol=0, atol=1e-4)
    assert found.signed.shape == expected.signed.shape
    fine = found.outcomes != Outcome.NOT_FINITE
    largest = np.abs(expected.signed[fine]).max(initial=0)
    np.testing.assert_allclose(found.signed[fine], expected.signed[fine], rtol=0, atol=1e-4 * largest)


def fused(
    bundle: Bundle,
    method: str = "cluster-cam",
    *,
    pixels: str = "float",
    max_masked_batch: int = 64,
    require_target: bool = False,
    **parameters: Any,
) -> tuple[ModelProto, str]:
    """Return the explanation as one model, with the signed maps as a further output, and the name of that."""
    names = []

    def noting(op: Emitter, signed: str, *rest: Any) -> Any:
        names.append(signed)
        return heatmaps(op, signed, *rest)

    heatmaps = exporters.fusion.graph.heatmaps
    chosen = get_method(method)
    black = Engine(bundle, ["cpu"], threads=1).black_logits()
    with patch.object(exporters.fusion.graph, "heatmaps", noting):
        model = fuse(
            bundle, black, chosen, chosen.settings(parameters),
            pixels=pixels, max_masked_batch=max_masked_batch, require_target=require_target,
        )  # fmt: skip
    model.graph.output.append(ValueInfoProto(name=names[0]))
    return model, names[0]
