"""exporters.passes.channels: the model computes the same, its maps are channels first, and Transposes vanish."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper

from exporters.graph import Graph
from exporters.passes import Normal
from exporters.passes.channels import channels_first
from exporters.transposes import RULES
from tests import graphs
from tests.exporters.helpers import assert_reproduces, normal, operators

LAST, FIRST = "<perm = [0, 2, 3, 1]>", "<perm = [0, 3, 1, 2]>"
SHAPE = (1, 3, 4, 5)  # of the image x; t is Transpose(x), (1, 4, 5, 3)
DOWN = f"t = Transpose {LAST} (x)"
UP = f"scores = Transpose {FIRST} (y)"


def run(built: ModelProto, image: np.ndarray) -> list[np.ndarray]:
    """Return the outputs as the nodes compute them: ONNX Runtime's own optimiser, which moves Transposes too, is off."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(built.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": image})


def moved(built: ModelProto) -> ModelProto:
    """Return the model after the step, which must change no number of any output."""
    before = ModelProto()
    before.CopyFrom(built)
    channels_first(Normal(built))
    image = np.random.default_rng(3).uniform(0.1, 0.9, [d.dim_value for d in before.graph.input[0].type.tensor_type.shape.dim])
    pairs = zip(run(built, image.astype(np.float32)), run(before, image.astype(np.float32)), strict=True)
    for value, (found, expected) in zip(before.graph.output, pairs, strict=True):
        assert expected.size
        assert np.isfinite(expected).all()
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6, err_msg=value.name)
    return built


def parse(body: str, **options: object) -> ModelProto:
    return graphs.parse(body, image=",".join(map(str, SHAPE)), **options)


def count(built: ModelProto) -> int:
    return operators(built).count("Transpose")


def nodes(built: ModelProto) -> dict[str, onnx.NodeProto]:
    return {name: node for node in built.graph.node for name in node.output}


# --- one row for every rule ---------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Case:
    """x → Transpose to channels last `t` → the operator's nodes → `y` → an end.

    Attributes
    ----------
    operator : str
        The one that the case is for.
    text : str
        The nodes from t to y.
    end : str
        From y to the scores; by default the inverse Transpose.
    left : int
        Transposes that remain.
    constants : dict of arrays
    """

    operator: str
    text: str
    end: str
    left: int
    opset: int
    constants: dict[str, np.ndarray]

    def __str__(self) -> str:
        return f"{self.text} {self.opset}"

    def model(self) -> ModelProto:
        image = ",".join(map(str, SHAPE))
        return graphs.parse(f"{DOWN} {self.text} {self.end}", image=image, opset=self.opset, **self.constants)


def row(text: str, end: str = UP, left: int = 0, of: str = "", opset: int = 17, **constants: object) -> Case:
    """Return a case; `text` is the operator with its inputs, or lines down to y."""
    lines = text if "y = " in text else f"y = {text}"
    arrays = {
        name: np.array(value, np.float32 if np.array(value).dtype == np.float64 else None) for name, value in constants.items()
    }
    return Case(of or text.split()[0], lines, end, left, opset, arrays)


def values(*shape: int) -> np.ndarray:
    return np.random.default_rng(math.prod(shape)).uniform(0.2, 0.8, shape).astype(np.float32)


def whole(*shape: int) -> np.ndarray:
    return np.random.default_rng(math.prod(shape)).integers(1, 4, shape)


DROPPED = "scores = Identity (y)"  # y has no axes of the map's any more
C = values(3)
UNARY = """Abs Acos Asin Asinh Atan Atanh Ceil Celu Cos Cosh Elu Erf Exp Floor HardSigmoid HardSwish Identity LeakyRelu Log Neg
    Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Tan Tanh ThresholdedRelu Dropout""".split()
BINARY = "Add Div Mul Pow Sub PRelu Max Mean Min Sum".split()
COMPARISONS = "Equal Greater GreaterOrEqual Less LessOrEqual".split()
REDUCTIONS = "L1 L2 LogSum LogSumExp Max Mean Min Prod Sum SumSquare".split()
AS_WHOLE = f"s = Mul (t, ten)  i = Cast <to = {TensorProto.UINT8}> (s)"


def logic(operator: str, inputs: str = "b, c") -> Case:
    return row(
        f"b = Greater (t, half)  z = {operator} ({inputs})  y = Cast <to = 1> (z)",
        of=operator,
        half=0.5,
        c=[True, False, True],
    )


def bits(operator: str, inputs: str = "i, k") -> Case:
    return row(
        f"{AS_WHOLE}  z = {operator} ({inputs})  y = Cast <to = 1> (z)",
        of=operator.split()[0],
        opset=18,
        ten=10.0,
        k=np.uint8([1, 2, 3]),
    )


