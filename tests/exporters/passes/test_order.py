"""exporters.passes.order: nodes in any order are sorted, and what has no order is refused."""

from __future__ import annotations

import pytest
from onnx import NodeProto, helper

from exporters.passes.order import order_nodes
from tests import graphs
from tests.exporters.helpers import assert_refused, assert_reproduces, normal
from tests.fuzz.models import MODELS


@pytest.mark.parametrize("name", ["residual", "branching", "calling", "flattened"])
def test_nodes_in_any_order_are_sorted(name, cut):
    built, mixed = MODELS[name](), MODELS[name]()
    nodes = [NodeProto.FromString(node.SerializeToString()) for node in reversed(built.graph.node)]
    del mixed.graph.node[:]
    mixed.graph.node.extend(nodes)
    bundle = cut(mixed)
    if bundle.manifest.activation is None:
        assert_reproduces(bundle, built)
    assert bundle.manifest.layer == cut(built, force=True).manifest.layer


def test_nodes_in_order_stay_as_they_are():
    found = normal(graphs.classifier())
    before = [node.name for node in found.model.graph.node]
    order_nodes(found)
    assert [node.name for node in found.model.graph.node] == before == [node.name for node in graphs.classifier().graph.node]


def test_a_circle_is_refused():
    built = graphs.classifier()
    built.graph.node[1].input[0] = "features"
    assert_refused(built, r"depends on its own result")


@pytest.mark.parametrize("twice", ["c1", "x", "w1"])
def test_a_tensor_with_two_writers_is_refused(twice):
    built = graphs.classifier()
    built.graph.node.append(helper.make_node("Relu", ["x"], [twice], name="second"))
    assert_refused(built, f"tensor {twice!r} is written twice, the second time by Relu 'second'")
