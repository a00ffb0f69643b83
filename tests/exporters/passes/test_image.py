"""exporters.passes.image: the one image input becomes (N, C, H, W) in float32."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import TensorProto, helper

from tests import graphs
from tests.exporters.helpers import (
    CONV,
    W,
    assert_refused,
    image_of,
    logits,
    normal,
    operators,
    shape_of,
    split,
)


def test_image_and_output_are_found():
    found = normal(graphs.classifier())
    assert (found.image, found.logits, found.raw_logits) == ("x", "scores", "scores")
    assert found.size == (32, 32)
    assert shape_of(found, "scores") == ("N", 5)


def test_an_open_size_is_taken_from_the_user():
    found = normal(graphs.parse(f"{CONV} p = GlobalAveragePool (r) scores = Flatten (p)", image="N,3,H,W", w=W), size=(24, 32))
    assert found.size == (24, 32)
    assert shape_of(found, "r") == ("N", 5, 24, 32)


def test_a_size_that_contradicts_the_model_is_refused():
    assert_refused(graphs.classifier(), r"has height 32, not 64\. Leave out --size", size=(64, 64))
    assert_refused(graphs.classifier(), r"has width 32, not 64\. Leave out --size", size=(32, 64))


def test_no_input_is_refused():
    built = graphs.classifier()
    del built.graph.input[:]
    assert_refused(built, "it has 0: none")


# --- layouts and element types ----------------------------------------------------------------------------------------------
RANGES = {  # what a source of each element type is asked about
    "float": np.array([-2.5, 2.5]), "float16": np.array([-2.5, 2.5]), "double": np.array([-2.5, 2.5]),
    "uint8": np.array([0, 255]), "int8": np.array([-128, 127]), "uint16": np.array([0, 300]), "int16": np.array([-300, 300]),
    "int32": np.array([-300, 300]),
}  # fmt: skip
LAYOUTS = {"NCHW": "N,3,16,16", "NHWC": "N,16,16,3"}
TO_FIRST = "<perm = [0, 3, 1, 2]>"
NUMPY = {"float": "float32", "double": "float64"}


def typed(element: str, image: str, *, cast: bool = True) -> onnx.ModelProto:
    """Return a classifier on images of an element type; without a Cast, whole numbers are dequantised."""
    last = image.endswith((",3", ",1"))
    channels = int(image.split(",")[-1 if last else 1])
    first = "y = Cast <to = 1> (x)" if cast else "y = DequantizeLinear (x, scale, zero)"
    turned = f"{first}  t = Transpose {TO_FIRST} (y)" if last else f"{first}  t = Identity (y)"
    weights = {"w": (5, channels, 3, 3), "fc": (5, 4)}
    if not cast:
        weights |= {"scale": np.float32(0.5), "zero": np.array(3, element)}
    body = f"{turned} {CONV.replace('(x, w)', '(t, w)')} p = GlobalMaxPool (r)  f = Flatten (p)  scores = MatMul (f, fc)"
    return graphs.parse(body, image=image, element=element, **weights)


def drawn(element: str, image: str, images: int = 1) -> np.ndarray:
    """Return random images of an element type, in the source's layout."""
    shape = (images, *map(int, image.split(",")[1:]))
    rng = np.random.default_rng(0)
    low, high = RANGES[element]
    dtype = NUMPY.get(element, element)
    return rng.uniform(low, high, shape).astype(dtype) if "o" in element else rng.integers(low, high + 1, shape).astype(dtype)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("element", RANGES)