CASES = [
    *(row(f"{operator} (t)") for operator in UNARY),
    *(row(f"{operator} (t)", opset=20) for operator in ("Gelu", "Mish")),
    row("u = Add (t, two)  y = Acosh (u)", of="Acosh", two=2.0),
    row("u = Cast <to = 11> (t)  y = Cast <to = 1> (u)", of="Cast"),
    row("CastLike (t, c)", c=C),
    row("CastLike (t, t)", left=1),
    row("Clip (t, low, high)", low=0.3, high=0.6),
    row("z = IsInf (t)  y = Cast <to = 1> (z)", of="IsInf"),
    row("z = IsNaN (t)  y = Cast <to = 1> (z)", of="IsNaN"),
    row("Dropout (t, ratio, training)", ratio=0.5, training=False),
    # operators that broadcast
    *(row(f"{operator} (t, c)", c=C) for operator in BINARY),
    *(row(f"z = {operator} (t, c)  y = Cast <to = 1> (z)", of=operator, c=C) for operator in COMPARISONS),
    *(logic(operator) for operator in ("And", "Or", "Xor")),
    logic("Not", "b"),
    *(bits(operator) for operator in ("BitwiseAnd", "BitwiseOr", "BitwiseXor", 'BitShift <direction = "LEFT">', "Mod")),
    bits("BitwiseNot", "i"),
    row("Where (b, t, c)", b=[True, False, True], c=C),
    row("Where (b, c, t)", b=np.random.default_rng(0).random((4, 5, 3)) > 0.5, c=C),
    row("Sub (c, t)", c=C),
    row("Add (t, c)", c=0.5),
    row("Add (t, c)", c=values(1)),
    row("Add (t, c)", c=values(5, 3)),
    row("Add (t, c)", c=values(5, 1)),
    row("Add (t, c)", c=values(1, 4, 5, 3)),
    row("PRelu (t, c)", c=values(1, 1, 3)),
    row("Sum (t, c, t, d)", c=C, d=values(4, 1, 1)),
    row("u = Relu (t)  y = Mul (t, u)", of="Mul"),
    row(f"u = Sigmoid (x)  v = Transpose {LAST} (u)  y = Mul (t, v)", of="Mul"),
    row("v = ReduceMax <keepdims = 0> (t)  y = Div (t, v)", of="Div"),
    row("v = ReduceMean <axes = [0, 1, 2], keepdims = 0> (t)  y = Mul (v, t)", of="Mul"),
    row("q = Reshape (x, n)  y = Mul (t, q)", of="Mul", left=1, n=[1, 4, 5, 3]),
    row("z = Reshape (x, n)  v = ReduceMax <axes = [1, 2], keepdims = 1> (z)  y = Add (v, t)", of="Add", left=1, n=[1, 4, 5, 3]),
    # quantised
    row("q = QuantizeLinear (t, s, z)  y = DequantizeLinear (q, s, z)", of="QuantizeLinear", s=0.1, z=np.uint8(3)),
    row("q = QuantizeLinear (t, s, z)  y = DequantizeLinear (q, s, z)", of="DequantizeLinear", s=[0.1], z=np.uint8([3])),
    *(
        row(
            f"q = QuantizeLinear <axis = {axis}> (t, s, z)  y = DequantizeLinear <axis = {axis}> (q, s, z)",
            of="DequantizeLinear",
            s=values(size),
            z=whole(size).astype(np.uint8),
        )
        for axis, size in ((3, 3), (-1, 3), (1, 4), (-2, 5))
    ),
    row(
        "q = QuantizeLinear (t, s, z)  y = DequantizeLinear (q, s, z)", of="QuantizeLinear", s=values(4), z=np.uint8([1, 2, 3, 4])
    ),
    # along axes
    *(row(f"{operator} (t)") for operator in ("Softmax", "LogSoftmax", "LpNormalization")),
    row("Hardmax <axis = 1> (t)"),
    row("Softmax <axis = 2> (t)"),
    row("LpNormalization <axis = 1, p = 1> (t)"),
    *(row(f"Concat <axis = {axis}> (t, t, c)", c=values(1, 4, 5, 3)) for axis in (1, 2, -1)),
    row("u, v = Split <axis = 3> (t, n)  y = Concat <axis = -1> (v, u, t)", of="Split", n=[1, 2]),
    row("u, v = Split <axis = 1> (t)  y = Sub (u, v)", of="Split"),
    row("u, v = Split <axis = -3, num_outputs = 2> (t)  y = Sub (u, v)", of="Split", opset=18),
    row("u = Split (t)  y = Relu (u)", of="Split"),
    *(
        row(f"Reduce{kind} <axes = {axes}, keepdims = {int(kept)}> (t)", UP if kept else DROPPED)
        for kind in REDUCTIONS
        if kind != "Sum"
        for axes, kept in (([1, 2], True), ([-2, 1], False))
    ),
    *(
        row(f"Reduce{kind} <keepdims = {int(kept)}> (t, a)", UP if kept else DROPPED, opset=18, a=a)
        for kind in REDUCTIONS
        for a, kept in (([1, 2], True), ([-2, 1], False), ([-1], True), ([0, 3], False))
    ),
    row("ReduceSum (t, a)", a=[2]),
    row("ReduceMax (t)"),
    row("ReduceMax <keepdims = 0> (t)", DROPPED),
    row("ReduceMax <axes = [1], keepdims = 0> (t)", "s = Transpose <perm = [0, 2, 1]> (y)  scores = Relu (s)"),
    row("ReduceMax <axes = [3], keepdims = 0> (t)", DROPPED),
    row("ReduceSum <noop_with_empty_axes = 1> (t)"),
    row("ReduceSum <noop_with_empty_axes = 1, keepdims = 0> (t, a)", a=np.array([], np.int64)),
    *(row(f"z = {op} <axis = -1> (t)  y = Cast <to = 1> (z)", of=op) for op in ("ArgMax", "ArgMin")),
    row("y = ArgMax <axis = 1, keepdims = 0> (t)", "s = Transpose <perm = [0, 2, 1]> (y)  scores = Cast <to = 1> (s)", of="ArgMax"),
    row("z = ArgMax (t)  y = Cast <to = 1> (z)", of="ArgMax"),
    row("Gather <axis = -1> (t, i)", i=[2, 0, -1]),
    row("Gather <axis = 1> (t, i)", i=[3]),
    row("Gather <axis = 3> (t, i)", DROPPED, i=1),
    row("Gather <axis = 1> (t, i)", "scores = Transpose <perm = [0, 2, 1]> (y)", i=-1),
    row("Gather (t, i)", "s = Transpose <perm = [2, 0, 1]> (y)  scores = Relu (s)", i=0),
    row("Slice (t, a, b, axes, steps)", a=[0, 4], b=[2, -9], axes=[-1, 2], steps=[1, -2]),
    row("Slice (t, a, b, axes)", a=np.int32([1]), b=np.int32([3]), axes=np.int32([1])),
    row("Slice (t, a, b)", a=[0, 1, 2], b=[1, 3, 9]),
    row("Slice (t, a, b)", a=np.int32([0, 1, 2]), b=np.int32([1, 3, 9])),
    row("Slice (t, a, b, , steps)", a=[0, 1, 2], b=[1, 4, 9], steps=[1, 2, 1]),
    row("Pad (t, p)", p=[0, 1, 2, 0, 0, 3, 0, 1]),
    row('Pad <mode = "reflect"> (t, p)', p=[0, 1, 2, 0, 0, 3, 0, 0]),
    row('Pad <mode = "edge"> (t, p)', p=[0, 1, 2, 0, 0, 3, 0, -1]),
    row("Pad (t, p, v)", p=[0, 1, 2, 0, 0, 3, 0, 1], v=0.5),
    row("Pad (t, p, , a)", p=[1, 2, 3, 0], a=[2, -3], opset=18),
    row("Resize (t, , s)", s=np.float32([1, 2, 3, 1])),
    row('Resize <mode = "linear"> (t, , , n)', n=[1, 7, 8, 3]),
    row('Resize <mode = "linear", axes = [1, 2]> (t, , , n)', n=[7, 8], opset=18),
    row(
        'Resize <mode = "linear", coordinate_transformation_mode = "tf_crop_and_resize"> (t, r, , n)',
        r=np.float32([0, 0.1, 0.2, 0, 1, 0.8, 0.9, 1]),
        n=[1, 7, 8, 3],
    ),
    row("Tile (t, n)", n=[1, 2, 3, 1]),
    row("Expand (t, n)", n=[2, 4, 1, 3]),
    row("u = ReduceMax <axes = [1, 2]> (t)  y = Expand (u, n)", of="Expand", n=[4, 5, 1]),
    # the same numbers in another shape
    row("u = ReduceMax <axes = [1, 2]> (t)  y = Squeeze (u, a)", DROPPED, of="Squeeze", a=[1, 2]),
    row("u = ReduceMax <axes = [1, 2]> (t)  y = Squeeze (u)", DROPPED, of="Squeeze"),
    row("u = ReduceMax <axes = [-1]> (t)  y = Squeeze (u, a)", DROPPED, of="Squeeze", a=[-1]),
    row("u = Unsqueeze (t, a)  y = Squeeze (u, a)", of="Unsqueeze", left=2, a=[1]),
    row("Unsqueeze (t, a)", "scores = Transpose <perm = [0, 1, 4, 2, 3]> (y)", a=[1]),
    row("Unsqueeze (t, a)", "scores = Transpose <perm = [0, 3, 1, 2, 4, 5]> (y)", a=[5, -2]),
    *(
        row(f"u = ReduceMax <axes = [1, 2]> (t)  y = Flatten <axis = {axis}> (u)", DROPPED, of="Flatten")
        for axis in (0, 1, 2, 3, 4, -1, -3)
    ),
    row("u = ReduceMax <axes = [-1]> (t)  y = Flatten (u)", DROPPED, of="Flatten"),
    row("u = ReduceMax <axes = [-1]> (t)  y = Flatten <axis = -1> (u)", DROPPED, of="Flatten"),
    *(
        row("u = ReduceMax <axes = [1, 2]> (t)  y = Reshape (u, n)", DROPPED, of="Reshape", n=n)
        for n in ([1, 3], [-1, 3], [0, -1], [0, 0, -1], [0, 0, 0, 3], [3, 1], [0, 0, 0, 0])
    ),
    row("u = ReduceMax <axes = [-1]> (t)  y = Reshape (u, n)", DROPPED, of="Reshape", n=[0, 0, 0]),
    row("u = ReduceMax <axes = [-1]> (t)  y = Reshape (u, n)", DROPPED, of="Reshape", n=[0, 2, -1]),
]  # fmt: skip


