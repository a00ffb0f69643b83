"""exporters.passes.strip: what the scores do not depend on is left out, comments too."""

from __future__ import annotations

from tests import graphs
from tests.exporters.helpers import CONV, W, normal, operators


def test_dead_nodes_and_weights_are_left_out():
    body = f"{CONV} dead = Conv (r, unused)  p = GlobalAveragePool (r)  scores = Flatten (p)"
    found = normal(graphs.parse(body, w=W, unused=(2, 5, 1, 1), never=(3, 3)))
    assert operators(found.model) == ["Conv", "Relu", "GlobalAveragePool", "Flatten"]
    assert [tensor.name for tensor in found.model.graph.initializer] == ["w"]


def test_comments_are_left_out():
    built = graphs.classifier()
    built.graph.doc_string = built.graph.node[0].doc_string = "File /home/somebody/secret.py, line 3"
    assert b"somebody" not in normal(built).model.SerializeToString()