def test_any_element_type_and_layout_that_becomes_float32_is_taken_exactly(element, layout):
    built = typed(element, LAYOUTS[layout])
    found, x = normal(built), drawn(element, LAYOUTS[layout])
    assert (found.border.channels_last, found.border.dtype) == (layout == "NHWC", x.dtype)
    assert (found.size, shape_of(found, found.image)) == ((16, 16), ("N", 3, 16, 16))
    assert found.model.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT
    assert not {"Transpose", "Round", "Clip"} & set(operators(found.model))
    expected = graphs.run(built, {"x": x})[0]
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(logits(found, x), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("element", ["uint8", "int8"])
@pytest.mark.parametrize("cast", [True, False], ids=["Cast", "DequantizeLinear"])
def test_a_network_on_whole_pixels_is_cut_and_reproduced(element, layout, cast, cut):
    built = typed(element, LAYOUTS[layout], cast=cast)
    bundle, x = cut(built, layer="r", overrides={"resize": [16, 16]}), drawn(element, LAYOUTS[layout], 3)
    border = normal(built).border
    expected = np.concatenate([graphs.run(built, {"x": one[None]})[0] for one in x])
    np.testing.assert_allclose(split(bundle, image_of(border, x)), expected, rtol=1e-4, atol=1e-3)


def test_float16_arithmetic_on_the_image_stays_and_is_reproduced(cut):
    body = f"{CONV} p = GlobalAveragePool (r)  f = Flatten (p)  scores = Cast <to = 1> (f)"
    built = graphs.parse(body, element="float16", w=np.random.default_rng(0).normal(0, 0.2, W).astype(np.float16))
    found, x = normal(built), drawn("float16", "1,3,16,16")
    assert operators(found.model)[0] == "Cast"
    np.testing.assert_allclose(logits(found, x), graphs.run(built, {"x": x})[0], rtol=2e-3, atol=2e-3)
    assert cut(built, layer="r").manifest.split.tolerance == 2e-3


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("element", "lowest", "highest"), [("uint8", 0, 255), ("int8", -128, 127)])
def test_whole_numbers_that_no_cast_makes_float_are_rounded_and_clipped(element, lowest, highest, layout):
    built = typed(element, LAYOUTS[layout], cast=False)
    found, x = normal(built), drawn(element, LAYOUTS[layout])
    assert {"Round", "Clip"} <= set(operators(found.model))
    expected = graphs.run(built, {"x": x})[0]
    exact = image_of(found.border, x)
    np.testing.assert_allclose(logits(found, x), expected, rtol=1e-5, atol=1e-4)
    beyond = np.where(exact == highest, highest + 40, np.where(exact == lowest, lowest - 40, exact + np.float32(0.4)))
    assert len(set((beyond - exact).round(2).ravel())) == 3
    (scores,) = graphs.run(found.model, {found.image: beyond.astype(np.float32)}, found.logits)
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-4)


def test_32_bit_numbers_are_rounded_and_not_clipped():
    body = "m = Mul (x, two)  t = Cast <to = 1> (m)"
    body += f" {CONV.replace('(x, w)', '(t, w)')} p = GlobalMaxPool (r)  scores = Flatten (p)"
    built = graphs.parse(body, element="int32", w=W, two=np.int32(2))
    found, x = normal(built), drawn("int32", "1,3,16,16") * 1000
    assert "Round" in operators(found.model)
    assert "Clip" not in operators(found.model)
    np.testing.assert_allclose(logits(found, x), graphs.run(built, {"x": x})[0], rtol=1e-5)


@pytest.mark.parametrize(
    "moved",
    [
        "m = Identity (x)  t = Cast <to = 1> (m)",
        "a, b, k = Split <axis = 1> (x)  m = Concat <axis = 1> (k, b, a)  t = Cast <to = 1> (m)",
        "m = Gather <axis = 1> (x, order)  t = Cast <to = 1> (m)",
        "u = Unsqueeze (x, zero)  m = Squeeze (u, zero)  t = Cast <to = 1> (m)",
        "v = Cast <to = 1> (x)  m = Cast <to = 1> (x)  t = Add (v, m)",
    ],
)
def test_whole_numbers_that_are_only_moved_before_the_cast_are_not_rounded(moved):
    body = f"{moved} {CONV.replace('(x, w)', '(t, w)')} p = GlobalMaxPool (r)  scores = Flatten (p)"
    built = graphs.parse(body, element="uint8", w=W, order=np.array([2, 1, 0]), zero=np.array([0]))
    found, x = normal(built), drawn("uint8", "1,3,16,16")
    assert not {"Round", "Clip"} & set(operators(found.model))
    np.testing.assert_allclose(logits(found, x), graphs.run(built, {"x": x})[0], rtol=1e-5)