def test_every_rule_has_a_case():
    unseen = {"Swish"}  # of an opset that no released ONNX Runtime has to have
    assert {case.operator for case in CASES} == set(RULES) - unseen


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_transpose_moves_through(case):
    built = case.model()
    assert case.operator in operators(built)
    assert count(moved(built)) == case.left


def test_a_flattening_still_cuts_behind_the_batch_when_that_is_freed():
    built = moved(parse(f"{DOWN} u = ReduceMax <axes = [1, 2]> (t)  scores = Flatten <axis = 1> (u)"))
    assert helper.get_attribute_value(nodes(built)["scores"].attribute[0]) == 1


def test_a_single_number_is_left_as_it_is():
    built = moved(parse(f"{DOWN} y = Add (t, c) {UP}", c=np.float32([2])))
    assert [tensor.name for tensor in built.graph.initializer] == ["c"]


# --- what a Transpose does not move through -----------------------------------------------------------------------------------
STAY = [
    row("MatMul (t, m)", m=values(3, 3)),
    row("LayerNormalization (t, c)", c=C),
    row("CumSum (t, a)", a=1),
    row("BatchNormalization (t, g, g, g, g)", g=values(4)),
    row("GlobalAveragePool (t)", DROPPED),
    row("Flatten (t)", DROPPED),
    row("Flatten <axis = 3> (t)", DROPPED),
    row("Reshape (t, n)", DROPPED, n=[1, -1]),
    row("Reshape (t, n)", DROPPED, n=[0, 0, 0, 0]),
    row("v = Relu (t)  u = Shape (v)  y = Expand (half, u)", of="Shape", half=0.5),
    row("Expand (t, n)", DROPPED, n=[2, 1, 1, 1, 1]),
    row("Add (t, c)", DROPPED, c=values(2, 1, 1, 1, 1)),
    row("u = Reshape (x, n)  v = ReduceMax <axes = [0], keepdims = 0> (u)  y = Add (t, v)", of="Add", n=[1, 4, 5, 3]),
    row("Gather <axis = 3> (t, i)", DROPPED, i=[[0, 1], [2, 0]]),
    row("i = ArgMax <axis = 3> (t)  y = Gather <axis = 1> (table, i)", DROPPED, of="Gather", table=values(2, 5)),
    row("s = Shape (x)  y = Reshape (t, s)", DROPPED, of="Reshape"),
    row("q = Cast <to = 2> (t)  y = DequantizeLinear <axis = 1, block_size = 2> (q, s)", of="Cast", opset=21, s=values(1, 2, 5, 3)),
]  # fmt: skip


