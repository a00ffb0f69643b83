"""exporters.vjps: every rule against the central difference in float64, then in float32 on ONNX Runtime."""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper, parser
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from onnxruntime.capi import onnxruntime_pybind11_state as runtime

from exporters.gradient import gradient
from exporters.graph import Graph
from exporters.split import Shapes, to_model
from exporters.vjps import RULES, NoGradient
from tests import graphs

torch = pytest.importorskip("torch")
from torch.nn import functional as F  # noqa: E402

STEP = 1e-5  # of the central difference
X = (2, 3, 4, 5)


@dataclass(frozen=True)
class Case:
    """features → [Split, Reshape] → the tensors x… → the operator → y → Flatten → logits.

    Attributes
    ----------
    operator, about : str
        The operator that the case is for, and what is special about it.
    text : str
        The nodes from the tensors x… to y.
    xs : dict of arrays
        What depends on the features: one x with a free batch, or several that are parts of one image's features.
    constants : dict of arrays
        Those in float64 take the element type that the case is run in.
    runs : bool
        ONNX Runtime can run it.
    """

    operator: str
    about: str
    text: str
    xs: dict[str, np.ndarray]
    constants: dict[str, np.ndarray]
    opset: int
    batched: bool
    runs: bool

    def __str__(self) -> str:
        return f"{self.operator}: {self.about}" if self.about else self.operator

    @cached_property
    def features(self) -> np.ndarray:
        """The point (N, C, h, w) at which the gradient is taken."""
        (first, *_) = self.xs.values()
        if not self.batched:
            return np.concatenate([x.ravel() for x in self.xs.values()])[None, :, None, None]
        return first if first.ndim == 4 else first.reshape(len(first), -1, 1, 1)

    def model(self, dtype: str) -> ModelProto:
        """Return features → logits."""
        kind, batch = "float" if dtype == "float32" else "double", "N" if self.batched else "1"
        constants = {name: v.astype(dtype) if v.dtype == np.float64 else v for name, v in self.constants.items()}
        constants["each"] = np.array([x.size for x in self.xs.values()])
        for name, x in self.xs.items():
            constants[f"{name}_shape"] = np.array([0, *x.shape[1:]] if self.batched else x.shape, np.int64)
        parts = ", ".join(f"{name}_flat" for name in self.xs)
        lines = [
            "x_flat = Identity (features)" if self.batched else f"{parts} = Split <axis = 1> (features, each)",
            *(f"{name} = Reshape ({name}_flat, {name}_shape)" for name in self.xs),
            self.text,
            f"logits = Flatten <axis = {int(self.batched)}> (y)",
        ]
        dims = ", ".join(map(str, (batch, *self.features.shape[1:])))
        graph = parser.parse_graph(f"case ({kind}[{dims}] features) => ({kind}[{batch}, L] logits) {{ {' '.join(lines)} }}")
        graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)

    def derived(self, dtype: str, classes: int) -> ModelProto:
        """Return features, cotangent → gradients."""
        graph = Graph(self.model(dtype))
        return to_model(gradient(graph, Shapes((3, 1, 1), self.features.shape[1:], classes)), graph, ())

    def logits(self, dtype: str, features: np.ndarray | None = None) -> np.ndarray:
        """Return f(features), in float64 by the judge, in float32 by ONNX Runtime."""
        return run(self.model(dtype), dtype, features=self.features if features is None else features)

    def gradients(self, dtype: str, cotangent: np.ndarray) -> np.ndarray:
        """Return Jᵀ cotangent, in float64 by the judge, in float32 by ONNX Runtime."""
        found = run(self.derived(dtype, cotangent.shape[1]), dtype, features=self.features, cotangent=cotangent)
        assert found.shape == self.features.shape
        return found


def run(model: ModelProto, dtype: str, **feeds: np.ndarray) -> np.ndarray:
    if dtype == "float32":
        (value,) = graphs.run(model, {name: array.astype(dtype) for name, array in feeds.items()})
    else:
        with np.errstate(all="ignore"):
            (value,) = ReferenceEvaluator(model, new_ops=JUDGES).run(None, feeds)
    assert value.dtype == dtype
    return value


def normal(shape: tuple[int, ...], *seed: object) -> np.ndarray:
    return np.random.default_rng(zlib.crc32(repr(seed).encode())).standard_normal(shape)


def positive(*shape: int) -> np.ndarray:
    return 0.5 + np.abs(normal(shape, "positive"))


def row(text: str, about: str = "", *, opset: int = 17, fixed=False, runs=True, of=None, **tensors: object) -> Case:
    """Return a case for the operator `of`, by default the first one of `text`.

    A tensor whose name begins with x depends on the features, the others are constants; a shape stands for random values.
    With `fixed`, the first axis of x is not the batch.
    """
    operator = of or re.search(r"[A-Z]\w*", text)[0]
    tensors = {"x": X} | tensors if re.search(r"\bx\b", text) else tensors
    text = text if text[0].islower() else f"y = {text}"
    values = {k: normal(v, text, about, k) if isinstance(v, tuple) else np.asarray(v) for k, v in tensors.items()}
    xs = {name: values.pop(name).astype(float) for name in tensors if name.startswith("x")}
    (first, *others) = xs.values()
    return Case(operator, about, text, xs, values, opset, not (fixed or others or first.ndim < 2), runs)


# --- the judge: onnx.reference, mended --------------------------------------------------------------------------------------
JUDGES: list[type[OpRun]] = []  # in place of onnx.reference's own, each for the reason behind its name


def judge(compute: Callable[..., object]) -> Callable[..., object]:
    """Let a function of arrays and attributes stand for the operator of its name."""

    def _run(self: OpRun, *inputs: np.ndarray, **attributes: object) -> tuple:
        values = compute(*inputs, **{name: value for name, value in attributes.items() if value is not None})
        values = values if isinstance(values, tuple) else (np.asarray(values),)
        return values[: len(self.onnx_node.output)]

    JUDGES.append(type(compute.__name__, (OpRun,), {"op_domain": "", "_run": _run}))
    return compute


def halves(spare: int, auto_pad: str) -> tuple[int, int]:
    """Share a border out; the odd one goes behind in SAME_UPPER, else before."""
    small, large = spare // 2, spare - spare // 2
    return (small, large) if auto_pad == "SAME_UPPER" else (large, small)