@pytest.mark.parametrize(
    "first",
    [
        "v = Cast <to = 1> (x)  m = Mul (x, two)  k = Cast <to = 1> (m)  t = Add (v, k)",
        "a, b = Split <axis = 2> (x)  v = Cast <to = 1> (a)  m = Mul (b, two)  k = Cast <to = 1> (m)  t = Add (v, k)",
        "v = Cast <to = 11> (x)  t = Cast <to = 1> (v)",
    ],
    ids=["beside a cast", "on a part", "in float64"],
)
def test_one_reader_that_computes_on_whole_numbers_lets_them_be_rounded(first):
    body = f"{first} {CONV.replace('(x, w)', '(t, w)')} p = GlobalMaxPool (r)  scores = Flatten (p)"
    built = graphs.parse(body, element="int32", w=W, two=np.int32(2))
    found, x = normal(built), drawn("int32", "1,3,16,16")
    assert operators(found.model).count("Round") == 1
    np.testing.assert_allclose(logits(found, x), graphs.run(built, {"x": x})[0], rtol=1e-5)


@pytest.mark.parametrize(("image", "batch"), [("N,3,16,16", 1), ("1,3,16,16", 1), ("4,3,16,16", 4), ("2,16,16,3", 2)])
def test_how_many_images_the_source_takes_at_once_is_kept(image, batch):
    assert normal(typed("float", image)).batch == batch


