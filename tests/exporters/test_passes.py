"""exporters.passes: whatever made the model, one image input, one output (N, L), constants as initializers, any batch."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from camrt.errors import ExportError
from exporters.graph import Graph, opset
from exporters.passes import Normal
from exporters.passes.constants import lift_constants
from exporters.passes.functions import inline_functions
from exporters.passes.opset import raise_opset
from tests import graphs
from tests.exporters.helpers import assert_reproduces, normal, operators, split

CONV = "c = Conv <pads = [1, 1, 1, 1]> (x, w)  r = Relu (c)"  # (N, 5, 16, 16)
W = (5, 3, 3, 3)


def shape_of(found: Normal, tensor: str) -> tuple:
    return Graph(found.model).shapes[tensor][1]


# --- interface ------------------------------------------------------------------------------------------------------------
def test_image_and_output_are_found():
    found = normal(graphs.classifier())
    assert (found.image, found.logits, found.raw_logits) == ("x", "scores", "scores")
    assert found.size == (32, 32)
    assert shape_of(found, "scores") == ("N", 5)


def assert_refused(built: onnx.ModelProto, message: str, **asked: object) -> None:
    with pytest.raises(ExportError, match=message):
        normal(built, **asked)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("N,3,16", r"must be an image \(N, C, H, W\); it has 3 dimensions"),
        ("N,3,4,16,16", "it has 5 dimensions"),
        ("N,16,16,3", r"must have 1 or 3 channels, it has 16\. It looks like channels last \(NHWC\)"),
        ("N,H,W,1", r"it has H\. It looks like channels last"),
        ("N,4,16,16", r"must have 1 or 3 channels, it has 4\.$"),
        ("N,C,16,16", r"must have 1 or 3 channels, it has C\.$"),
        ("N,3,H,16", r"The height of the input 'x' is open \(H\)\. Set it: --size"),
        ("N,3,16,W", r"The width of the input 'x' is open \(W\)"),
    ],
)
def test_an_input_that_is_no_image_is_refused(image, message):
    assert_refused(graphs.parse("p = Relu (x)  scores = Flatten (p)", image=image), message)


@pytest.mark.parametrize("kind", ["UINT8", "FLOAT16", "DOUBLE", "INT64"])
def test_an_input_that_is_not_float32_is_refused(kind):
    built = graphs.classifier()
    built.graph.input[0].type.tensor_type.elem_type = TensorProto.DataType.Value(kind)
    assert_refused(built, f"The input 'x' must be float32, it is {kind}")


def test_several_inputs_are_refused_by_name():
    built = graphs.classifier()
    built.graph.input.append(helper.make_tensor_value_info("threshold", TensorProto.FLOAT, []))
    assert_refused(built, r"must have one input, the image; it has 2: x, threshold")


def test_no_input_is_refused():
    built = graphs.classifier()
    del built.graph.input[:]
    assert_refused(built, "it has 0: none")


def test_an_open_size_is_taken_from_the_user():
    found = normal(graphs.parse(f"{CONV} p = GlobalAveragePool (r) scores = Flatten (p)", image="N,3,H,W", w=W), size=(24, 32))
    assert found.size == (24, 32)
    assert shape_of(found, "r") == ("N", 5, 24, 32)


def test_a_size_that_contradicts_the_model_is_refused():
    assert_refused(graphs.classifier(), r"has height 32, not 64\. Leave out --size", size=(64, 64))
    assert_refused(graphs.classifier(), r"has width 32, not 64\. Leave out --size", size=(32, 64))


def two_outputs() -> onnx.ModelProto:
    body = f"{CONV} p = GlobalAveragePool (r) main = Flatten (p)  n = GlobalMaxPool (c)  auxiliary = Flatten (n)"
    return graphs.parse(body, outputs=("main", "auxiliary"), w=W)


def test_several_outputs_ask_for_a_choice():
    assert_refused(two_outputs(), r"has 2 outputs: main, auxiliary\. Choose one: --output NAME")


def test_an_unknown_output_gets_a_suggestion():
    assert_refused(
        two_outputs(), r"no output 'auxilary'\. Did you mean 'auxiliary'\? It has: main, auxiliary", output="auxilary"
    )


def test_the_other_output_and_what_only_it_needs_is_left_out():
    found = normal(two_outputs(), output="auxiliary")
    assert [value.name for value in found.model.graph.output] == ["auxiliary"]
    assert operators(found.model) == ["Conv", "GlobalMaxPool", "Flatten"]


def test_an_output_without_a_recorded_type_is_taken():
    built = graphs.classifier()
    built.graph.output[0].ClearField("type")
    assert shape_of(normal(built), "scores") == ("N", 5)


def test_a_sequence_of_scores_is_refused():
    built = graphs.parse(f"{CONV} p = GlobalAveragePool (r) f = Flatten (p) scores = SequenceConstruct (f)", w=W)
    built.graph.output[0].type.Clear()
    built.graph.output[0].type.sequence_type.elem_type.tensor_type.elem_type = TensorProto.FLOAT
    assert_refused(built, "'scores' is a sequence or a map")


@pytest.mark.parametrize(
    ("end", "shape"),
    [
        ("scores = Identity (r)", "1 x 5 x 16 x 16"),
        ("scores = ReduceMean <axes = [0, 2, 3], keepdims = 0> (r)", "5"),
        ("p = GlobalAveragePool (r)  scores = Squeeze (p)", "5"),
    ],
)
def test_an_output_that_is_not_one_score_per_class_is_refused(end, shape):
    message = rf"must be one score per class, \(N, L\); its shape is {shape}\. Choose another output"
    assert_refused(graphs.parse(f"{CONV} {end}", w=W), message)


# --- constants ------------------------------------------------------------------------------------------------------------
def test_constant_nodes_become_initializers():
    built = graphs.parse(
        """
        ratio = Constant <value_float = 0.5> ()  many = Constant <value_floats = [1.0, 2.0]> ()
        one = Constant <value_int = 7> ()  shape = Constant <value_ints = [0, -1]> ()  w = Constant <value = float[1] {3.0}> ()
        scores = Reshape (x, shape)
        """
    )
    found = Normal(built)
    lift_constants(found)
    values = {t.name: numpy_helper.to_array(t) for t in found.model.graph.initializer}
    assert operators(found.model) == ["Reshape"]
    assert {name: (value.dtype.name, value.tolist()) for name, value in values.items()} == {
        "ratio": ("float32", 0.5),
        "many": ("float32", [1.0, 2.0]),
        "one": ("int64", 7),
        "shape": ("int64", [0, -1]),
        "w": ("float32", [3.0]),
    }


def test_a_constant_text_is_refused():
    built = graphs.parse('t = Constant <value_string = "cat"> ()  scores = Flatten (x)')
    assert_refused(built, "Constant 't' holds text or a sparse tensor")


def test_initializers_listed_as_inputs_are_dropped():
    built = graphs.classifier()
    for tensor in built.graph.initializer:
        built.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    assert [value.name for value in normal(built).model.graph.input] == ["x"]


# --- opset ----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("version", [9, 11, 12])
def test_old_opsets_are_raised(version):
    found = Normal(graphs.classifier(opset=version))
    raise_opset(found)
    assert opset(found.model) == 13


@pytest.mark.parametrize("version", [13, 15, 17, 18, 21])
def test_newer_opsets_stay(version):
    found = Normal(graphs.classifier(opset=version))
    raise_opset(found)
    assert found.model == graphs.classifier(opset=version)


def test_an_operator_that_cannot_be_raised_is_named():
    built = graphs.parse("s = Scan <body = g () => () {}> (x)  scores = Flatten (s)", opset=8)
    assert_refused(built, "has opset 8, which cannot be raised to 13: .*Convert it with the tool")


# --- functions and domains ------------------------------------------------------------------------------------------------
def with_function() -> onnx.ModelProto:
    """A classifier that ends in a function of its own: flatten, gemm, softmax."""
    built = graphs.parse(f"{CONV} p = GlobalAveragePool (r)  scores = local.Classify (p, fc)", w=W, fc=(5, 4))
    built.opset_import.append(helper.make_opsetid("local", 1))
    body = [
        helper.make_node("Flatten", ["a"], ["flat"]),
        helper.make_node("MatMul", ["flat", "b"], ["z"]),
        helper.make_node("Softmax", ["z"], ["y"], axis=1),
    ]
    built.functions.append(helper.make_function("local", "Classify", ["a", "b"], ["y"], body, [helper.make_opsetid("", 17)]))
    return built


def test_local_functions_are_inlined():
    found = Normal(with_function())
    inline_functions(found)
    assert operators(found.model) == ["Conv", "Relu", "GlobalAveragePool", "Flatten", "MatMul", "Softmax"]
    assert not found.model.functions


def test_a_model_that_ends_inside_a_function_is_cut(cut):
    bundle = cut(with_function())
    assert bundle.manifest.activation == "Softmax"
    x = np.random.default_rng(0).standard_normal((2, 3, 16, 16), np.float32)
    (expected,) = graphs.run(with_function(), {"x": x})
    z = split(bundle, x)
    np.testing.assert_allclose(np.exp(z) / np.exp(z).sum(1, keepdims=True), expected, rtol=1e-4)


def test_a_custom_operator_is_refused():
    built = graphs.parse(f"{CONV} [nms] d = my.company.Detect (r)  scores = Flatten (d)", w=W)
    built.opset_import.append(helper.make_opsetid("my.company", 1))
    assert_refused(built, "Detect 'nms' is a custom operator of domain 'my.company'.*Export the model with standard operators")


def test_what_onnx_runtime_brings_is_no_custom_operator(cut):
    built = graphs.parse(f"{CONV} g = com.microsoft.Gelu (r)  p = GlobalAveragePool (g)  scores = Flatten (p)", w=W)
    built.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    unknown_to_onnx = helper.make_tensor_value_info("g", TensorProto.FLOAT, ["N", 5, 16, 16])
    built.graph.value_info.append(unknown_to_onnx)
    assert_reproduces(cut(built, layer="r"), built)


def test_an_opset_of_operators_that_are_not_used_does_no_harm(cut):
    built = graphs.classifier()
    for domain in ("com.microsoft", "ai.onnx.ml", "ai.onnx.training", "com.microsoft.nchwc", "org.pytorch.aten"):
        built.opset_import.append(helper.make_opsetid(domain, 1))
    assert_reproduces(cut(built), built)


# --- shape arithmetic -----------------------------------------------------------------------------------------------------
FLATTENING = """
    s = Shape (r)  n = Gather <axis = 0> (s, zero)  u = Unsqueeze (n, axes)  shape = Concat <axis = 0> (u, rest)
    p = Reshape (r, shape)  scores = MatMul (p, fc)
    """
FLATTEN_WEIGHTS = {"w": W, "zero": np.array(0), "axes": np.array([0]), "rest": np.array([-1]), "fc": (5 * 256, 4)}


@pytest.mark.parametrize("image", ["N,3,16,16", "1,3,16,16"])
def test_flattening_by_shape_arithmetic_is_folded(image, cut):
    built = graphs.parse(CONV + FLATTENING, image=image, **FLATTEN_WEIGHTS)
    bundle = cut(built)
    assert bundle.manifest.layer.name == "r"
    assert_reproduces(bundle, built)
    assert operators(normal(built).model) == ["Conv", "Relu", "Reshape", "MatMul"]


def test_shape_arithmetic_that_starts_from_the_image_goes_round_no_layer(cut):
    built = graphs.parse(CONV + FLATTENING.replace("Shape (r)", "Shape (x)"), **FLATTEN_WEIGHTS)
    assert_reproduces(cut(built), built)


def test_shape_arithmetic_of_an_open_size_is_folded(cut):
    built = graphs.parse(CONV + FLATTENING, image="N,3,H,W", **FLATTEN_WEIGHTS)
    assert_reproduces(cut(built, size=(16, 16)), built)


def test_size_is_folded():
    body = f"{CONV} k = Size (r)  f = Cast <to = 1> (k)  m = ReduceSum <keepdims = 0> (r, axes)  scores = Div (m, f)"
    built = graphs.parse(body, w=W, axes=np.array([2, 3]))
    assert operators(normal(built).model) == ["Conv", "Relu", "ReduceSum", "Div"]


def test_dequantised_weights_stay_quantised():
    built = graphs.parse(
        "k = DequantizeLinear (v, scale, zero)  c = Conv (x, k)  p = GlobalAveragePool (c)  scores = Flatten (p)",
        opset=21, v=np.ones((5, 3, 2, 2), np.int8), scale=np.float32(0.05), zero=np.int8(0),
    )  # fmt: skip
    assert "DequantizeLinear" in operators(normal(built).model)


def test_random_numbers_are_not_frozen():
    body = f"n = RandomNormal <shape = [1, 5, 1, 1]> ()  {CONV} t = Add (r, n)  p = GlobalAveragePool (t)  scores = Flatten (p)"
    assert "RandomNormal" in operators(normal(graphs.parse(body, w=W)).model)


def test_a_condition_on_the_image_stays():
    built = graphs.parse(
        f"""
        {CONV} p = GlobalAveragePool (r)  f = Flatten (p)  m = ReduceMax <keepdims = 0> (c)  yes = Greater (m, zero)
        scores = If (yes) <
            then_branch = a () => (float[N,5] t) {{ t = Mul (f, two) }},
            else_branch = b () => (float[N,5] e) {{ e = Neg (f) }}>
        """,
        w=W, zero=np.float32(0), two=np.float32(2),
    )  # fmt: skip
    assert operators(normal(built).model)[-1] == "If"


# --- trailing activation --------------------------------------------------------------------------------------------------
MEAN = f"{CONV} p = GlobalAveragePool (r)  f = Flatten (p)"
INVERSE = {
    "Softmax": lambda z: np.exp(z) / np.exp(z).sum(1, keepdims=True),
    "LogSoftmax": lambda z: z - np.log(np.exp(z).sum(1, keepdims=True)),
    "Sigmoid": lambda z: 1 / (1 + np.exp(-z)),
}


@pytest.mark.parametrize("operator", INVERSE)
@pytest.mark.parametrize("opset", [9, 11, 12, 13, 17])
def test_a_closing_activation_is_cut_off_and_recorded(operator, opset, cut):
    built = graphs.classifier(end=operator, opset=opset)
    bundle = cut(built)
    assert bundle.manifest.activation == operator
    assert bundle.manifest.kind == ("sigmoid" if operator == "Sigmoid" else "logits")
    x = np.random.default_rng(0).standard_normal((2, 3, 32, 32), np.float32)
    (expected,) = graphs.run(built, {"x": x})
    np.testing.assert_allclose(INVERSE[operator](split(bundle, x).astype(float)), expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    "end",
    [
        "s = Softmax <axis = 1> (p)  scores = Flatten (s)",
        "s = Softmax <axis = -3> (p)  scores = Reshape (s, flat)",
        "s = Softmax (f)  scores = Reshape (s, flat)",
        "s = Softmax (f)  i = Identity (s)  u = Unsqueeze (i, last)  scores = Squeeze (u, last)",
        "s = Softmax (f)  scores = Dropout (s)",
        "scores = Softmax <axis = 1> (p)",
    ],
)
def test_an_activation_before_a_change_of_shape_is_cut_off(end, cut):
    built = graphs.parse(f"{MEAN} {end}", w=W, flat=np.array([1, -1]), last=np.array([2]), image="1,3,16,16")
    bundle = cut(built)
    assert bundle.manifest.activation == "Softmax"
    assert_reproduces(bundle, built, "f")


@pytest.mark.parametrize("opset", [9, 11])
def test_a_softmax_over_all_that_is_not_the_batch_is_cut_off(opset, cut):
    # before opset 13, axis 1 means "this axis and all after it"
    built = graphs.parse(f"{MEAN} s = Softmax (p)  scores = Flatten (s)", w=W, opset=opset)
    bundle = cut(built)
    assert bundle.manifest.activation == "Softmax"
    assert_reproduces(bundle, built, "f")


@pytest.mark.parametrize(
    ("end", "activation"),
    [
        ("s = Softmax <axis = 1> (r)  scores = Flatten (s)", "Softmax over classes at every cell"),
        ("s = Softmax <axis = 2> (r)  p = GlobalAveragePool (s)  scores = Flatten (p)", "Softmax over rows"),
        ("p = GlobalAveragePool (r)  s = Softmax <axis = -1> (p)  scores = Flatten (s)", "Softmax over one value"),
        ("s = Sigmoid (r)  p = GlobalAveragePool (s)  scores = Flatten (p)", "a gate before the pooling"),
        ("p = GlobalAveragePool (r)  f = Flatten (p)  scores = Softmax <axis = 0> (f)", "Softmax over the batch"),
    ],
)
def test_an_activation_that_does_not_run_over_the_classes_stays(end, activation):
    found = normal(graphs.parse(f"{CONV} {end}", w=W))
    assert found.activation is None, activation
    assert {"Softmax", "Sigmoid"} & set(operators(found.model))


def test_a_softmax_inside_is_not_cut_off(cut):
    built = graphs.parse(f"{MEAN} s = Softmax (f)  scores = MatMul (s, fc)", w=W, fc=(5, 4))
    bundle = cut(built)
    assert bundle.manifest.activation is None
    assert_reproduces(bundle, built)


# --- batch ----------------------------------------------------------------------------------------------------------------
BAKED = {
    "flatten": ("p = Reshape (r, shape)  scores = MatMul (p, fc)", {"shape": [1, -1], "fc": (1280, 4)}),
    "flatten, all sizes": ("p = Reshape (r, shape)  scores = MatMul (p, fc)", {"shape": [1, 1280], "fc": (1280, 4)}),
    "allowzero": ("p = Reshape <allowzero = 1> (r, shape)  scores = MatMul (p, fc)", {"shape": [1, -1], "fc": (1280, 4)}),
    "pooled": (
        "p = GlobalAveragePool (r)  f = Reshape (p, shape)  scores = MatMul (f, fc)",
        {"shape": [1, 5], "fc": (5, 4)},
    ),
    "channel shuffle": (
        """
        g = Reshape (r, split)  t = Transpose <perm = [0, 2, 1, 3, 4]> (g)  h = Reshape (t, join)
        p = MaxPool <kernel_shape = [9, 9]> (h)  f = Flatten (p)  scores = MatMul (f, fc)
        """,
        {"split": [1, 5, 1, 16, 16], "join": [1, 5, 16, 16], "fc": (320, 4)},
    ),
    "shared": (
        """
        a = GlobalAveragePool (r)  b = GlobalMaxPool (r)  fa = Reshape (a, shape)  fb = Reshape (b, shape)
        s = Add (fa, fb)  scores = MatMul (s, fc)
        """,
        {"shape": [1, -1], "fc": (5, 4)},
    ),
    "resize by sizes": (
        """
        u = Resize <mode = "nearest"> (r, , , sizes)  p = GlobalAveragePool (u)  f = Flatten (p)
        scores = MatMul (f, fc)
        """,
        {"sizes": [1, 5, 32, 32], "fc": (5, 4)},
    ),
    "two resizes": (
        """
        u = Resize <mode = "nearest"> (r, , , sizes)  v = Resize <mode = "linear"> (u, , , smaller)
        p = GlobalAveragePool (v)  f = Flatten (p)  scores = MatMul (f, fc)
        """,
        {"sizes": [1, 5, 32, 32], "smaller": [1, 5, 24, 24], "fc": (5, 4)},
    ),
    "expand": (
        """
        p = GlobalAveragePool (r)  e = Expand (p, shape)  m = Mul (e, r)  q = GlobalMaxPool (m)  f = Flatten (q)
        scores = MatMul (f, fc)
        """,
        {"shape": [1, 5, 16, 16], "fc": (5, 4)},
    ),
}


@pytest.mark.parametrize("name", BAKED)
def test_a_batch_of_one_baked_in_becomes_any_batch(name, cut):
    end, given = BAKED[name]
    weights = {key: value if isinstance(value, tuple) else np.array(value) for key, value in given.items()}
    built = graphs.parse(f"{CONV} {end}", image="1,3,16,16", w=W, **weights)
    assert_reproduces(cut(built, layer="r"), built)


@pytest.mark.parametrize("batch", ["2", "N", "1"])
@pytest.mark.parametrize("declared", ["scores", "float[2,5] scores", "float[1,5] scores", "float[] scores"])
def test_any_first_dimension_becomes_n(batch, declared):
    body = f"{CONV} p = GlobalAveragePool (r)  scores = Flatten (p)"
    found = normal(graphs.parse(body, image=f"{batch},3,16,16", outputs=(declared,), w=W))
    assert shape_of(found, found.image)[0] == "N"
    assert shape_of(found, "scores") == ("N", 5)


@pytest.mark.parametrize(
    "end",
    [
        "p = GlobalAveragePool (r)  scores = Flatten (p)",
        "p = GlobalAveragePool (r)  scores = Reshape (p, two)",
        "s = Shape (r)  n = Slice (s, zero, one)  to = Concat <axis = 0> (n, rest)  f = Reshape (r, to)  scores = MatMul (f, fc)",
    ],
)
def test_a_model_for_two_images_at_once_is_cut(end, cut):
    numbers = {"two": [2, -1], "zero": [0], "one": [1], "rest": [-1]}
    weights = {name: np.array(value) for name, value in numbers.items()}
    built = graphs.parse(f"{CONV} {end}", image="2,3,16,16", w=W, fc=(1280, 4), **weights)
    x = np.random.default_rng(0).standard_normal((2, 3, 16, 16), np.float32)
    np.testing.assert_allclose(split(cut(built), x), graphs.run(built, {"x": x})[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("end", "weights"),
    [
        ("v = Slice (r, begin, end)", {"begin": np.array([0, 1, 0, 0]), "end": np.array([1, 5, 16, 16])}),
        ("v = Concat <axis = 1> (r, grid)", {"grid": np.ones((1, 2, 16, 16), np.float32)}),
    ],
    ids=["slice", "concat"],
)
def test_a_batch_of_one_that_cannot_be_freed_is_refused(end, weights, cut, tmp_path):
    built = graphs.parse(f"{CONV} {end} p = GlobalAveragePool (v)  scores = Flatten (p)", image="1,3,16,16", w=W, **weights)
    with pytest.raises(ExportError, match="batch"):
        cut(built, layer="r")
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_a_resize_to_the_size_of_another_map_takes_any_batch(cut):
    # torch's interpolate(x, size=other.shape[2:]) in an older export
    built = graphs.parse(
        f"""
        {CONV} d = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (r)
        s = Shape (d)  nc = Slice (s, zero, two)  t = Shape (r)  hw = Slice (t, two, four)  sizes = Concat <axis = 0> (nc, hw)
        u = Resize <mode = "nearest"> (d, , , sizes)  m = Add (u, r)  q = Relu (m)
        p = GlobalAveragePool (q)  f = Flatten (p)  scores = MatMul (f, fc)
        """,
        w=W, zero=np.array([0]), two=np.array([2]), four=np.array([4]), fc=(5, 4),
    )  # fmt: skip
    assert_reproduces(cut(built), built)


@pytest.mark.parametrize("end", ["scores = Identity (p)", "scores = Conv (p, v)"])
def test_scores_of_one_cell_are_flattened(end, cut):
    built = graphs.parse(f"{CONV} p = GlobalAveragePool (r)  {end}", w=W, v=(5, 5, 1, 1))
    bundle = cut(built)
    assert bundle.manifest.output.shape == (-1, 5)
    assert_reproduces(bundle, built)


# --- strip ----------------------------------------------------------------------------------------------------------------
def test_dead_nodes_and_weights_are_left_out():
    body = f"{CONV} dead = Conv (r, unused)  p = GlobalAveragePool (r)  scores = Flatten (p)"
    found = normal(graphs.parse(body, w=W, unused=(2, 5, 1, 1), never=(3, 3)))
    assert operators(found.model) == ["Conv", "Relu", "GlobalAveragePool", "Flatten"]
    assert [tensor.name for tensor in found.model.graph.initializer] == ["w"]


def test_comments_are_left_out():
    built = graphs.classifier()
    built.graph.doc_string = built.graph.node[0].doc_string = "File /home/somebody/secret.py, line 3"
    assert b"somebody" not in normal(built).model.SerializeToString()