@pytest.mark.parametrize("case", STAY, ids=str)
def test_a_transpose_stays_above_what_mixes_its_axes(case):
    built = case.model()
    before = count(built)
    assert count(moved(built)) == before
    assert nodes(built)["y"].input[0] not in ("x", "y")


def test_a_random_dropout_stays_below():
    built = parse(f"{DOWN} y = Dropout (t, ratio, training) {UP}", ratio=np.float32(0.5), training=np.array(True))
    channels_first(Normal(built))
    assert operators(built) == ["Transpose", "Dropout", "Transpose"]


def test_squeezing_axes_of_unknown_length_stays_below():
    built = graphs.parse(f"{DOWN} r = Relu (t)  scores = Squeeze (r)", image="N,3,H,W")
    channels_first(Normal(built))
    assert operators(built) == ["Relu", "Transpose", "Squeeze"]


def test_a_transpose_of_a_sequence_is_not_moved():
    body = "s = Reshape (x, n)  t = Transpose <perm = [0, 2, 1]> (s)  a = Add (t, c)  scores = MatMul (a, m)"
    built = moved(parse(body, n=np.array([1, 3, 20]), c=C, m=values(3, 2)))
    assert operators(built) == ["Reshape", "Transpose", "Add", "MatMul"]


def test_an_operator_of_another_domain_stays_below():
    built = parse(f"{DOWN} y = Relu (t) {UP}")
    built.graph.node[1].domain = "acme"
    built.opset_import.append(helper.make_opsetid("acme", 1))
    channels_first(Normal(built))
    assert operators(built) == ["Transpose", "Relu", "Transpose"]


