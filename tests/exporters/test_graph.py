"""exporters.graph: a graph by tensor name."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from onnx import TensorProto, helper

from camrt.errors import ExportError, one_line
from exporters.graph import Graph, attribute, describe, fresh_names, node_inputs, opset
from tests import graphs


@pytest.fixture
def branches() -> Graph:
    """x → c → (a, b) → s → scores, and `dead` beside them."""
    return Graph(
        graphs.parse(
            """
            [conv] c = Conv (x, w)
            [relu] a = Relu (c)
            [tanh] b = Tanh (c)
            [add] s = Add (a, b)
            [dead] dead = Sqrt (a)
            [pool] p = GlobalAveragePool (s)
            [flat] scores = Flatten (p)
            """,
            w=(4, 3, 3, 3),
        )
    )


def names(graph: Graph, found: set[int]) -> list[str]:
    return [graph.nodes[i].name for i in sorted(found)]


def test_above_is_what_a_tensor_depends_on(branches):
    assert names(branches, branches.above(["s"])) == ["conv", "relu", "tanh", "add"]


def test_above_does_not_look_beyond_a_stop(branches):
    assert names(branches, branches.above(["scores"], stop=["s"])) == ["pool", "flat"]


def test_above_of_the_input_is_nothing(branches):
    assert branches.above(["x"]) == set()


def test_below_is_what_depends_on_a_tensor(branches):
    assert names(branches, branches.below("a")) == ["add", "dead", "pool", "flat"]


def test_the_writer_of_an_input_is_none(branches):
    assert branches.node_of("x") is None
    assert branches.node_of("s").name == "add"


def test_an_initializer_listed_as_input_is_no_input():
    built = graphs.classifier()
    built.graph.input.append(helper.make_tensor_value_info("w1", TensorProto.FLOAT, [8, 3, 3, 3]))
    assert [value.name for value in Graph(built).inputs] == ["x"]


def test_shapes_are_known_along_the_network(branches):
    shapes = branches.shapes
    assert shapes["c"] == (TensorProto.FLOAT, ("N", 4, 14, 14))
    assert shapes["scores"][1][:2] == ("N", 4)


def test_an_operator_without_an_opset_is_told_on_one_line():
    built = graphs.parse("p = GlobalAveragePool (x)  scores = Flatten (p)")
    del built.opset_import[:]
    with pytest.raises(ExportError, match="shapes cannot be inferred"):
        assert Graph(built).shapes


def test_what_a_subgraph_takes_from_outside_is_an_input_of_its_node():
    built = graphs.parse(
        """
        r = Relu (x)
        y = If (yes) <
            then_branch = one () => (float[N,3,16,16] t) { i = Abs (r)  t = Add (i, w) },
            else_branch = two () => (float[N,3,16,16] e) { e = Neg (x) }>
        scores = Flatten (y)
        """,
        yes=np.array(True),
        w=(1,),
    )
    assert set(node_inputs(built.graph.node[1])) == {"yes", "r", "w", "x"}


def test_empty_optional_inputs_are_left_out():
    assert node_inputs(helper.make_node("Resize", ["x", "", "", "sizes"], ["y"])) == ["x", "sizes"]


@pytest.mark.parametrize(("name", "text"), [("add_1", "Add 'add_1'"), ("", "Add 's'")])
def test_a_node_is_described_by_its_name_or_its_output(name, text):
    assert describe(helper.make_node("Add", ["a", "b"], ["s"], name=name)) == text


def test_an_attribute_that_is_not_there_is_the_default():
    node = helper.make_node("Softmax", ["a"], ["b"], axis=2)
    assert attribute(node, "axis") == 2
    assert attribute(node, "axes", -1) == -1


def test_the_opset_is_that_of_the_standard_operators():
    built = graphs.classifier(opset=15)
    built.opset_import.append(helper.make_opsetid("com.microsoft", 99))
    assert opset(built) == 15


def test_fresh_names_are_not_used_in_the_model():
    built = graphs.parse("shape_1 = Relu (x)  scores = Flatten (shape_1)", shape_0=(1,))
    assert list(itertools.islice(fresh_names(built, "shape"), 2)) == ["shape_2", "shape_3"]


def test_an_error_of_many_lines_is_told_on_one():
    assert one_line(ValueError("first\n  second")) == "first second"
    assert one_line(ValueError()) == "ValueError"
    assert len(one_line(ValueError("x" * 1000))) == 300