def windows(x, kernel, *, strides=(), dilations=(), pads=(), auto_pad, ceil_mode):
    """Return (N, C, *out, *kernel), what the windows see; outside the image NaN."""
    rank = len(kernel)
    for i, k in enumerate(kernel):
        size, stride, dilation = x.shape[2 + i], (strides or [1] * rank)[i], (dilations or [1] * rank)[i]
        reach = (k - 1) * dilation + 1
        before, after = (0, 0) if auto_pad == "VALID" else (pads or [0] * 2 * rank)[i::rank]
        if auto_pad.startswith("SAME"):
            before, after = halves(max(0, ((size - 1) // stride) * stride + reach - size), auto_pad)
        room = size + before + after - reach
        count = (-(-room // stride) if ceil_mode else room // stride) + 1
        count -= ceil_mode and (count - 1) * stride >= size + before  # none begins behind the image
        border = [(0, 0)] * x.ndim
        border[2 + i] = before, after + max(0, (count - 1) * stride - room)
        places = np.arange(count)[:, None] * stride + np.arange(k) * dilation
        x = np.moveaxis(np.take(np.pad(x, border, constant_values=np.nan), places, axis=2 + i), 3 + i, -1)
    return x


@judge
def MaxPool(x, *, kernel_shape, storage_order, **placement):  # numbers the places anew in every channel; wrong for SAME_LOWER
    seen, places = (windows(v.astype(float), kernel_shape, **placement) for v in (x, np.arange(x.size).reshape(x.shape)))
    seen, places = (v.reshape(*v.shape[: x.ndim], -1) for v in (seen, places))
    first = np.nanargmax(seen, axis=-1, keepdims=True)
    return tuple(np.take_along_axis(v, first, -1)[..., 0].astype(t) for v, t in ((seen, x.dtype), (places, np.int64)))


@judge
def GlobalMaxPool(x):  # for pictures only
    return x.max(axis=tuple(range(2, x.ndim)), keepdims=True)


@judge
def LpPool(x, *, kernel_shape, p, **placement):  # wrong for ceil_mode
    seen = windows(x, kernel_shape, **placement)
    return np.nansum(np.abs(seen) ** p, axis=tuple(range(x.ndim, seen.ndim))) ** (1 / p)


@judge
def GlobalLpPool(x, *, p):  # missing
    return (np.abs(x) ** p).sum(axis=tuple(range(2, x.ndim)), keepdims=True) ** (1 / p)


@judge
def ConvTranspose(  # without groups and output_shape
    x, w, bias=0.0, *, group, auto_pad, kernel_shape=(), strides=(), dilations=(), pads=(), output_padding=(), output_shape=()
):
    count, kernel, rank = x.shape[2:], w.shape[2:], x.ndim - 2
    strides, dilations, extra = strides or [1] * rank, dilations or [1] * rank, output_padding or [0] * rank
    whole = [(count[i] - 1) * strides[i] + (kernel[i] - 1) * dilations[i] + 1 + extra[i] for i in range(rank)]
    y = np.zeros((len(x), group, w.shape[1], *whole))
    x, w = x.reshape(len(x), group, -1, *count), w.reshape(group, -1, w.shape[1], *kernel)
    for at in np.ndindex(kernel):
        starts = [place * dilation for place, dilation in zip(at, dilations, strict=True)]
        places = (slice(a, a + (n - 1) * s + 1, s) for a, n, s in zip(starts, count, strides, strict=True))
        y[(..., *places)] += np.einsum("ngc...,gco->ngo...", x, w[(..., *at)])
    y = y.reshape(len(x), -1, *whole)
    for i in range(rank):
        before, after = (0, 0) if auto_pad == "VALID" else (pads or [0] * 2 * rank)[i::rank]
        size = output_shape[i] if output_shape else whole[i] - before - after
        if auto_pad.startswith("SAME") and not output_shape:
            size = min(whole[i], count[i] * strides[i])
        if auto_pad.startswith("SAME") or output_shape:
            before, _ = halves(max(0, whole[i] - size), auto_pad)
        border = [(0, max(0, size - whole[i])) if axis == 2 + i else (0, 0) for axis in range(y.ndim)]
        y = np.take(np.pad(y, border), range(before, before + size), axis=2 + i)
    return y + np.reshape(bias, (-1, *[1] * rank))


@judge
def Resize(x, roi=None, scales=None, sizes=None, *, axes=(0, 1, 2, 3), **attributes):  # rounds the new size too late
    """Resize every unit image on ONNX Runtime: its own way of interpolating is the one that counts."""
    units = np.eye(x[0, 0].size, dtype=np.float32).reshape(-1, 1, *x.shape[2:])
    scaled = scales is not None and scales.size > 0
    given = dict(zip(axes, scales if scaled else sizes, strict=True))
    wanted = np.array([1 if scaled else len(units), 1, given[2], given[3]], np.float32 if scaled else np.int64)
    node = helper.make_node("Resize", ["x", "", "wanted"] if scaled else ["x", "", "", "wanted"], ["y"], **attributes)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "y")]
    graph = helper.make_graph([node], "units", values[:1], values[1:], [numpy_helper.from_array(wanted, "wanted")])
    (seen,) = graphs.run(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=8), {"x": units})
    return (x.reshape(-1, len(units)) @ seen.reshape(len(units), -1).astype(x.dtype)).reshape(*x.shape[:2], *seen.shape[2:])


@judge
def Pad(x, pads, value=0.0, axes=None, *, mode):  # refuses negative pads
    width = np.zeros((x.ndim, 2), int)
    width[slice(None) if axes is None else axes] = np.reshape(pads, (2, -1)).T
    padded = np.pad(x, width.clip(0), mode, **({"constant_values": value} if mode == "constant" else {}))
    return padded[tuple(slice(-min(0, a), min(0, b) or None) for a, b in width)]


@judge
def BatchNormalization(x, scale, bias, mean, variance, *, epsilon, **_):  # takes the batch's own statistics at opset 13
    scale, bias, mean, variance = (v.reshape(-1, *[1] * (x.ndim - 2)) for v in (scale, bias, mean, variance))
    return (x - mean) / np.sqrt(variance + epsilon) * scale + bias


@judge
def GroupNormalization(x, scale, bias, *, epsilon, num_groups, **_):  # float32 inside
    apart = x.reshape(len(x), num_groups, -1)
    normal = (apart - apart.mean(2, keepdims=True)) / np.sqrt(apart.var(2, keepdims=True) + epsilon)
    scale, bias = (np.repeat(v, x.shape[1] // len(v)).reshape(-1, *[1] * (x.ndim - 2)) for v in (scale, bias))
    return normal.reshape(x.shape) * scale + bias


@judge
def LRN(x, *, alpha, beta, bias, size):  # loops over the images instead of the channels
    squares = np.pad(x**2, [(0, 0), ((size - 1) // 2, size // 2), (0, 0), (0, 0)])
    return x / (bias + alpha / size * sum(squares[:, i : i + x.shape[1]] for i in range(size))) ** beta


@judge
def LogSoftmax(x, *, axis):  # overflows
    x = x - x.max(axis, keepdims=True)
    return x - np.log(np.exp(x).sum(axis, keepdims=True))


@judge
def Erf(x):  # float32 inside
    return np.vectorize(math.erf)(x)


@judge
def Gelu(x, *, approximate):  # float32 inside
    bent = np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)) if approximate == "tanh" else Erf(x / math.sqrt(2))
    return x / 2 * (1 + bent)


@judge
def Mean(*xs):  # cannot stretch the first input
    return sum(xs[1:], xs[0]) / len(xs)


# --- the cases --------------------------------------------------------------------------------------------------------------
def some(*shape: int) -> np.ndarray:
    return normal(shape, "some") > 0


def scales(*values: float) -> np.ndarray:
    return np.array([1, 1, *values], np.float32)


def normalised(channels: int) -> dict[str, object]:
    return {"s": (channels,), "b": (channels,), "m": (channels,), "v": positive(channels)}


RESIZE = "coordinate_transformation_mode"
WINDOWS = {  # about: attributes
    "plain": "kernel_shape = [2, 3]",
    "strides": "kernel_shape = [2, 3], strides = [2, 3]",
    "a rest": "kernel_shape = [3, 2], strides = [2, 2]",
    "overlapping": "kernel_shape = [3, 3], strides = [1, 2]",
    "gaps": "kernel_shape = [1, 2], strides = [2, 3]",
    "padding": "kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]",
    "asymmetric padding": "kernel_shape = [3, 3], strides = [2, 2], pads = [1, 0, 0, 2]",
    "ceil": "kernel_shape = [3, 2], strides = [2, 2], ceil_mode = 1",
    "ceil, padding": "kernel_shape = [3, 3], strides = [2, 3], pads = [1, 1, 0, 1], ceil_mode = 1",
    "dilations": "kernel_shape = [2, 3], dilations = [2, 2], pads = [1, 0, 1, 1]",
    "dilations, ceil": "kernel_shape = [2, 3], dilations = [3, 2], strides = [2, 2], ceil_mode = 1",
    "SAME_UPPER": 'kernel_shape = [3, 2], auto_pad = "SAME_UPPER", strides = [2, 2]',
    "SAME_LOWER": 'kernel_shape = [3, 2], auto_pad = "SAME_LOWER", strides = [1, 2]',
    "VALID": 'kernel_shape = [3, 2], auto_pad = "VALID", strides = [2, 2]',
}
CEIL_BEHIND = "kernel_shape = [2, 2], strides = [3, 1], pads = [0, 1, 1, 1], ceil_mode = 1"  # one more window would begin there
POOLS = [  # operator, attributes, opset
    ("MaxPool", "", 17),
    *(("AveragePool", f"count_include_pad = {count}, ", opset) for count in (0, 1) for opset in (17, 19)),
    *(("LpPool", f"p = {p}, ", opset) for p, opset in ((1, 18), (2, 17), (2, 18), (3, 18))),
]
REDUCTIONS = ["ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSumExp"]
REDUCED = {  # about: attributes, axes, every axis or the batch among them
    "axis 1": ("keepdims = 1", [1], False),
    "negative axes, dropped": ("keepdims = 0", [-1, -2], False),
    "axes out of order, dropped": ("keepdims = 0", [3, 1], False),
    "all": ("keepdims = 1", None, True),
    "all, dropped": ("keepdims = 0", None, True),
}

CASES = [
    # --- arithmetic -----------------------------------------------------------------------------------------------------
    row("Add (x, c)", "bias", c=(3, 1, 1)),
    row("Add (c, x)", "features on the right", c=(1, 3, 1, 5)),
    row("Add (x1, x2)", "both sides stretched", x1=(2, 1, 4), x2=(3, 1)),
    row("Add (x1, x2)", "same shape", x1=(2, 3), x2=(2, 3)),
    row("Add (x1, x2)", "a scalar", x1=(2, 3), x2=()),
    row("Add (x, x)", "the same tensor twice"),
    row("Sub (x, c)", "left", c=(4, 5)),
    row("Sub (c, x)", "right", c=(4, 5)),
    row("Sub (x1, x2)", "both sides stretched", x1=(2, 1, 4), x2=(3, 1)),
    row("Mul (x, c)", "left", c=(3, 1, 1)),
    row("Mul (c, x)", "right", c=(3, 1, 1)),
    row("Mul (x1, x2)", "both sides stretched", x1=(2, 1, 4), x2=(3, 1)),
    row("Mul (x, x)", "a square"),
    row("Div (x, c)", "left", c=positive(3, 1, 1)),
    row("Div (c, x)", "right", x=positive(*X), c=(3, 1, 1)),
    row("Div (x1, x2)", "both sides stretched", x1=(2, 1, 4), x2=positive(3, 1)),
    row("Div (x1, x2)", "negative divisors", x1=(3, 4), x2=-positive(4)),
    row("Pow (x, c)", "base", x=positive(2, 3, 4), c=(3, 1)),
    row("Pow (x, c)", "square of negative values", c=2.0),
    row("Pow (x, c)", "whole exponent", c=3),
    row("Pow (x, c)", "zeroth power", c=[0.0, 1.0, 2.0, 3.0, -1.0]),
    row("Pow (c, x)", "exponent", c=positive(3, 1, 1)),
    row("Pow (x1, x2)", "both sides stretched", x1=positive(2, 1, 4), x2=(3, 1)),
    row("Sum (x1, x2, x3)", "three, stretched", x1=(2, 1, 4), x2=(3, 1), x3=(4,)),
    row("Sum (c, x)", "constant first", c=(5,)),
    row("Sum (x)", "one"),
    row("Mean (x1, x2, x3)", "three, stretched", x1=(2, 1, 4), x2=(3, 1), x3=(4,)),
    row("Mean (c, x)", "constant first", c=(5,)),
    row("Max (x1, x2, x3)", "three, stretched", x1=(2, 1, 4), x2=(3, 1), x3=(4,)),
    row("Max (x, c)", "constant", c=(3, 1, 1)),
    row("Max (x)", "one"),
    row("Min (x1, x2, x3)", "three, stretched", x1=(2, 1, 4), x2=(3, 1), x3=(4,)),
    row("Min (c, x)", "constant first", c=(3, 1, 1)),
    row("Where (c, x1, x2)", "both branches", x1=(2, 3, 4), x2=(2, 3, 4), c=some(2, 3, 4)),
    row("Where (c, x1, x2)", "branches stretched", x1=(3, 1), x2=(4,), c=some(2, 3, 4)),
    row("Where (c, x1, x2)", "condition stretched", x1=(2, 3, 4), x2=(1, 4), c=some(3, 1)),
    row("Where (c, x, z)", "first branch", z=0.0, c=some(4, 5)),
    row("Where (c, z, x)", "second branch", z=0.0, c=some(4, 5)),
    # --- simple functions -----------------------------------------------------------------------------------------------
    row("Neg (x)"),
    row("Abs (x)"),
    row("Exp (x)"),
    row("Log (x)", x=positive(*X)),
    row("Sqrt (x)", x=positive(*X)),
    row("Reciprocal (x)", x=positive(*X)),
    row("Sin (x)"),
    row("Cos (x)"),
    row("Erf (x)"),
    # --- activations ----------------------------------------------------------------------------------------------------
    row("Relu (x)"),
    row("Clip (x, low, high)", "both bounds", low=-0.5, high=1.0),
    row("Clip (x, low)", "low", low=0.0),
    row("Clip (x, , high)", "high", high=0.5),
    row("Clip (x)", "no bounds"),
    row('Clip (x, "", "")', "bounds left out by name"),
    row("Clip (x, low, high)", "low above high", low=1.0, high=0.0),
    row("LeakyRelu (x)", "default"),
    row("LeakyRelu <alpha = 0.3> (x)", "alpha"),
    row("LeakyRelu <alpha = -0.5> (x)", "negative alpha"),
    row("PRelu (x, c)", "slope per channel", c=(3, 1, 1)),
    row("PRelu (x, c)", "one slope", c=(1,)),
    row("PRelu (c, x)", "slope", c=(2, 3, 4), x=(3, 1), fixed=True),
    row("PRelu (x1, x2)", "both", x1=(2, 3, 4), x2=(3, 1)),
    row("ThresholdedRelu (x)", "default"),
    row("ThresholdedRelu <alpha = 0.2> (x)", "alpha"),
    row("Elu (x)", "default"),
    row("Elu <alpha = 0.7> (x)", "alpha"),
    row("Selu (x)", "default"),
    row("Selu <alpha = 1.2, gamma = 2.0> (x)", "alpha and gamma"),
    row("Celu (x)", "default"),
    row("Celu <alpha = 2.0> (x)", "alpha"),
    row("Sigmoid (x)"),
    row("HardSigmoid (x)", "default", x=3 * positive(*X) - 4),
    row("HardSigmoid <alpha = 0.5, beta = 0.4> (x)", "alpha and beta"),
    row("HardSwish (x)", x=5 * positive(*X) - 6),
    row("Tanh (x)"),
    row("Softplus (x)"),
    row("Softsign (x)"),
    row("Mish (x)", opset=18),
    row("Gelu (x)", "exact", opset=20),
    row('Gelu <approximate = "tanh"> (x)', "tanh", opset=20),
    *(
        row(f"{operator} {axis}(x)", axis or "last axis")
        for operator in ("Softmax", "LogSoftmax")
        for axis in ("", "<axis = 1> ", "<axis = -2> ")
    ),
    # --- the same numbers in another shape ------------------------------------------------------------------------------
    row("Identity (x)"),
    row("Dropout (x, ratio)", "ratio", ratio=0.9),
    row("Dropout (x, ratio, training)", "not training", ratio=0.9, training=np.array(False)),
    row("y, mask = Dropout (x)", "mask asked for"),
    row("Reshape (x, c)", "0 and -1", c=[0, 4, -1]),
    row("Reshape (x, c)", "batch left open", c=[-1, 60]),
    row("Reshape (x, c)", "to a vector", x=(3, 4), c=[-1], fixed=True),
    row("Reshape <allowzero = 1> (x, c)", "allowzero", c=[-1, 60]),
    row("i = Shape <end = 1> (x)  s = Concat <axis = 0> (i, c)  y = Reshape (x, s)", "shape of its own", c=[60], of="Reshape"),
    row("Flatten (x)", "default"),
    row("Flatten <axis = 3> (x)", "axis"),
    row("Flatten <axis = -1> (x)", "negative axis"),
    row("Flatten <axis = 0> (x)", "axis 0", fixed=True),
    row("Squeeze (x, c)", "axes", x=(2, 1, 4, 1), c=[1, -1]),
    row("Squeeze (x)", "no axes", x=(2, 1, 4, 1), fixed=True),
    row("Unsqueeze (x, c)", "axes out of order", c=[-1, 1]),
    row("Transpose <perm = [0, 2, 3, 1]> (x)", "channels last"),
    row("Transpose <perm = [2, 0, 3, 1]> (x)", "cycle", fixed=True),
    row("Transpose (x)", "default", x=(2, 3, 4), fixed=True),
    row("t = Cast <to = 11> (x)  y = CastLike (t, x)", "to double and back"),
    row("t = Cast <to = 7> (x)  s = CastLike (t, x)  y = Add (s, x)", "nothing flows through whole numbers"),
    row("t = Cast <to = 9> (x)  s = CastLike (t, x)  y = Add (s, x)", "nothing flows through truth values"),
    row("CastLike (x, c)", "same type", c=0.0),
    row("t = CastLike (x, c)  s = CastLike (t, x)  y = Add (s, x)", "nothing flows through whole numbers", c=0),
    row("Expand (x, c)", "stretched", x=(2, 3, 1, 1), c=[1, 3, 4, 5]),
    row("Expand (x, c)", "lower rank of the shape", x=(2, 3, 1, 5), c=[4, 1]),
    row("Expand (x, c)", "higher rank of the shape", x=(3, 1), c=[2, 1, 4], fixed=True),
    row("p = GlobalMaxPool (x)  s = Shape (x)  y = Expand (p, s)", "back to the shape of the features", of="Expand"),
    row("Tile (x, c)", "two axes", x=(2, 3, 2, 3), c=[1, 2, 1, 3]),
    row("Tile (x, c)", "vector", x=(4,), c=[3]),
    row("SpaceToDepth <blocksize = 2> (x)", x=(2, 3, 4, 6)),
    row("DepthToSpace <blocksize = 2> (x)", "default", x=(2, 8, 2, 3)),
    row('DepthToSpace <blocksize = 2, mode = "DCR"> (x)', "DCR", x=(2, 8, 2, 3)),
    row('DepthToSpace <blocksize = 2, mode = "CRD"> (x)', "CRD", x=(2, 8, 2, 3)),
    row('DepthToSpace <blocksize = 3, mode = "CRD"> (x)', "CRD, one channel left", x=(2, 9, 2, 1)),
    # --- parts ----------------------------------------------------------------------------------------------------------
    row("Concat <axis = 1> (x, c, x)", "twice, around a constant", x=(1, 3, 4, 5), c=(1, 2, 4, 5), fixed=True),
    row("Concat <axis = 1> (x, x)", "with a free batch"),
    row("Concat <axis = -1> (x1, x2, x3)", "three, negative axis", x1=(2, 3), x2=(2, 1), x3=(2, 4)),
    row("Concat <axis = 0> (x1, x2)", "first axis", x1=(2, 3), x2=(1, 3)),
    row("Concat <axis = 1> (x)", "one"),
    row("a, b = Split <axis = 1> (x)  y = Div (a, b)", "equal parts", x=positive(2, 4, 3, 3)),
    row("a, b = Split <axis = -1> (x, s)  y = Concat <axis = 3> (b, a, a)", "sizes, negative axis", s=[2, 3]),
    row("a, b, c = Split <axis = 1> (x)  y = Mul (c, a)", "an unread part", x=(2, 6, 2, 2)),
    row("a, b = Split <axis = 1, num_outputs = 2> (x)  y = Concat <axis = 1> (b, a)", "uneven parts", x=(2, 5, 2, 2), opset=18),
    row("Slice (x, a, b)", "first axes", a=[0, 1], b=[2, 3], fixed=True),
    row("Slice (x, a, b, i)", "several axes", a=[1, 0], b=[3, 2], i=[-1, 1]),
    row("Slice (x, a, b, i)", "negative ends", a=[-3], b=[-1], i=[3]),
    row("Slice (x, a, b, i)", "huge end", a=[1], b=[2**63 - 1], i=[2]),
    row("Slice (x, a, b, i)", "before the beginning", a=[-100], b=[1], i=[2]),
    row("Slice (x, a, b, i)", "all of the batch", a=[0, 1], b=[2**31 - 1, 2], i=[0, 1]),
    row("Slice (x, a, b, i, s)", "step 2", a=[0], b=[5], i=[3], s=[2]),
    row("Slice (x, a, b, i, s)", "step 3 on two axes", x=(2, 3, 7, 5), a=[1, 0], b=[7, 5], i=[2, 3], s=[3, 3]),
    row("Slice (x, a, b, i, s)", "reversed", a=[-1], b=[-(2**31)], i=[3], s=[-1]),
    row("Slice (x, a, b, i, s)", "reversed by 2, not to the end", x=(2, 3, 4, 7), a=[5], b=[0], i=[3], s=[-2]),
    row("Slice (x, a, b, i, s)", "reversed from behind the end", a=[100], b=[1], i=[2], s=[-1]),
    row("Gather <axis = 1> (x, i)", "one place", i=2),
    row("Gather <axis = 1> (x, i)", "repeated and negative", i=[2, 0, -1, 2]),
    row("Gather <axis = -1> (x, i)", "table", i=[[0, 1, 4], [4, 4, -5]]),
    row("Gather <axis = 2> (x, i)", "neighbours, int32", i=np.array([1, 2], np.int32)),
    row("Gather (x, i)", "first axis", x=(4, 3), i=[3, 1, 1], fixed=True),
    row("Pad (x, p)", "zeros", p=[0, 0, 1, 2, 0, 1, 0, 3]),
    row("Pad (x, p, v)", "another value", p=[0, 0, 1, 2, 0, 1, 0, 3], v=7.0),
    row("Pad (x, p)", "negative", p=[0, 0, -1, 2, 0, -1, 3, -1]),
    row('Pad <mode = "reflect"> (x, p)', "reflect", p=[0, 0, 3, 2, 0, 0, 1, 4]),
    row('Pad <mode = "edge"> (x, p)', "edge", p=[0, 0, 6, 2, 0, 1, 1, 0]),
    row('Pad <mode = "wrap"> (x, p)', "wrap", p=[0, 0, 1, 2, 0, 0, 3, 0], opset=19),
    row("Pad (x, p, v, i)", "axes", p=[1, 2, 0, 1], v=0.0, i=[-1, 2], opset=18),
    row('Pad <mode = "reflect"> (x, p, , i)', "reflect, axes", p=[1, 2], i=[3], opset=18),
    # --- interpolation --------------------------------------------------------------------------------------------------
    *(
        row(
            f'Resize <nearest_mode = "{mode}", {RESIZE} = "{place}"> (x, , s)',
            f"nearest, {place}, {mode}, {size}",
            s=scales(*size),
        )
        for mode in ("floor", "round_prefer_floor", "round_prefer_ceil", "ceil")
        for place in ("asymmetric", "half_pixel", "align_corners")
        for size in ((2, 3), (1.3, 0.7))
    ),
    *(
        row(f'Resize <mode = "{mode}", {RESIZE} = "{place}"> (x, , {given})', f"{mode}, {place}, {about}", **size)
        for mode in ("linear", "cubic")
        for place in ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric")
        for about, given, size in (
            ("larger", "s", {"s": scales(2, 1.7)}),
            ("smaller", "s", {"s": scales(0.3, 0.6)}),
            ("sizes", ", n", {"n": [2, 3, 7, 5]}),
        )
    ),
    row("Resize (x, , , n)", "nearest, sizes", n=[2, 3, 7, 3]),
    row('Resize <mode = "linear"> (x, , , n)', "to one pixel", n=[2, 3, 1, 1]),
    row('Resize <mode = "linear"> (x, r, e, n)', "empty scales", r=np.float32([]), e=np.float32([]), n=[2, 3, 8, 8]),
    row('Resize <mode = "linear"> (x, , s)', "scales of 1", s=scales(1, 1)),
    row('Resize <mode = "linear"> (x, , s)', "scales that keep the size", s=scales(1.1, 1.15)),
    row('Resize <mode = "linear"> (x, , s)', "a scale that keeps the height", s=scales(1.1, 2)),
    row('Resize <mode = "cubic"> (x, , s)', "a scale that keeps the width", s=scales(2, 1.1)),
    row('Resize <mode = "cubic", cubic_coeff_a = -0.5> (x, , s)', "cubic, coefficient", s=scales(2, 2)),
    row('Resize <mode = "cubic", exclude_outside = 1> (x, , s)', "cubic, nothing outside", s=scales(2, 1.5)),
    row('Resize <mode = "linear", antialias = 1> (x, , s)', "linear, antialias", x=(1, 2, 6, 7), s=scales(0.5, 0.4), opset=18),
    row('Resize <mode = "cubic", antialias = 1> (x, , s)', "cubic, antialias", x=(1, 2, 6, 7), s=scales(0.5, 0.4), opset=18),
    row('Resize <mode = "linear", axes = [2, 3]> (x, , s)', "axes, scales", s=scales(2, 1.5)[2:], opset=18),
    row('Resize <mode = "linear", axes = [3, 2]> (x, , , n)', "axes, sizes", n=[7, 8], opset=18),
    row(f'Resize <mode = "linear", {RESIZE} = "half_pixel_symmetric"> (x, , s)', "symmetric", s=scales(1.3, 0.7), opset=19),
    row(
        'i = Shape <end = 1> (x)  s = Concat <axis = 0> (i, n)  y = Resize <mode = "linear"> (x, , , s)',
        "sizes with a free batch",
        n=[3, 8, 6],
        of="Resize",
    ),
    # --- convolutions ---------------------------------------------------------------------------------------------------
    row("Conv (x, w)", "plain", w=(4, 3, 3, 2)),
    row("Conv <pads = [1, 1, 1, 1]> (x, w, b)", "padding and bias", w=(4, 3, 3, 3), b=(4,)),
    row("Conv <kernel_shape = [1, 1]> (x, w)", "1 x 1", w=(4, 3, 1, 1)),
    row("Conv <strides = [2, 3], pads = [1, 1, 1, 1]> (x, w)", "strides", x=(2, 3, 7, 10), w=(4, 3, 3, 3)),
    row("Conv <strides = [2, 2]> (x, w)", "strides that leave a rest", x=(2, 3, 8, 6), w=(4, 3, 3, 3)),
    row("Conv <strides = [3, 3]> (x, w)", "strides beyond the kernel", x=(2, 3, 9, 8), w=(4, 3, 2, 1)),
    row("Conv <strides = [2, 2], pads = [1, 0, 2, 3]> (x, w)", "asymmetric padding", x=(2, 3, 6, 5), w=(4, 3, 3, 3)),
    row("Conv <strides = [2, 1], pads = [2, 3, 0, 1]> (x, w)", "more padding before", x=(2, 3, 6, 5), w=(4, 3, 3, 3)),
    row("Conv <pads = [2, 2, 2, 2]> (x, w)", "padding as wide as the kernel", x=(2, 3, 3, 3), w=(4, 3, 2, 2)),
    row("Conv <dilations = [2, 3]> (x, w)", "dilations", x=(2, 3, 7, 9), w=(4, 3, 3, 3)),
    row(
        "Conv <dilations = [2, 2], strides = [2, 3], pads = [2, 1, 1, 2]> (x, w)",
        "dilations, strides",
        x=(2, 3, 8, 9),
        w=(4, 3, 3, 3),
    ),
    row("Conv <group = 2, pads = [1, 1, 1, 1]> (x, w)", "groups", x=(2, 4, 4, 5), w=(6, 2, 3, 3)),
    row("Conv <group = 2, strides = [2, 2], pads = [1, 1, 1, 1]> (x, w)", "groups, strides", x=(2, 4, 6, 5), w=(6, 2, 3, 3)),
    row("Conv <group = 3, pads = [1, 1, 1, 1]> (x, w)", "depthwise", w=(3, 1, 3, 3)),
    row("Conv <group = 3, strides = [2, 2]> (x, w)", "depthwise, two per channel", x=(2, 3, 6, 5), w=(6, 1, 3, 3)),
    *(
        row(
            f'Conv <auto_pad = "{auto}", strides = {strides}> (x, w)',
            f"{auto}, strides {strides}",
            x=(2, 3, 5, 6),
            w=(4, 3, 3, 2),
        )
        for auto in ("SAME_UPPER", "SAME_LOWER", "VALID")
        for strides in ([1, 1], [2, 2], [2, 3])
    ),
    row('Conv <auto_pad = "SAME_UPPER", strides = [3, 3]> (x, w)', "SAME_UPPER, gaps", x=(2, 3, 5, 6), w=(4, 3, 1, 1)),
    row("Conv <strides = [2], pads = [1, 0]> (x, w)", "1-D", x=(2, 3, 8), w=(4, 3, 3)),
    row("Conv <strides = [2, 1, 2], pads = [1, 0, 1, 0, 1, 1]> (x, w)", "3-D", x=(1, 2, 4, 3, 5), w=(3, 2, 3, 2, 2)),
    row("ConvTranspose (x, w)", "plain", w=(3, 4, 3, 2)),
    row("ConvTranspose <strides = [2, 3]> (x, w, b)", "strides and bias", w=(3, 4, 3, 2), b=(4,)),
    row("ConvTranspose <strides = [2, 2], pads = [1, 1, 1, 1]> (x, w)", "padding", w=(3, 4, 4, 4)),
    row("ConvTranspose <strides = [2, 2], pads = [1, 0, 2, 1]> (x, w)", "asymmetric padding", w=(3, 4, 4, 3)),
    row(
        "ConvTranspose <strides = [2, 2], pads = [1, 1, 1, 1], output_padding = [1, 1]> (x, w)",
        "output_padding",
        w=(3, 4, 3, 3),
    ),
    row(
        "ConvTranspose <strides = [3, 3], output_padding = [2, 1]> (x, w)", "output_padding beyond the windows", w=(3, 2, 2, 1)
    ),
    row(
        "ConvTranspose <strides = [2, 1], dilations = [3, 3], output_padding = [2, 2]> (x, w)",
        "output_padding beyond the stride",
        w=(3, 2, 2, 2),
        runs=False,
    ),
    row("ConvTranspose <dilations = [2, 3], strides = [2, 1]> (x, w)", "dilations", w=(3, 2, 3, 2)),
    row("ConvTranspose <dilations = [2, 3], pads = [2, 1, 1, 2]> (x, w)", "dilations, padding", w=(3, 2, 3, 2)),
    row("ConvTranspose <strides = [2, 2], output_shape = [9, 10]> (x, w)", "output_shape", w=(3, 2, 4, 3)),
    row("ConvTranspose <strides = [2, 2], output_shape = [7, 8]> (x, w)", "smaller output_shape", w=(3, 2, 4, 3)),
    row("ConvTranspose <strides = [2, 2], output_shape = [10, 11]> (x, w)", "larger output_shape", w=(3, 2, 3, 2)),
    row(
        'ConvTranspose <strides = [2, 2], output_shape = [7, 8], auto_pad = "SAME_UPPER"> (x, w)',
        "output_shape, SAME_UPPER",
        w=(3, 2, 4, 3),
    ),
    *(
        row(f'ConvTranspose <auto_pad = "{auto}", strides = {strides}> (x, w)', f"{auto}, strides {strides}", w=(3, 2, 4, 3))
        for auto in ("SAME_UPPER", "SAME_LOWER", "VALID")
        for strides in ([1, 1], [2, 2], [2, 3])
    ),
    row('ConvTranspose <auto_pad = "SAME_UPPER", strides = [3, 3]> (x, w)', "SAME_UPPER, gaps", w=(3, 2, 2, 1)),
    row('ConvTranspose <auto_pad = "SAME_UPPER", dilations = [2, 2]> (x, w)', "SAME_UPPER, dilations", w=(3, 2, 3, 2)),
    row(
        'ConvTranspose <auto_pad = "SAME_LOWER", strides = [2, 2], output_padding = [1, 1]> (x, w)',
        "SAME_LOWER, output_padding",
        w=(3, 2, 3, 3),
    ),
    row(
        "ConvTranspose <strides = [2, 2], output_shape = [8, 9], output_padding = [1, 1]> (x, w)",
        "output_shape, output_padding",
        w=(3, 2, 4, 3),
    ),
    row("ConvTranspose <group = 2, strides = [2, 2], pads = [1, 1, 0, 1]> (x, w)", "groups", x=(2, 4, 3, 4), w=(4, 3, 3, 3)),
    row("ConvTranspose <group = 3, strides = [2, 2], pads = [1, 1, 1, 1]> (x, w)", "depthwise", w=(3, 1, 4, 4)),
    row("ConvTranspose <strides = [2], pads = [1, 0], output_padding = [1]> (x, w)", "1-D", x=(2, 3, 4), w=(3, 4, 3)),
    row("ConvTranspose <strides = [2, 1, 2]> (x, w)", "3-D", x=(1, 2, 2, 3, 2), w=(2, 3, 3, 2, 2)),
    # --- matrix products ------------------------------------------------------------------------------------------------
    row("Gemm (x, b)", "a", x=(2, 3), b=(3, 4)),
    row("Gemm (x, b, c)", "a, bias", x=(2, 3), b=(3, 4), c=(4,)),
    row("Gemm (a, b, x)", "c, default", a=(2, 3), b=(3, 4), x=(2, 4), fixed=True),
    row('Gemm (x, b, "")', "bias left out by name", x=(2, 3), b=(3, 4)),
    *(
        row(
            f"Gemm <transA = {a}, transB = {b}, alpha = 0.5, beta = 2.0> (x1, x2, x3)",
            f"a, b, c, transA {a}, transB {b}",
            x1=(3, 2) if a else (2, 3),
            x2=(4, 3) if b else (3, 4),
            x3=(4,),
        )
        for a in (0, 1)
        for b in (0, 1)
    ),
    *(
        row("Gemm <beta = 0.5> (a, b, x)", f"c of shape {shape}", a=(2, 3), b=(3, 4), x=shape, fixed=True)
        for shape in ((2, 4), (2, 1), (1, 4), (4,), (1,), ())
    ),
    row("MatMul (x, b)", "matrix", x=(2, 3), b=(3, 4)),
    row("MatMul (a, x)", "matrix on the right", x=(2, 3, 4), a=(5, 3)),
    row("MatMul (x, b)", "stack by matrix", b=(5, 2)),
    row("MatMul (x, x)", "a square", x=(2, 3, 4, 4)),
    row("MatMul (x1, x2)", "stacks", x1=(2, 3, 4), x2=(2, 4, 5)),
    row("MatMul (x1, x2)", "stacks stretched", x1=(2, 1, 3, 4), x2=(3, 4, 2)),
    row("MatMul (x1, x2)", "stack by matrix, both sides", x1=(2, 3, 4), x2=(4, 5)),
    row("MatMul (x1, x2)", "matrix by stack, both sides", x1=(3, 4), x2=(2, 4, 5)),
    row("MatMul (x1, x2)", "vector by vector", x1=(4,), x2=(4,)),
    row("MatMul (x1, x2)", "vector by matrix", x1=(4,), x2=(4, 3)),
    row("MatMul (x1, x2)", "vector by stack", x1=(4,), x2=(2, 5, 4, 3)),
    row("MatMul (x1, x2)", "matrix by vector", x1=(3, 4), x2=(4,)),
    row("MatMul (x1, x2)", "stack by vector", x1=(2, 5, 3, 4), x2=(4,)),
    # --- pooling --------------------------------------------------------------------------------------------------------
    *(
        row(f"{operator} (x)", f"{len(shape) - 2}-D", x=shape)
        for operator in ("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
        for shape in ((2, 3, 4), X, (2, 2, 2, 3, 2))
    ),
    *(row(f"GlobalLpPool <p = {p}> (x)", f"p = {p}") for p in (1, 3)),
    *(
        row(f"{operator} <{extra}{attributes}> (x)", f"{extra}{about}, opset {opset}", x=(1, 2, 6, 7), opset=opset)
        for operator, extra, opset in POOLS
        for about, attributes in WINDOWS.items()
        if operator == "MaxPool" or opset >= 18 or "dilations" not in attributes
        if operator != "LpPool" or opset >= 18 or "ceil" not in attributes
    ),
    *(row(f"{pool} <{CEIL_BEHIND}> (x)", "ceil, none behind the image", x=(1, 2, 6, 7), opset=22) for pool, _, _ in POOLS[::3]),
    *(row(f"{pool} <kernel_shape = [2], strides = [2]> (x)", "1-D", x=(2, 3, 5)) for pool, _, _ in POOLS[::3]),
    *(
        row(f"{pool} <kernel_shape = [2, 2, 1], strides = [1, 2, 1]> (x)", "3-D", x=(2, 2, 3, 4, 2))
        for pool in ("MaxPool", "AveragePool")
    ),
    row("y, i = MaxPool <kernel_shape = [2, 2]> (x)", "indices asked for"),
    # --- reductions -----------------------------------------------------------------------------------------------------
    *(
        row(f"{operator} <{attributes}{f', axes = {axes}' * bool(axes)}> (x)", f"{about}, opset 13", opset=13, fixed=fixed)
        for operator in REDUCTIONS
        if operator != "ReduceSum"
        for about, (attributes, axes, fixed) in REDUCED.items()
    ),
    *(
        row(f"{operator} <{attributes}> (x, a)", f"{about}, opset {opset}", a=np.int64(axes or []), opset=opset, fixed=fixed)
        for operator in REDUCTIONS
        for opset in ((13, 18) if operator == "ReduceSum" else (18,))
        for about, (attributes, axes, fixed) in (REDUCED | {"nothing": ("noop_with_empty_axes = 1", None, False)}).items()
    ),
    row("ReduceSum (x)", "default", fixed=True),
    row("ReduceMax (x)", "default, opset 20", opset=20, fixed=True),
    row("ReduceL2 <noop_with_empty_axes = 1> (x)", "nothing, no axes", opset=18),
    # --- normalisation --------------------------------------------------------------------------------------------------
    row("BatchNormalization (x, s, b, m, v)", "2-D", **normalised(3)),
    row("BatchNormalization <epsilon = 0.1> (x, s, b, m, v)", "epsilon", **normalised(3)),
    row("BatchNormalization (x, s, b, m, v)", "after a linear layer", x=(2, 3), **normalised(3)),
    row("BatchNormalization (x, s, b, m, v)", "1-D, opset 13", x=(2, 3, 4), opset=13, **normalised(3)),
    row("InstanceNormalization (x, s, b)", "2-D", s=(3,), b=(3,)),
    row("InstanceNormalization <epsilon = 0.1> (x, s, b)", "1-D, epsilon", x=(2, 3, 4), s=(3,), b=(3,)),
    row("GroupNormalization <num_groups = 2> (x, s, b)", "scale per group", x=(2, 4, 2, 3), s=(2,), b=(2,), opset=18),
    row("GroupNormalization <num_groups = 2> (x, s, b)", "scale per channel", x=(2, 4, 2, 3), s=(4,), b=(4,), opset=21),
    row("GroupNormalization <num_groups = 1, epsilon = 0.1> (x, s, b)", "one group", x=(2, 4, 3), s=(4,), b=(4,), opset=21),
    row("GroupNormalization <num_groups = 4> (x, s, b)", "a group per channel", x=(2, 4, 2, 3), s=(4,), b=(4,), opset=21),
    row("LayerNormalization (x, s, b)", "last axis", s=(5,), b=(5,)),
    row("LayerNormalization (x, s)", "no bias", s=(5,)),
    row("LayerNormalization <axis = 1> (x, s, b)", "three axes", s=(3, 4, 5), b=(3, 4, 5)),
    row("LayerNormalization <axis = -2, epsilon = 0.1> (x, s)", "two axes, epsilon", s=(4, 5)),
    row("LayerNormalization <axis = -2> (x, s)", "scale stretched", s=(5,)),
    *(
        row(f"LRN <size = {n}, alpha = 0.3, beta = 0.6, bias = 1.5> (x)", f"size {n}", x=(2, 6, 2, 3), runs=n % 2 == 1)
        for n in (1, 2, 3, 4, 9)
    ),
    row("LRN <size = 3> (x)", "default", x=8 * positive(2, 4, 2, 2)),
]

# --- where the slope is a convention, or a careless formula overflows -----------------------------------------------------
ENDS = [[-1e4, -100, -3, -1, -0.0, 0, 1, 3, 6, 100, 1e4]]
BITS = {"x1": [1, 1, 1, 0], "x2": [1, 0, 1, 0], "x3": [1, 1, 0, 0]}
TIES = [[1, 1, 0, 2, 2, 2], [0, 0, 0, -1, -1, -2]]
LEVELS = [np.arange(-80, 80, 0.1)]


def power(exponents: list[float]) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda x: torch.pow(x, torch.tensor(exponents, dtype=x.dtype))


KINKS = [
    (row("Abs (x)", x=ENDS), torch.abs),
    (row("Sqrt (x)", x=[[0.0, 1]]), torch.sqrt),
    (row("Erf (x)", x=ENDS), torch.erf),
    (row("Pow (x, c)", "base 0", x=[[0.0, 0, 0, 0, 0]], c=[0.0, 0.5, 1, 2, 3]), power([0, 0.5, 1, 2, 3])),
    (row("Pow (c, x)", "to powers of 0", c=0.0, x=[[0.0, 0.5, 1, 2]]), lambda x: torch.pow(torch.zeros((), dtype=x.dtype), x)),
    (row("Max (x1, x2, x3)", **BITS), lambda *xs: torch.stack(xs).amax(0)),
    (row("Max (x, c)", x=ENDS, c=0.0), lambda x: torch.maximum(x, torch.zeros((), dtype=x.dtype))),
    (row("Min (x1, x2, x3)", **BITS), lambda *xs: torch.stack(xs).amin(0)),
    (row("Min (x, c)", x=ENDS, c=6.0), lambda x: torch.minimum(x, torch.full((), 6.0, dtype=x.dtype))),
    (row("Relu (x)", x=ENDS), F.relu),
    (row("Clip (x, a, b)", "hardtanh", x=ENDS, a=-1.0, b=1.0), F.hardtanh),
    (row("Clip (x, a, b)", "relu6", x=ENDS, a=0.0, b=6.0), F.relu6),
    (row("LeakyRelu (x)", x=ENDS), F.leaky_relu),
    (row("PRelu (x1, x2)", x1=ENDS, x2=[0.3]), F.prelu),
    (row("ThresholdedRelu (x)", x=ENDS), lambda x: F.threshold(x, 1, 0)),
    (row("Elu <alpha = 0.7> (x)", x=ENDS), lambda x: F.elu(x, 0.7)),
    (row("Selu (x)", x=ENDS), F.selu),
    (row("Celu <alpha = 2.0> (x)", x=ENDS), lambda x: F.celu(x, 2)),
    (row("Sigmoid (x)", x=ENDS), torch.sigmoid),
    (row("HardSigmoid <alpha = 0.16666667, beta = 0.5> (x)", x=ENDS), F.hardsigmoid),
    (row("HardSwish (x)", x=ENDS), F.hardswish),
    (row("Tanh (x)", x=ENDS), torch.tanh),
    (row("Softplus (x)", x=ENDS), F.softplus),
    (row("Softsign (x)", x=ENDS), F.softsign),
    (row("Mish (x)", x=ENDS, opset=18), F.mish),
    (row("Gelu (x)", x=ENDS, opset=20), F.gelu),
    (row('Gelu <approximate = "tanh"> (x)', "tanh", x=ENDS, opset=20), lambda x: F.gelu(x, approximate="tanh")),
    (row("Softmax (x)", x=ENDS), lambda x: x.softmax(-1)),
    (row("LogSoftmax (x)", x=ENDS), lambda x: x.log_softmax(-1)),
    (row("ReduceLogSumExp (x, a)", x=ENDS, a=[1], opset=18), lambda x: x.logsumexp(1, keepdim=True)),
    (row("ReduceMax (x, a)", x=TIES, a=[1], opset=18), lambda x: x.amax(1)),
    (row("ReduceMin (x, a)", x=TIES, a=[1], opset=18), lambda x: x.amin(1)),
    (row("ReduceL1 (x, a)", x=TIES, a=[1], opset=18), lambda x: x.abs().sum(1)),
    (row("ReduceL2 (x, a)", x=[[0.0, 0], [3, 4]], a=[1], opset=18), lambda x: torch.linalg.vector_norm(x, dim=1)),
    (row("GlobalMaxPool (x)", x=[TIES]), lambda x: F.adaptive_max_pool1d(x, 1)),
    (row("GlobalLpPool (x)", x=[[[0.0, 0], [3, 4]]]), lambda x: torch.linalg.vector_norm(x, dim=2)),
    (row("MaxPool <kernel_shape = [3], strides = [1], pads = [1, 1]> (x)", x=[TIES]), lambda x: F.max_pool1d(x, 3, 1, 1)),
    (row("LpPool <kernel_shape = [2], strides = [2]> (x)", x=[[[0.0, 0, 3, 4]]]), lambda x: x.unfold(2, 2, 2).norm(dim=-1)),
    (row("t = Cast <to = 10> (x)  y = CastLike (t, x)", "to half", x=ENDS), lambda x: x.half().to(x.dtype)),
]


def quantised(text: str, about: str, function: Callable, **tensors: object) -> tuple[Case, Callable]:
    """Return a case that ends in the tensor d; y behind it is no rounded logit, which would keep its gradient where clipped."""
    return row(f"{text}  y = Neg (d)", about, **tensors), lambda x: -function(x)


def fake(scale: float, zero: int, low: int, high: int) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda x: torch.fake_quantize_per_tensor_affine(x, scale, zero, low, high)


def fake_per_channel(x: torch.Tensor) -> torch.Tensor:
    scales, zeros = torch.tensor([0.25, 0.5, 0.125]), torch.tensor([0, 5, -7], dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(x, scales, zeros, 1, -128, 127)


QUANTISE, BOTH = "q = QuantizeLinear (x, s, z)", "q = QuantizeLinear (x, s, z)  d = DequantizeLinear (q, s, z)"
PER_CHANNEL = {"x": 30 * normal(X), "s": [0.25, 0.5, 0.125], "z": np.int8([0, 5, -7])}
QUANTISED = [  # in float32 only: ONNX quantises no float64
    quantised(BOTH, "int8", fake(0.25, 3, -128, 127), x=LEVELS, s=0.25, z=np.int8(3)),
    quantised(BOTH, "uint8", fake(0.25, 100, 0, 255), x=LEVELS, s=[0.25], z=np.uint8([100])),
    quantised(BOTH, "int16", fake(1e-3, 9, -(2**15), 2**15 - 1), x=LEVELS, s=1e-3, z=np.int16(9), opset=21),
    quantised("q = QuantizeLinear (x, s)  d = DequantizeLinear (q, s)", "bare", fake(0.25, 0, 0, 255), x=LEVELS, s=0.25),
    quantised(BOTH, "per channel", fake_per_channel, **PER_CHANNEL),
    quantised(
        "q = QuantizeLinear <axis = -3> (x, s, z)  d = DequantizeLinear <axis = -3> (q, s, z)",
        "per channel, negative axis",
        fake_per_channel,
        of="DequantizeLinear",
        **PER_CHANNEL,
    ),
    quantised(
        f"{QUANTISE}  p = MaxPool <kernel_shape = [2, 2]> (q)  d = DequantizeLinear (p, s, z)",
        "pooled between",
        lambda x: F.max_pool2d(fake(0.25, 0, -128, 127)(x), 2, 1),
        s=0.25,
        z=np.int8(0),
    ),
    quantised(
        f"{QUANTISE}  t = Cast <to = 6> (q)  r = CastLike (t, x)  d = Mul (r, s)",
        "dequantised by a cast",
        fake(0.25, 0, -128, 127),
        x=LEVELS,
        s=0.25,
        z=np.int8(0),
    ),
]

# --- what would be wrong, or cannot be said, is refused ----------------------------------------------------------------------
REFUSED = [
    (row("Conv (c, x)", "weights", c=X, x=(2, 3, 2, 2), fixed=True), "no gradient rule for its input 'x'"),
    (row("Conv (c, w, x)", "bias", c=X, w=(2, 3, 1, 1), x=(2,)), "no gradient rule for its input 'x'"),
    (row("ConvTranspose (c, x)", "weights", c=X, x=(3, 2, 2, 2), fixed=True), "no gradient rule for its input 'x'"),
    (row("Clip (c, x)", "bound", c=X, x=()), "no gradient rule for its input 'x'"),
    (row("Pad (c, p, x)", "value", c=(2, 3), p=[0, 1, 0, 1], x=()), "no gradient rule for its input 'x'"),
    (row("LayerNormalization (c, x)", "scale", c=X, x=(5,)), "no gradient rule for its input 'x'"),
    (row("InstanceNormalization (c, x, b)", "scale", c=X, x=(3,), b=(3,)), "no gradient rule for its input 'x'"),
    (row("Dropout (x, r, t)", "training", r=0.5, t=np.array(True)), "training_mode"),
    (row("y, n, w = BatchNormalization <training_mode = 1> (x, s, b, m, v)", "training", **normalised(3)), "training_mode 1"),
    (row("Add (x, c)", "batch of the constant", c=X), "depends on the number of images"),
    (row("Concat <axis = 0> (x, c)", "batch", c=X), "the length of axis 0 of 'x' is not fixed"),
    (row("Slice (x, a, b)", "batch", a=[0], b=[1]), "the length of axis 0 of 'x' is not fixed"),
    (row("Gather (x, i)", "batch", i=[0]), "the length of axis 0 of 'x' is not fixed"),
    (row("Tile (x, c)", "batch", c=[2, 1, 1, 1]), "the length of axis 0 of 'x' is not fixed"),
    (row("ReduceMean (x)", "batch"), "the length of axis 0 of 'x' is not fixed"),
    (row("i = ArgMax <axis = 3> (x)  y = Gather (x, i)", "chosen", of="Gather"), "its input 'i' is not constant"),
    (
        row(
            "n = GroupNormalization <num_groups = 1> (x, s, s)  y = GlobalAveragePool (n)",
            "behind an operator without shapes",
            of="GlobalAveragePool",
            s=(1,),
            opset=18,
        ),
        "the shape of 'n' is unknown",
    ),
    (row("t = Cast <to = 17> (x)  y = CastLike (t, x)", "from float8", of="CastLike", opset=19), "neither real nor whole"),
    (row("QuantizeLinear <output_dtype = 17> (x, s)", "float8", s=0.5, opset=21), "quantisation to another type"),
    (row("QuantizeLinear <axis = 1, block_size = 3> (x, s)", "blocks", x=(2, 6), s=positive(2, 2), opset=21), "blocked"),
    (row('Pad <mode = "reflect"> (x, p)', "negative", p=[0, 0, 0, -1, 0, 0, 0, 1]), "negative pads in mode reflect"),
    (row("MaxPool <kernel_shape = [2, 2], storage_order = 1> (x)", "columns first"), "storage_order 1"),
    *(
        (row(f"{pool} <{CEIL_BEHIND}> (x)", "ceil", x=(1, 2, 6, 7), opset=18), "last window behind the image")
        for pool, *_ in POOLS[::3]
    ),
    (row("Resize (x, , s)", "1-D", x=(2, 3, 4), s=np.float32([1, 1, 2])), "only the height and width"),
    (row("Resize (x, , s)", "channels", s=np.float32([1, 2, 2, 2])), "only the height and width"),
    (
        row(
            f'Resize <{RESIZE} = "tf_crop_and_resize"> (x, r, s)',
            "crop",
            r=np.float32([0, 0, 0, 0, 1, 1, 1, 1]),
            s=scales(2, 2),
        ),
        "tf_crop_and_resize",
    ),
    (
        row('Resize <axes = [2, 3], keep_aspect_ratio_policy = "not_larger"> (x, , , n)', "policy", n=[7, 7], opset=18),
        "keep_aspect_ratio_policy",
    ),
]


# --- the tests --------------------------------------------------------------------------------------------------------------
def test_every_rule_has_a_case():
    assert {case.operator for case in (*CASES, *(case for case, _ in QUANTISED))} == set(RULES)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_gradient_is_the_adjoint_of_the_directional_derivative(case):
    u, v = normal(case.logits("float64").shape, case.about), normal(case.features.shape, case.operator)
    ahead, behind = (np.sum(u * case.logits("float64", case.features + step * v)) for step in (STEP, -STEP))
    tolerance = 1e-5 if case.operator == "Resize" else 1e-7  # its weights are float32
    assert np.sum(v * case.gradients("float64", u)) == pytest.approx(
        (ahead - behind) / (2 * STEP), rel=tolerance, abs=tolerance
    )


def assert_equal(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("case", [case for case in CASES if case.runs], ids=str)
def test_onnx_runtime_computes_what_the_judge_does(case):
    logits = case.logits("float64")
    u = normal(logits.shape, "u")
    assert_equal(case.logits("float32"), logits)
    assert_equal(case.gradients("float32", u), case.gradients("float64", u))


@pytest.mark.parametrize("case", [case for case in CASES if not case.runs], ids=str)
def test_what_the_judge_alone_has_seen_onnx_runtime_refuses(case):
    with pytest.raises((runtime.InvalidArgument, runtime.Fail)):
        case.logits("float32")


@pytest.mark.parametrize(
    ("case", "function", "dtype"),
    [
        pytest.param(case, function, dtype, id=f"{case}, {dtype}")
        for dtype, table in (("float64", KINKS), ("float32", KINKS + QUANTISED))
        for case, function in table
    ],
)
def test_at_kinks_far_out_and_through_quantisation_a_gradient_is_pytorchs(case, function, dtype):
    leaf = torch.tensor(case.features, dtype=getattr(torch, dtype), requires_grad=True)
    ends = np.cumsum([x.size for x in case.xs.values()])[:-1].tolist()
    parts = torch.tensor_split(leaf.flatten(), ends)
    y = function(*(part.reshape(x.shape) for part, x in zip(parts, case.xs.values(), strict=True)))
    logits = case.logits(dtype)
    u = normal(logits.shape, "u").astype(dtype)
    (expected,) = torch.autograd.grad(y, leaf, torch.from_numpy(u).reshape(y.shape))
    np.testing.assert_allclose(logits.ravel(), y.detach().ravel(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(case.gradients(dtype, u), expected, rtol=1e-5, atol=1e-6, equal_nan=False)


@pytest.mark.parametrize(("case", "message"), REFUSED, ids=[str(case) for case, _ in REFUSED])
def test_what_has_no_rule_is_refused_by_name(case, message):
    with pytest.raises(NoGradient, match=rf"{case.operator} '\w'.*{re.escape(message)}"):
        case.derived("float32", classes=1)