def test_a_constant_of_a_type_that_numpy_lacks_stays_below():
    built = parse(f"{DOWN} h = Cast <to = 16> (t) a = Add (h, c) y = Cast <to = 1> (a) {UP}", opset=17)
    built.graph.initializer.append(helper.make_tensor("c", TensorProto.BFLOAT16, [3], [1, 2, 3]))
    channels_first(Normal(built))
    assert operators(built) == ["Cast", "Transpose", "Add", "Cast", "Transpose"]


# --- Transposes alone -----------------------------------------------------------------------------------------------------------
def test_two_transposes_become_one():
    built = moved(parse("a = Transpose <perm = [0, 2, 1, 3]> (x) scores = Transpose <perm = [0, 3, 2, 1]> (a)"))
    assert operators(built) == ["Transpose"]
    assert list(built.graph.node[0].attribute[0].ints) == [0, 3, 1, 2]


def test_a_transpose_without_a_permutation_reverses_the_axes():
    built = moved(parse("a = Transpose (x) b = Transpose (a) scores = Relu (b)"))
    assert operators(built) == ["Relu"]


def test_a_transpose_of_unknown_rank_is_left_alone():
    built = parse("a = Acme (x) b = Transpose (a) scores = Relu (b)")
    built.graph.node[0].domain = "acme"
    built.opset_import.append(helper.make_opsetid("acme", 1))
    channels_first(Normal(built))
    assert operators(built) == ["Acme", "Transpose", "Relu"]


def test_equal_transposes_of_one_tensor_are_written_once():
    built = moved(parse(f"{DOWN} u = Transpose {LAST} (x) a = MatMul (t, m) b = MatMul (u, m) scores = Add (a, b)", m=(3, 3)))
    assert count(built) == 1


def test_a_transpose_to_channels_first_is_not_moved_down():
    text = f"{DOWN} n = LayerNormalization (t, c)  u = Transpose {FIRST} (n)  r = Relu (u)  scores = Add (r, x)"
    built = parse(text, c=C)
    before = built.SerializeToString()
    moved(built)
    assert ModelProto.FromString(before).graph == built.graph


def test_a_model_without_transposes_is_left_as_it_is():
    built = graphs.classifier()
    before = built.SerializeToString()
    channels_first(Normal(built))
    assert built.SerializeToString() == before


# --- names ------------------------------------------------------------------------------------------------------------------------
def test_a_tensor_keeps_its_name_and_becomes_channels_first():
    built = moved(parse(f"{DOWN} [act] r = Relu (t)  f = Flatten (r)  scores = MatMul (f, w)", w=(60, 2)))
    assert operators(built) == ["Relu", "Transpose", "Flatten", "MatMul"]
    assert Graph(built).shapes["r"][1] == (1, 3, 4, 5)
    assert list(built.graph.node[0].input) == ["x"]
    assert built.graph.node[0].name == "act"
    assert list(built.graph.node[2].input) == ["r/transposed"]


def test_a_transpose_that_does_not_move_keeps_its_name_and_its_tensors():
    built = moved(parse(f"[turn] {DOWN} f = Flatten (t)  scores = Relu (f)"))
    assert built.graph.node[0].name == "turn"
    assert nodes(built)["f"].input[0] == "t"


def test_a_name_that_is_taken_is_not_given_again():
    body = f"{DOWN} r = Relu (t)  n = Neg (x)  q = Identity (n)  f = Flatten (r)  g = Flatten (q)  scores = Add (f, g)"
    built = parse(body)
    for node in built.graph.node:
        for names in (node.input, node.output):
            names[:] = ["r/transposed" if name == "q" else name for name in names]
    assert nodes(moved(built))["f"].input[0] == "r/transposed'"


def test_what_is_known_of_a_node_stays_with_it():
    built = parse(f"{DOWN} r = ReduceMean <axes = [1, 2]> (t)  f = Flatten (r)  scores = Relu (f)")
    node = built.graph.node[1]
    node.name, node.doc_string = "mean", "why"
    node.metadata_props.add(key="scope", value="head")
    (found,) = [node for node in moved(built).graph.node if node.op_type == "ReduceMean"]
    assert (found.name, found.doc_string, found.metadata_props[0].value) == ("mean", "why", "head")


def test_shapes_noted_for_tensors_that_changed_are_forgotten():
    built = parse(f"{DOWN} r = Relu (t)  f = Flatten (r)  scores = Relu (f)")
    built = onnx.shape_inference.infer_shapes(built)
    assert {value.name for value in moved(built).graph.value_info} == {"f"}


