"""Where nodes run: what counts as left to the CPU, and that it is told once and stands in the result."""

from __future__ import annotations

import json
import warnings
from types import SimpleNamespace

import pytest

import camrt
from camrt.placement import Placement, Placements, place
from camrt.providers import NAMES
from camrt.runtime import Session, ort

OPENVINO, CPU = NAMES["openvino"], NAMES["cpu"]


def session(**parts: list[str]) -> SimpleNamespace:
    """Stand for a session whose providers took the operators listed."""
    names = {"cuda": "CUDAExecutionProvider", "openvino": OPENVINO, "cpu": CPU}
    assigned = [
        SimpleNamespace(ep_name=names[short], get_nodes=lambda ops=ops: [SimpleNamespace(op_type=op) for op in ops])
        for short, ops in parts.items()
    ]
    return SimpleNamespace(get_provider_graph_assignment_info=lambda: assigned)


def test_nodes_are_counted_by_provider_and_by_operator():
    found = place(session(cuda=["Conv", "Relu", "Conv"], cpu=["Shape", "Gather", "Gather"]))
    assert found == Placement({"cuda": 3, "cpu": 3}, {"Gather": 2, "Shape": 1})


def test_a_runtime_that_does_not_tell_leaves_it_unknown():
    assert place(SimpleNamespace()) is None
    placements = Placements()
    placements.add("head", "cuda", SimpleNamespace())
    assert placements == {"head": None}


@pytest.mark.parametrize(("provider", "on_cpu", "strays"), [
    ("cuda", {}, set()),
    ("cuda", {"Shape": 1, "Gather": 2, "Concat": 1}, set()),  # arithmetic with shapes, on the CPU by design
    ("cuda", {"Gather": 2, "Concat": 1}, {"Gather", "Concat"}),  # of no shape, hence of maps
    ("cuda", {"Shape": 1, "Conv": 1, "Concat": 1}, {"Conv"}),
    ("tensorrt", {"Shape": 1, "Unsqueeze": 1}, set()),
    ("openvino", {"Shape": 1, "Concat": 1}, {"Concat"}),  # only NVIDIA's are known to leave none but shapes
])  # fmt: skip
def test_arithmetic_with_shapes_is_no_stray(provider, on_cpu, strays):
    assert set(Placement({}, on_cpu).strays(provider)) == strays


def test_an_operator_on_the_cpu_is_told_once_whatever_the_graphs():
    placements = Placements()
    with pytest.warns(RuntimeWarning, match=r"^Provider 'cuda' left 2 of the 3 nodes of head.onnx to the CPU: LpPool × 2.$"):
        placements.add("head", "cuda", session(cuda=["Conv"], cpu=["LpPool", "LpPool"]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        placements.add("score", "cuda", session(cuda=["Conv"], cpu=["LpPool", "Shape", "Slice"]))
    with pytest.warns(RuntimeWarning, match="gradient.onnx to the CPU: Det × 1"):
        placements.add("gradient", "cuda", session(cuda=["Conv"], cpu=["Det"]))
    assert set(placements) == {"head", "score", "gradient"}


def test_a_provider_that_takes_nothing_is_told():
    with pytest.warns(
        RuntimeWarning, match=r"took none of the 2 nodes of tail.onnx: the CPU computes them \(Conv × 1, Relu × 1\)"
    ):
        Placements().add("tail", "openvino", session(cpu=["Conv", "Relu"]))


def test_on_the_cpu_nothing_is_asked(tiny, pixels):
    placements = Placements()
    placements.add("head", "cpu", SimpleNamespace())
    assert placements == {}
    assert tiny.explain(pixels).to_json()["placement"] == {}


@pytest.fixture
def openvino(monkeypatch):
    """Pretend that OpenVINO is in this build and takes all but Relu; the CPU computes in its place."""
    real = ort.InferenceSession

    class Borrowed(real):
        def __init__(self, source, options, providers, **_):
            super().__init__(source, options, providers=[CPU])

        def get_providers(self):
            return [OPENVINO, CPU]

        def get_provider_graph_assignment_info(self):
            nodes = [node for part in super().get_provider_graph_assignment_info() for node in part.get_nodes()]
            relus = [node for node in nodes if node.op_type == "Relu"]
            others = [node for node in nodes if node.op_type != "Relu"]
            parts = {OPENVINO: others, CPU: relus}
            return [SimpleNamespace(ep_name=name, get_nodes=lambda nodes=nodes: nodes) for name, nodes in parts.items()]

    monkeypatch.setattr(ort, "get_available_providers", lambda: [OPENVINO, CPU])
    monkeypatch.setattr(ort, "InferenceSession", Borrowed)


@pytest.mark.skipif(not hasattr(Session, "get_provider_graph_assignment_info"), reason="this ONNX Runtime does not tell")
def test_a_result_says_what_was_left_to_the_cpu_and_one_warning_does(openvino, tiny_bundle, pixels, tmp_path):
    with pytest.warns(RuntimeWarning, match=r"'openvino' left 2 of the \d+ nodes of \w+.onnx to the CPU: Relu × 2") as caught:
        explainer = camrt.load(tiny_bundle, providers=["openvino"])
        explainer.explain(pixels, clusters=3)
        explanation = explainer.explain(pixels, clusters=3)
    assert len(caught) == 1
    placement = explanation.run.placement["score"]
    assert placement.on_cpu == {"Relu": 2}
    assert placement.nodes["openvino"] > placement.nodes["cpu"] == 2
    explanation.save(tmp_path, "photo")
    written = json.loads((tmp_path / "photo.explanation.json").read_text())
    assert written["provider"] == "openvino"
    assert written["placement"]["score"] == {"nodes": placement.nodes, "on_cpu": {"Relu": 2}}