@pytest.mark.parametrize("image", ["N,1,16,16", "N,16,16,1"])
def test_one_channel_is_taken_in_both_layouts(image):
    built = typed("float", image)
    found, x = normal(built), drawn("float", image)
    assert shape_of(found, found.image) == ("N", 1, 16, 16)
    np.testing.assert_allclose(logits(found, x), graphs.run(built, {"x": x})[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("image", "last", "size"),
    [
        ("N,H,W,3", True, (12, 16)),
        ("N,3,H,W", False, (12, 16)),
        ("N,12,W,3", True, (12, 16)),
        ("N,H,16,3", True, (12, 16)),
        ("N,?,?,3", True, (12, 16)),
        ("?,?,?,3", True, (12, 16)),
    ],
)
def test_open_sizes_are_taken_from_the_user_in_both_layouts(image, last, size):
    turned = f"t = Transpose {TO_FIRST} (x)" if last else "t = Identity (x)"
    body = f"{turned} {CONV.replace('(x, w)', '(t, w)')} p = GlobalMaxPool (r)  scores = Flatten (p)"
    built = graphs.parse(body, image=image, w=W)
    found = normal(built, size=size)
    assert found.border.channels_last == last
    assert shape_of(found, "r") == ("N", 5, *size)
    x = np.random.default_rng(0).standard_normal((1, *size, 3) if last else (1, 3, *size), np.float32)
    np.testing.assert_allclose(logits(found, x), graphs.run(built, {"x": x})[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("image", "last", "size"),
    [("N,3,16,3", False, (16, 3)), ("N,1,16,3", False, (16, 3)), ("N,3,3,1", False, (3, 1)), ("N,3,3,3", False, (3, 3)),
     ("N,H,3,3", True, (8, 3)), ("N,16,3,1", True, (16, 3))],
)  # fmt: skip
def test_the_channels_are_second_where_both_places_could_be(image, last, size):
    found = normal(graphs.parse("p = GlobalMaxPool (x)  scores = Flatten (p)", image=image), size=size)
    assert (found.border.channels_last, found.size) == (last, size)


@pytest.mark.parametrize("image", ["N,3,H,W", "N,H,W,3"])
@pytest.mark.parametrize(("fixed", "message"), [("H", "height"), ("W", "width")])
def test_an_open_size_is_asked_for(image, fixed, message):
    other = {"H": "W", "W": "H"}[fixed]
    body = "p = GlobalMaxPool (x)  scores = Flatten (p)"
    built = graphs.parse(body, image=image.replace(other, "16"))
    assert_refused(built, rf"The {message} of the input 'x' is open \({fixed}\)\. Set it: --size N or --size HxW")


def test_a_size_that_contradicts_a_model_in_channels_last_is_refused():
    built = typed("float", "N,16,20,3")
    assert_refused(built, "has height 16, not 20. Leave out --size", size=(20, 20))
    assert_refused(built, "has width 20, not 16. Leave out --size", size=(16, 16))


# --- idle inputs ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL, TensorProto.UINT8])
@pytest.mark.parametrize("first", [False, True])
def test_an_input_that_the_scores_do_not_depend_on_does_no_harm(kind, first, cut):
    built = graphs.classifier()
    built.graph.node.append(helper.make_node("Identity", ["idle"], ["beside"]))
    built.graph.output.append(helper.make_tensor_value_info("beside", kind, [2, 3]))
    built.graph.input.insert(0 if first else 1, helper.make_tensor_value_info("idle", kind, [2, 3]))
    bundle, x = cut(built, output="scores"), np.random.default_rng(0).standard_normal((1, 3, 32, 32), np.float32)
    idle = np.zeros((2, 3), helper.tensor_dtype_to_np_dtype(kind))
    (expected,) = graphs.run(built, {"x": x, "idle": idle}, "scores")
    np.testing.assert_allclose(split(bundle, x), expected, rtol=1e-4, atol=1e-4)


# --- refusals ---------------------------------------------------------------------------------------------------------------
NO_IMAGE = {  # declared, in the order of their messages
    "3 dimensions": ("float[N,3,16]", r"it is \(N, 3, 16\) float, 3 dimensions\. Text, tables, sound and video"),
    "5 dimensions": ("float[N,3,4,16,16]", r"it is \(N, 3, 4, 16, 16\) float, 5 dimensions\. Text"),
    "a table": ("float[N,20]", r"must be an image \(N, C, H, W\) or \(N, H, W, C\); it is \(N, 20\) float, 2 dimensions"),
    "tokens": ("int64[N,128]", r"it is \(N, 128\) int64, 2 dimensions"),
    "int64": ("int64[N,3,16,16]", "is INT64; an image is float32, float16, float64, or whole numbers of at most 32 bits"),
    "uint32": ("uint32[N,3,16,16]", "is UINT32; an image is float32"),
    "bool": ("bool[N,3,16,16]", "is BOOL; an image is float32"),
    "text": ("string[N,3,16,16]", "is STRING; an image is float32"),
    "bfloat16": ("bfloat16[N,3,16,16]", "'x' is bfloat16, in which ONNX Runtime computes no convolution on a CPU"),
    "4 channels": ("float[N,4,16,16]", r"must have 1 or 3 channels, at the second place or the last; .* \(N, 4, 16, 16\) float\.$"),
    "16 channels last": ("uint8[N,16,16,16]", r"1 or 3 channels, at the second place or the last; it is \(N, 16, 16, 16\) uint8\.$"),
    "open channels": ("float[N,C,16,16]", r"it is \(N, C, 16, 16\) float\. Fix the open dimensions in the file first\."),
    "all open": ("float[N,H,W,C]", r"it is \(N, H, W, C\) float\. Fix the open dimensions"),
    "nameless": ("float[?,?,?,?]", r"it is \(\?, \?, \?, \?\) float\. Fix the open dimensions"),
    "a sequence": ("seq(float[N,3,16,16])", "The input 'x' is sequence_type, not an image"),
}  # fmt: skip


@pytest.mark.parametrize(("declared", "message"), NO_IMAGE.values(), ids=NO_IMAGE)
def test_an_input_that_is_no_image_is_refused(declared, message):
    graph = onnx.parser.parse_graph(f"tiny ({declared} x) => (float[N,5] scores) {{ scores = com.microsoft.Made (x) }}")
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    assert_refused(helper.make_model(graph, opset_imports=opsets, ir_version=8), message)


def test_several_inputs_are_refused_with_their_shapes():
    built = graphs.classifier()
    built.graph.input.append(helper.make_tensor_value_info("threshold", TensorProto.FLOAT16, []))
    built.graph.input.append(helper.make_tensor_value_info("idle", TensorProto.FLOAT, [4]))
    built.graph.node[-1].output[0] = "z"
    built.graph.node.append(helper.make_node("CastLike", ["threshold", "z"], ["cast"]))
    built.graph.node.append(helper.make_node("Add", ["z", "cast"], ["scores"]))
    assert_refused(
        built, r"must have one input, the image; it has 2: x \(N, 3, 32, 32\) float, threshold \(\) float16\. Give every other"
    )


def test_a_model_whose_scores_do_not_depend_on_its_image_is_refused():
    assert_refused(graphs.parse("scores = Identity (w)", w=(1, 5)), "must have one input, the image; it has 0: none")