@pytest.mark.parametrize("body", ["scores = Relu (t)", "r = Relu (t)  scores = Identity (r)", f"scores = Transpose {LAST} (x)"])
def test_an_output_keeps_its_layout(body):
    built = moved(parse(f"{DOWN} {body}" if "(t)" in body else body))
    assert built.graph.output[0].name == "scores"
    assert count(built) == 1


def test_an_output_inside_keeps_name_and_layout_while_its_readers_move():
    body = f"{DOWN} mid = Relu (t)  y = Sigmoid (mid)  scores = Transpose {FIRST} (y)"
    built = moved(parse(f"{body} again = Transpose {LAST} (x)", outputs=("mid", "scores", "t", "again")))
    assert [value.name for value in built.graph.output] == ["mid", "scores", "t", "again"]
    assert nodes(built)["mid"].op_type == "Transpose"
    assert nodes(built)["y"].input[0] == nodes(built)["mid"].input[0]


@pytest.mark.parametrize("operator", ["Relu (x)", f"Transpose {FIRST} (t)"])
def test_an_output_that_two_transposes_give_back_is_that_tensor(operator):
    built = moved(parse(f"{DOWN} scores = {operator}"))
    assert count(built) == 0


# --- several readers and branches -----------------------------------------------------------------------------------------------
def test_a_transpose_stays_only_for_the_readers_that_need_it():
    body = f"{DOWN} r = Relu (t)  u = Transpose {FIRST} (r)  c = Conv (u, w)  f = Flatten (r)  g = Flatten (c)  scores = Concat <axis = 1> (f, g)"
    built = moved(parse(body, w=(2, 3, 1, 1)))
    assert count(built) == 1
    assert list(nodes(built)["c"].input) == ["r", "w"]


def test_what_a_branch_takes_from_outside_keeps_name_and_layout():
    body = f"""{DOWN} r = Relu (t)  m = ReduceMax <keepdims = 0> (x)  yes = Greater (m, half)
        v = If <then_branch = one () => (float[1, 4, 5, 3] p) {{ p = Neg (r) }},
                else_branch = two () => (float[1, 4, 5, 3] q) {{ q = Exp (r) }}> (yes)
        s = Sigmoid (r)  y = Mul (s, v)  {UP}"""
    built = moved(parse(body, half=np.float32(0.5)))
    assert nodes(built)["r"].op_type == "Transpose"
    assert nodes(built)["s"].input[0] == nodes(built)["r"].input[0]
    assert nodes(built)["y"].input[0] == "s"


def test_a_shared_constant_is_permuted_once():
    built = moved(parse(f"{DOWN} a = Mul (t, c)  b = Add (a, c)  y = Sub (b, c) {UP}", c=C))
    assert count(built) == 0
    assert [list(tensor.dims) for tensor in built.graph.initializer] == [[3], [1, 3, 1, 1]]


def test_a_node_stays_in_channels_last_where_moving_it_would_only_cost():
    body = f"{DOWN} n = MatMul (t, m)  s = Add (t, n)  k = MatMul (s, m)  z = Add (s, k)  scores = Flatten (z)"
    assert count(moved(parse(body, m=(3, 3)))) == 1


