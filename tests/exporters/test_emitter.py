"""exporters.emitter: nodes as expressions."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, ValueInfoProto, helper, numpy_helper

from exporters.emitter import Emitter
from tests import graphs


def test_an_expression_becomes_nodes_in_order():
    op = Emitter("p")
    op.Mul(op.Sub("a", "b"), op.constant([2.0], np.float32))
    assert [(n.op_type, list(n.input), list(n.output)) for n in op.nodes] == [
        ("Sub", ["a", "b"], ["p/Sub_0"]),
        ("Mul", ["p/Sub_0", "p/constant_0"], ["p/Mul_1"]),
    ]


@pytest.mark.parametrize(
    ("value", "dtype", "expected"), [([1, 2], np.int64, [1, 2]), (0.5, np.float32, 0.5), (True, np.bool_, True)]
)
def test_a_constant_keeps_its_type(value, dtype, expected):
    op = Emitter("p")
    name = op.constant(value, dtype)
    array = numpy_helper.to_array(op.initializers[0])
    assert (op.initializers[0].name, array.dtype, array.tolist()) == (name, dtype, expected)


def test_the_last_tensor_can_be_given_its_name_in_the_interface():
    op = Emitter("p")
    op.name(op.Relu("a"), "features")
    assert list(op.nodes[0].output) == ["features"]


def test_what_is_no_operator_is_no_attribute():
    with pytest.raises(AttributeError, match="relu"):
        Emitter("p").relu("a")


def test_a_node_may_have_several_outputs():
    op = Emitter("p")
    op.Relu("a")
    assert op.several("Split", 3, "a", "sizes", axis=1) == ["p/Split_1", "p/Split_1/1", "p/Split_1/2"]
    assert list(op.nodes[1].output) == ["p/Split_1", "p/Split_1/1", "p/Split_1/2"]
    assert (op.nodes[1].attribute[0].name, op.nodes[1].attribute[0].i) == ("axis", 1)


def test_the_same_constant_is_stored_once_and_others_are_kept_apart():
    op = Emitter("p")
    names = [op.constant(*given) for given in (
        ([1, 2],), ([1, 2],), ([[1, 2]],), ([1, 2], np.float32), ([1, 3],), (0.0, np.float32), (-0.0, np.float32),
    )]  # fmt: skip
    assert names[0] == names[1]
    assert len(set(names)) == len(op.initializers) == 6
    assert [t.name for t in op.initializers] == list(dict.fromkeys(names))


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64"])
def test_a_number_has_the_element_type_of_the_emitter(dtype):
    op = Emitter("p", dtype)
    assert op.number(0.5) == op.number(0.5)
    array = numpy_helper.to_array(op.initializers[0])
    assert (array.dtype, array.shape, float(array)) == (np.dtype(dtype), (), 0.5)


# --- branches and loops -----------------------------------------------------------------------------------------------------------
def evaluated(op: Emitter, *outputs: str, **inputs: np.ndarray) -> list[np.ndarray]:
    values = [helper.make_tensor_value_info(k, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape) for k, v in inputs.items()]
    graph = helper.make_graph(op.nodes, "g", values, [ValueInfoProto(name=name) for name in outputs], op.initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", op.opset)], ir_version=8)
    return graphs.run(model, inputs)


@pytest.mark.parametrize(("condition", "expected"), [(True, [3.0, 4.0]), (False, [-1.0, -2.0])])
def test_a_branch_emits_what_was_chosen_and_reads_what_lies_outside(condition, expected):
    op = Emitter("p")
    found = op.branch(
        "c", [TensorProto.FLOAT], lambda op: [op.Add("x", op.number(2))], lambda op: [op.Neg("x")]
    )  # fmt: skip
    (result,) = evaluated(op, *found, c=np.array(condition), x=np.array([1, 2], np.float32))
    assert result.tolist() == expected


def test_a_loop_carries_its_state_and_stops_when_it_is_told_to():
    op = Emitter("p")

    def turn(op, number, state):
        grown = op.Concat(state[0], op.Reshape(number, op.constant([1])), axis=0)
        return op.Less(number, op.constant(3)), [grown]

    (state,) = op.loop(op.constant(100), [op.constant([-1])], [TensorProto.INT64], turn)
    assert evaluated(op, state)[0].tolist() == [-1, 0, 1, 2, 3]


def test_what_a_body_only_passes_on_goes_through_an_identity():
    op = Emitter("p")
    op.loop(op.constant(2), ["x"], [TensorProto.FLOAT], lambda op, number, state: (None, state))
    assert [node.op_type for node in op.nodes[0].attribute[0].g.node] == ["Identity", "Identity"]


@pytest.mark.parametrize("opset", [13, 17, 18, 21])
@pytest.mark.parametrize("operator", ["ReduceSum", "ReduceMax", "ReduceMean"])
def test_axes_are_reduced_in_every_operator_set(opset, operator):
    op = Emitter("p", opset=opset)
    x = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    kept, dropped = op.reduce(operator, "x", 1, 2), op.reduce(operator, "x", 2, keepdims=False)
    judge = {"ReduceSum": np.sum, "ReduceMax": np.max, "ReduceMean": np.mean}[operator]
    a, b = evaluated(op, kept, dropped, x=x)
    np.testing.assert_allclose(a, judge(x, axis=(1, 2), keepdims=True))
    np.testing.assert_allclose(b, judge(x, axis=2))
