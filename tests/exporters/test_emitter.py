"""exporters.emitter: nodes as expressions."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import numpy_helper

from exporters.emitter import Emitter


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