# --- networks -----------------------------------------------------------------------------------------------------------------------
class Builder:
    """Writes a network in channels last, a Transpose on either side of every Conv."""

    def __init__(self):
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, np.ndarray] = {}
        self.image = self("Transpose", "x", perm=[0, 2, 3, 1])

    def __call__(self, operator: str, *inputs: str | np.ndarray, **attributes: object) -> str:
        """Add a node, whose arrays become weights, and return its tensor."""
        name = f"{operator}_{len(self.nodes)}"
        names = [each if isinstance(each, str) else f"{name}/{i}" for i, each in enumerate(inputs)]
        self.weights |= {key: each for key, each in zip(names, inputs, strict=True) if not isinstance(each, str)}
        self.nodes.append(helper.make_node(operator, names, [name], name=name, **attributes))
        return name

    def conv(self, x: str, inputs: int, outputs: int, size: int = 3, group: int = 1) -> str:
        weights = (values(outputs, inputs // group, size, size) - np.float32(0.5)) * np.float32((inputs * size) ** -0.5)
        first = self("Transpose", x, perm=[0, 3, 1, 2])
        return self("Transpose", self("Conv", first, weights, group=group, pads=[size // 2] * 4), perm=[0, 2, 3, 1])

    def scaled(self, x: str, channels: int) -> str:
        """Batch normalisation, as converters write it."""
        return self("Add", self("Mul", x, values(channels)), values(channels))

    def rounded(self, x: str) -> str:
        scale = np.float32(0.05), np.uint8(100)
        return self("DequantizeLinear", self("QuantizeLinear", x, *scale), *scale)

    def mean(self, x: str, keepdims: int) -> str:
        return self("ReduceMean", x, axes=[1, 2], keepdims=keepdims)

    def classify(self, x: str, channels: int) -> ModelProto:
        scores = self("Gemm", self.mean(x, keepdims=0), values(channels, 4))
        return graphs.model(self.nodes, self.weights, image=(1, 3, 16, 16), output=scores)


def residual() -> ModelProto:
    net = Builder()
    x = net("Pad", net("Sub", net.image, values(3)), np.array([0, 1, 1, 0, 0, 1, 1, 0]))
    x = net("Relu", net.scaled(net.conv(x, 3, 6), 6))
    for _ in range(3):
        branch = net("Relu", net.scaled(net.conv(x, 6, 6), 6))
        x = net("Relu", net("Add", x, net.scaled(net.conv(branch, 6, 6), 6)))
    return net.classify(net("Concat", x, net.conv(x, 6, 2), axis=3), 8)


def inverted_residual() -> ModelProto:
    net = Builder()
    x = net.scaled(net.conv(net.image, 3, 4, 1), 4)
    for _ in range(2):
        wide = net("HardSwish", net.scaled(net.conv(x, 4, 8, 1), 8))
        deep = net("HardSwish", net.scaled(net.conv(wide, 8, 8, 3, 8), 8))
        squeezed = net("Relu", net.conv(net.mean(deep, keepdims=1), 8, 2, 1))
        gate = net("Sigmoid", net.conv(squeezed, 2, 8, 1))
        x = net("Add", net.scaled(net.conv(net("Mul", deep, gate), 8, 4, 1), 4), x)
    return net.classify(x, 4)


def gate_of_linear_layers() -> ModelProto:
    net = Builder()
    x = net("Relu", net.conv(net.image, 3, 6))
    gate = net("Sigmoid", net("MatMul", net.mean(x, keepdims=0), values(6, 6)))
    x = net("Mul", x, net("Reshape", gate, np.array([-1, 1, 1, 6])))
    return net.classify(net.conv(x, 6, 6), 6)


def quantised() -> ModelProto:
    net = Builder()
    x = net.rounded(net("Relu", net.scaled(net.conv(net.rounded(net.image), 3, 6), 6)))
    bias = net("DequantizeLinear", np.arange(6, dtype=np.int8), np.float32(0.02))
    x = net.rounded(net("Add", net.conv(x, 6, 6), bias))
    return net.classify(net.rounded(net("Add", x, net.rounded(net.conv(x, 6, 6)))), 6)


def convnext() -> ModelProto:
    net = Builder()
    x = net.conv(net.image, 3, 6)
    for _ in range(3):
        branch = net("LayerNormalization", net.conv(x, 6, 6, 3, 6), values(6))
        branch = net("MatMul", net("Relu", net("MatMul", branch, values(6, 9))), values(9, 6))
        x = net("Add", x, net("Mul", branch, values(6)))
    return net.classify(x, 6)


NETWORKS = {  # the Transposes that remain, and the operators that still work in channels last
    "residual": (residual, 0, ()),
    "inverted residual": (inverted_residual, 0, ()),
    "quantised": (quantised, 0, ()),
    "gate": (gate_of_linear_layers, 1, ()),
    "convnext": (convnext, 6, ("LayerNormalization", "MatMul", "Relu", "Mul")),
}


@pytest.mark.parametrize(("build", "left", "inside"), NETWORKS.values(), ids=NETWORKS)
def test_a_network_in_channels_last_becomes_channels_first(build, left, inside):
    built = build()
    before = {name: shape for name, (_, shape) in Graph(built).shapes.items() if not name.startswith(("Transpose", "x"))}
    after = Graph(moved(built)).shapes
    assert count(built) == left
    assert before.keys() <= after.keys()
    maps = {name for name, shape in before.items() if len(shape) == 4 and shape[1:3] in ((16, 16), (18, 18))}
    assert maps
    assert {name.split("_")[0] for name in maps if after[name][1][2:] != before[name][1:3]} == set(inside)


@pytest.mark.parametrize("build", [build for build, *_ in NETWORKS.values()], ids=NETWORKS)
def test_a_second_time_changes_nothing(build):
    built = moved(build())
    before = ModelProto()
    before.CopyFrom(built)
    assert moved(built).graph.node == before.graph.node


def test_a_network_of_thousands_of_nodes_takes_a_moment():
    net = Builder()
    x = net.conv(net.image, 3, 6)
    for _ in range(600):
        x = net("Add", x, net("Relu", net.conv(x, 6, 6, 1)))
    built = net.classify(x, 6)
    assert len(built.graph.node) > 3000
    start = time.perf_counter()
    channels_first(Normal(built))
    assert time.perf_counter() - start < 10
    assert count(built) == 0


@pytest.mark.parametrize("build", [residual, inverted_residual, quantised], ids=lambda build: build.__name__)
def test_a_network_in_channels_last_is_cut_and_explained(build, cut):
    built = build()
    bundle = cut(built)
    assert bundle.manifest.features.shape[2:] in ((16, 16), (18, 18))
    assert_reproduces(bundle, built, border=normal(built).border)


# --- any chain, any graph -----------------------------------------------------------------------------------------------------
PERMS = st.sampled_from([[0, 2, 3, 1]] * 3 + [[0, 3, 1, 2]] * 3) | st.permutations(range(4))
AXES = st.integers(-4, 3)


@dataclass
class Drawing:
    """A graph while it is drawn: tensors of rank 4 with their shapes."""

    draw: st.DrawFn
    shapes: dict[str, tuple[int, ...]]
    nodes: list[onnx.NodeProto]
    weights: dict[str, np.ndarray]

    def add(self, operator: str, shape: tuple[int, ...], *inputs: str | np.ndarray, **attributes: object) -> None:
        name = f"n{len(self.nodes)}"
        names = [each if isinstance(each, str) else f"{name}/{i}" for i, each in enumerate(inputs)]
        self.weights |= {key: each for key, each in zip(names, inputs, strict=True) if not isinstance(each, str)}
        self.nodes.append(helper.make_node(operator, names, [name], **attributes))
        self.shapes[name] = shape

    def grow(self, x: str, other: str) -> None:
        """Add a node that reads x, or x and another tensor."""
        shape, axis = self.shapes[x], self.draw(AXES)
        kind = self.draw(
            st.sampled_from("turn turn turn unary constant join soft reduce pad slice concat matmul reshape".split())
        )
        if kind == "turn":
            perm = self.draw(PERMS)
            self.add("Transpose", tuple(shape[i] for i in perm), x, perm=perm)
        elif kind == "unary":
            self.add(self.draw(st.sampled_from(["Sigmoid", "Tanh", "Identity", "Relu"])), shape, x)
        elif kind == "constant":
            sizes = tuple(self.draw(st.sampled_from((1, size))) for size in shape)[self.draw(st.integers(0, 4)) :]
            self.add("Add", shape, *self.draw(st.permutations([x, np.asarray(values(*sizes))])))
        elif kind == "join":
            pairs = list(zip(shape, self.shapes[other], strict=True))
            if all(m == n or 1 in (m, n) for m, n in pairs):
                self.add("Mul", tuple(map(max, pairs)), x, other)
        elif kind == "soft":
            self.add("Softmax", shape, x, axis=axis)
        elif kind == "reduce":
            self.add("ReduceMean", tuple(1 if i == axis % 4 else d for i, d in enumerate(shape)), x, axes=[axis])
        elif kind == "pad":
            pads = [self.draw(st.integers(0, 1)) for _ in range(8)]
            self.add("Pad", tuple(d + pads[i] + pads[i + 4] for i, d in enumerate(shape)), x, np.array(pads))
        elif kind == "slice" and shape[axis % 4] > 1:
            sliced = tuple(d - 1 if i == axis % 4 else d for i, d in enumerate(shape))
            self.add("Slice", sliced, x, np.array([1]), np.array([99]), np.array([axis]))
        elif kind == "concat":
            self.add("Concat", tuple(2 * d if i == axis % 4 else d for i, d in enumerate(shape)), x, x, axis=axis)
        elif kind == "matmul":
            self.add("MatMul", shape, x, values(shape[-1], shape[-1]))
        elif kind == "reshape":
            self.add("Reshape", shape, x, np.array(shape))

    def model(self, *outputs: str) -> ModelProto:
        return graphs.model(self.nodes, self.weights, image=SHAPE, outputs=outputs)


@st.composite
def drawn(draw: st.DrawFn, chain: bool) -> ModelProto:
    """Draw a graph; in a chain every node reads the one before, and only the last tensor is an output."""
    drawing = Drawing(draw, {"x": SHAPE}, [], {})
    for _ in range(draw(st.integers(2, 14))):
        known = list(drawing.shapes)
        x = known[-1] if chain else draw(st.sampled_from(known[-4:]))
        drawing.grow(x, x if chain else draw(st.sampled_from(known)))
        if math.prod(max(drawing.shapes.values(), key=math.prod)) > 5000:
            break
    made = list(drawing.shapes)[1:]
    also = [] if chain or not made else draw(st.lists(st.sampled_from(made), max_size=2, unique=True))
    drawing.add("Identity", (), list(drawing.shapes)[-1])
    return drawing.model(*also, list(drawing.shapes)[-1])


@settings(max_examples=150, deadline=None)
@given(drawn(chain=True))
def test_a_chain_computes_the_same_with_no_more_transposes(built):
    before = count(built)
    assert count(moved(built)) <= before


@settings(max_examples=150, deadline=None)
@given(drawn(chain=False))
def test_any_graph_computes_the_same(built):
    moved(built)
