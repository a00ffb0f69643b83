"""Small valid models of many kinds, which the mutations damage."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from tests import graphs

IMAGE = "N,3,16,16"
CONV = "c = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (x, w)  r = Relu (c)"  # (N, 5, 8, 8)
MEAN = "p = GlobalAveragePool (r)  f = Flatten (p)"
W, FC = (5, 3, 3, 3), (5, 4)

MODELS: dict[str, Callable[[], ModelProto]] = {}


def kind(build: Callable[[], ModelProto]) -> Callable[[], ModelProto]:
    """Enter a builder into the table under its name."""
    MODELS[build.__name__] = build
    return build


@cache
def serialised(name: str) -> bytes:
    """Return a model of the table as the bytes of its file."""
    return MODELS[name]().SerializeToString(deterministic=True)


@kind
def plain() -> ModelProto:
    return graphs.classifier(image=("N", 3, 16, 16))


@kind
def softmax() -> ModelProto:
    return graphs.classifier(image=("N", 3, 16, 16), end="Softmax", opset=13)


@kind
def sigmoid() -> ModelProto:
    return graphs.classifier(image=(1, 1, 16, 16), end="Sigmoid", opset=18)


@kind
def newest() -> ModelProto:
    return graphs.classifier(image=("N", 3, 16, 16), opset=21)


@kind
def oldest() -> ModelProto:
    """Opset 9, IR version 3: every initializer is an input too."""
    built = graphs.classifier(image=(1, 3, 16, 16), end="Softmax", opset=9)
    built.ir_version = 3
    built.graph.input.extend(helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in built.graph.initializer)
    return built


@kind
def old_attributes() -> ModelProto:
    """Opset 8: Upsample, Clip, Pad, Split, Squeeze and the like by attributes, which the conversion to opset 13 rewrites."""
    body = """
        q = Pad <pads = [0, 0, 1, 1, 0, 0, 1, 1]> (x)  c = Conv (q, w)  b = BatchNormalization <spatial = 1> (c, one, one, one, one)
        r = Clip <min = 0.0, max = 6.0> (b)  u = Upsample <mode = "nearest", scales = [1.0, 1.0, 2.0, 2.0]> (r)
        a, d = Split <axis = 1, split = [2, 2]> (u)  s = Sum (a, d)  t = Dropout <ratio = 0.5> (s)  l = Slice <axes = [2], starts = [0], ends = [8]> (t)
        p = ReduceSum <axes = [2, 3], keepdims = 1> (l)  f = Squeeze <axes = [2, 3]> (p)  e = Unsqueeze <axes = [0]> (f)
        g = Squeeze <axes = [0]> (e)  h = Softmax (g)  m = Gemm (h, fc, bias)  scores = LogSoftmax (m)
        """
    return graphs.parse(
        body, image="1,3,16,16", opset=8, w=(4, 3, 3, 3), fc=(2, 4), bias=np.zeros(4, np.float32), one=np.ones(4, np.float32)
    )


@kind
def old_inputs() -> ModelProto:
    """Opset 10: Upsample, Resize, Slice and TopK with inputs."""
    body = """
        c = Conv (x, w)  r = Relu (c)  u = Resize <mode = "nearest"> (r, scales)  l = Slice (u, starts, ends, axes)
        p = MaxPool <kernel_shape = [2, 2], strides = [2, 2], ceil_mode = 1> (l)  k = AveragePool <kernel_shape = [2, 2]> (p)
        a = ReduceMax <axes = [2, 3], keepdims = 0> (k)  v, i = TopK <axis = 1> (a, three)  o = Cast <to = 1> (i)  s = Add (v, o)
        m = MatMul (s, fc)  h = Hardmax (m)  t = ArgMax <axis = 1> (h)  y = Cast <to = 1> (t)  z = Add (m, y)  scores = Softmax (z)
        """
    return graphs.parse(
        body, image="1,3,16,16", opset=10, w=(4, 3, 3, 3), fc=(3, 4), scales=np.array([1, 1, 2, 2], np.float32),
        starts=np.array([0]), ends=np.array([16]), axes=np.array([2]), three=np.array([3]),
    )  # fmt: skip


@kind
def residual() -> ModelProto:
    body = f"{CONV} d = Conv <pads = [1, 1, 1, 1]> (r, v)  s = Add (r, d)  t = Relu (s)"
    body += " p = GlobalAveragePool (t)  f = Flatten (p)  scores = Gemm (f, fc)"
    return graphs.parse(body, image=IMAGE, w=W, v=(5, 5, 3, 3), fc=FC)


@kind
def normalised() -> ModelProto:
    """BatchNormalization, pooling, a concatenation of two ways, Clip, Pad."""
    body = """
        q = Pad (x, pads)  c = Conv (q, w)  b = BatchNormalization (c, one, zero, zero, one)  r = Clip (b, low, high)
        m = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (r)
        a = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (r)
        k = Concat <axis = 1> (m, a)  h = HardSwish (k)  g = ReduceMean <axes = [2, 3], keepdims = 0> (h)
        scores = MatMul (g, fc)
        """
    return graphs.parse(
        body, image=IMAGE, w=W, fc=(10, 4), pads=np.array([0, 0, 1, 1, 0, 0, 1, 1]),
        one=np.ones(5, np.float32), zero=np.zeros(5, np.float32), low=np.float32(0), high=np.float32(6),
    )  # fmt: skip


@kind
def quantised() -> ModelProto:
    body = """
        k = DequantizeLinear (v, step, zero)  c = Conv <pads = [1, 1, 1, 1]> (x, k)
        qc = QuantizeLinear (c, step, zero)  d = DequantizeLinear (qc, step, zero)  r = Relu (d)
        p = GlobalAveragePool (r)  f = Flatten (p)  z = Gemm (f, fc)
        qz = QuantizeLinear (z, step, zero)  scores = DequantizeLinear (qz, step, zero)
        """
    kernel = np.random.default_rng(0).integers(-9, 9, W, np.int8)
    return graphs.parse(body, image=IMAGE, v=kernel, fc=FC, step=np.float32(0.05), zero=np.int8(0))


@kind
def half() -> ModelProto:
    """Float16 inside, float32 at both ends."""
    body = f"h = Cast <to = 10> (x)  {CONV.replace('(x,', '(h,')} {MEAN} z = MatMul (f, fc)  scores = Cast <to = 1> (z)"
    weights = {"w": np.full(W, 0.1, np.float16), "fc": np.ones(FC, np.float16)}
    return graphs.parse(body, image=IMAGE, **weights)


@kind
def half_input() -> ModelProto:
    built = graphs.parse(f"{CONV} {MEAN} scores = MatMul (f, fc)", w=np.full(W, 0.1, np.float16), fc=np.ones(FC, np.float16))
    for value in (*built.graph.input, *built.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    return built


@kind
def channels_last() -> ModelProto:
    """NHWC within: transposed behind the image, and back before every convolution."""
    body = """
        n = Transpose <perm = [0, 2, 3, 1]> (x)  y = Transpose <perm = [0, 3, 1, 2]> (n)  c = Conv (y, w)
        t = Transpose <perm = [0, 2, 3, 1]> (c)  b = Add (t, bias)  r = Relu (b)  u = Transpose <perm = [0, 3, 1, 2]> (r)
        p = GlobalAveragePool (u)  f = Flatten (p)  scores = MatMul (f, fc)
        """
    return graphs.parse(body, image=IMAGE, w=W, bias=np.ones(5, np.float32), fc=FC)


@kind
def channels_last_input() -> ModelProto:
    body = f"y = Transpose <perm = [0, 3, 1, 2]> (x)  {CONV.replace('(x,', '(y,')} {MEAN} scores = MatMul (f, fc)"
    return graphs.parse(body, image="N,16,16,3", w=W, fc=FC)


@kind
def flattened() -> ModelProto:
    """Shape arithmetic, as converters write it."""
    body = f"""{CONV} s = Shape (r)  n = Gather <axis = 0> (s, zero)  u = Unsqueeze (n, axes)
        shape = Concat <axis = 0> (u, rest)  p = Reshape (r, shape)  scores = Gemm <transB = 0> (p, fc, b)"""
    return graphs.parse(
        body, image="1,3,16,16", w=W, zero=np.array(0), axes=np.array([0]), rest=np.array([-1]), fc=(320, 4),
        b=np.zeros(4, np.float32),
    )  # fmt: skip


@kind
def open_size() -> ModelProto:
    return graphs.parse(f"{CONV} {MEAN} scores = MatMul (f, fc)", image="N,3,H,W", w=W, fc=FC)


@kind
def resized() -> ModelProto:
    body = f"""{CONV} u = Resize <mode = "nearest"> (r, , , sizes)  d = Slice (u, starts, ends, axes, steps)
        a, b = Split <axis = 1> (d, split)  m = Max (a, b)  g = GlobalMaxPool (m)  f = Reshape (g, flat)  scores = MatMul (f, fc)"""
    return graphs.parse(
        body, image="1,3,16,16", w=(6, 3, 3, 3), sizes=np.array([1, 6, 16, 16]), starts=np.array([0]), ends=np.array([16]),
        axes=np.array([3]), steps=np.array([2]), split=np.array([3, 3]), flat=np.array([1, 3]), fc=(3, 4),
    )  # fmt: skip


@kind
def shaped() -> ModelProto:
    """Operators that make tensors from shapes: ConstantOfShape, Expand, Tile, Range."""
    body = f"""{CONV} z = ConstantOfShape <value = float[1] {{2.0}}> (dims)  e = Expand (one, dims)  t = Tile (e, repeats)
        q = Range (start, limit, delta)  qs = ReduceSum <keepdims = 0> (q)  y = Mul (z, t)  s = Mul (r, y)  k = Mul (s, qs)
        p = GlobalAveragePool (k)  f = Flatten (p)  scores = MatMul (f, fc)"""
    return graphs.parse(
        body, image=IMAGE, w=W, fc=FC, dims=np.array([1, 5, 1, 1]), one=np.ones((1, 1, 1, 1), np.float32),
        repeats=np.array([1, 1, 1, 1]), start=np.float32(0), limit=np.float32(3), delta=np.float32(1),
    )  # fmt: skip


@kind
def weightless() -> ModelProto:
    """Weights as ConstantOfShape and Constant nodes."""
    body = f"""w = ConstantOfShape <value = float[1] {{0.1}}> (ws)  fc = Constant <value = float[5,2] {{1,2,3,4,5,6,7,8,9,0}}> ()
        half = Constant <value_float = 0.5> ()  {CONV} {MEAN} z = MatMul (f, fc)  scores = Mul (z, half)"""
    return graphs.parse(body, image=IMAGE, ws=np.array(W))


@kind
def branching() -> ModelProto:
    body = f"""{CONV} {MEAN} g = MatMul (f, fc)  m = ReduceMax <keepdims = 0> (c)  yes = Greater (m, zero)
        scores = If (yes) <
            then_branch = a () => (float[N,4] t) {{ t = Mul (g, two) }},
            else_branch = b () => (float[N,4] e) {{ e = Neg (g) }}>"""
    return graphs.parse(body, image=IMAGE, w=W, fc=FC, zero=np.float32(0), two=np.float32(2))


@kind
def looping() -> ModelProto:
    body = f"""{CONV} {MEAN} g = MatMul (f, fc)
        k = Loop (turns, yes, g) <
            body = l (int64 i, bool go, float[N,4] s) => (bool on, float[N,4] n) {{ on = Identity (go)  n = Add (s, g) }}>
        scores = Reshape (k, shape)"""
    return graphs.parse(body, image=IMAGE, w=W, fc=FC, turns=np.array(3), yes=np.array(True), shape=np.array([-1, 4]))


@kind
def calling() -> ModelProto:
    """A local function that calls another."""
    built = graphs.parse(f"{CONV} {MEAN} scores = local.Classify (f, fc)", image=IMAGE, w=W, fc=FC)
    built.opset_import.append(helper.make_opsetid("local", 1))
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    inner = [helper.make_node("Softmax", ["a"], ["b"], axis=1)]
    outer = [
        helper.make_node("MatMul", ["a", "b"], ["z"]),
        helper.make_node("Soft", ["z"], ["y"], domain="local"),
    ]
    built.functions.append(helper.make_function("local", "Soft", ["a"], ["b"], inner, imports))
    built.functions.append(helper.make_function("local", "Classify", ["a", "b"], ["y"], outer, imports))
    return built


@kind
def attentive() -> ModelProto:
    """Squeeze and excitation, LayerNormalization, Gelu by Erf."""
    body = f"""{CONV} p = ReduceMean <axes = [2, 3], keepdims = 1> (r)  e = Conv (p, v)  h = HardSigmoid (e)  s = Mul (r, h)
        t = Transpose <perm = [0, 2, 3, 1]> (s)  l = LayerNormalization <axis = -1> (t, one)
        d = Div (l, root)  q = Erf (d)  a = Add (q, unit)  b = Mul (l, a)  u = Transpose <perm = [0, 3, 1, 2]> (b)
        g = GlobalAveragePool (u)  f = Squeeze (g, axes)  scores = Gemm (f, fc)"""
    return graphs.parse(
        body, image=IMAGE, w=W, v=(5, 5, 1, 1), fc=FC, one=np.ones(5, np.float32), root=np.float32(1.414),
        unit=np.float32(1), axes=np.array([2, 3]),
    )  # fmt: skip


@kind
def upsampling() -> ModelProto:
    """ConvTranspose, DepthToSpace, Where, Gather, ScatterND-free."""
    body = f"""{CONV} k = ConvTranspose <strides = [2, 2]> (r, v)  d = DepthToSpace <blocksize = 2> (k)  y = Greater (d, zero)
        q = Where (y, d, zero)  i = InstanceNormalization (q, one, one)  l = LRN <size = 3> (i)
        p = GlobalAveragePool (l)  f = Flatten (p)  g = Gather <axis = 1> (f, index)  scores = Mul (g, four)"""
    return graphs.parse(
        body, image=IMAGE, w=W, v=(5, 8, 2, 2), zero=np.float32(0), one=np.ones(2, np.float32),
        index=np.array([0, 1, 1, 0]), four=np.arange(1, 5, dtype=np.float32),
    )  # fmt: skip


@kind
def typed() -> ModelProto:
    """Weights in the typed fields of their tensors, not as raw bytes."""
    built = plain()
    for tensor in built.graph.initializer:
        values = numpy_helper.to_array(tensor)
        tensor.CopyFrom(helper.make_tensor(tensor.name, tensor.data_type, values.shape, values.ravel().tolist()))
    return built


@kind
def annotated() -> ModelProto:
    built = graphs.parse(f"{CONV} {MEAN} scores = MatMul (f, fc)", image=IMAGE, w=W, fc=FC)
    built.graph.value_info.append(helper.make_tensor_value_info("r", TensorProto.FLOAT, ["N", 5, 8, 8]))
    built.metadata_props.add(key="author", value="nobody")
    return built
