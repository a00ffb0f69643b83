"""Networks of other makers, and a judge of their gradients: ONNX run in PyTorch, node by node, for torch.autograd.

The onnx package carries nine graphs without weights; here they get random ones.  Nothing of this uses camrt or exporters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from torch.nn import functional as F

FOLDER = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
LIGHT = (
    "bvlc_alexnet", "densenet121", "inception_v1", "inception_v2", "resnet50", "shufflenet", "squeezenet", "vgg19", "zfnet512",
)  # fmt: skip


# --- weights --------------------------------------------------------------------------------------------------------------
def light(name: str, seed: int = 0) -> ModelProto:
    """Return one of the nine graphs, its ConstantOfShape weights replaced by random ones, the same every time.

    Convolutions and linear layers are He-scaled; BatchNorm and its scale have positive numbers around 1.
    """
    model = onnx.load(FOLDER / f"light_{name}.onnx")
    graph = model.graph
    random = np.random.default_rng(seed)
    shapes = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    readers = {name: (node, i) for node in graph.node for i, name in enumerate(node.input)}
    kept = [node for node in graph.node if node.op_type != "ConstantOfShape"]
    for node in graph.node:
        if node.op_type == "ConstantOfShape":
            (weight,) = node.output
            value = _drawn(random, *_role(readers, weight), tuple(int(d) for d in shapes[node.input[0]]))
            graph.initializer.append(numpy_helper.from_array(value, weight))
            graph.input.append(helper.make_tensor_value_info(weight, TensorProto.FLOAT, value.shape))  # as IR version 3 wants
    del graph.node[:]
    graph.node.extend(kept)
    return model


def _role(readers: Mapping[str, tuple[NodeProto, int]], weight: str) -> tuple[str, int]:
    """Return the operator that a weight is for, and as which of its inputs."""
    node, position = readers[weight]
    return _role(readers, node.output[0]) if node.op_type == "Unsqueeze" else (node.op_type, position)


def _drawn(random: np.random.Generator, operator: str, position: int, shape: tuple[int, ...]) -> np.ndarray:
    """Return the values of a weight by its role."""
    match operator, position:
        case (("Conv" | "Gemm"), 1):
            return random.standard_normal(shape, np.float32) * np.float32((2 / prod(shape[1:])) ** 0.5)
        case ("BatchNormalization", 1 | 4) | ("Mul", _):
            return random.uniform(0.5, 1.5, shape).astype(np.float32)
        case _:
            return random.normal(0, 0.1, shape).astype(np.float32)


def logits_of(model: ModelProto) -> str:
    """Return the model's output, or what goes into the Softmax at its end."""
    writer = {name: node for node in model.graph.node for name in node.output}
    output = name = model.graph.output[0].name
    while name in writer and writer[name].op_type in ("Softmax", "Reshape", "Flatten"):
        if writer[name].op_type == "Softmax":
            return writer[name].input[0]
        name = writer[name].input[0]
    return output


# --- judge ----------------------------------------------------------------------------------------------------------------
Attributes = dict[str, Any]


def evaluate(
    model: ModelProto, tensor: str, x: torch.Tensor, output: str, known: Mapping[str, torch.Tensor] | None = None
) -> torch.Tensor:
    """Return what a graph computes for `output` when `tensor` is x, in x's precision and open to torch.autograd.

    Tensors of `known` are set to those values where they are computed; see `at`.
    """
    weights = {t.name: t for t in model.graph.initializer}
    values = {tensor: x}

    def value(name: str) -> torch.Tensor | None:
        if name in weights and name not in values:
            weight = torch.tensor(numpy_helper.to_array(weights[name]))
            values[name] = weight.to(x.dtype) if weight.is_floating_point() else weight
        return values.get(name)

    for node in model.graph.node:
        if output in values:
            break
        inputs = [value(name) for name in node.input]
        if node.output[0] not in values and all(v is not None for v, name in zip(inputs, node.input, strict=True) if name):
            attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
            y = OPERATORS[node.op_type](attributes, *inputs)
            values[node.output[0]] = at(y, known[node.output[0]]) if known and node.output[0] in known else y
    return values[output]


def at(x: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Return x, its numbers replaced by nearly equal ones, still with its gradient.

    Kinks make this necessary.  Among the millions of values that a network compares with 0 or with each other, a few are so
    close that float32 and float64 decide differently, and both are right; but one such decision can move a gradient by
    20 % of the largest (in zfnet512, where two cells of a MaxPool differ by 1e-6 of 52).  Deciding alike, they agree to 1e-6.
    """
    value = value.to(x.dtype)
    assert (value - x).abs().max() <= 1e-5 * x.abs().max()
    return x + (value - x).detach()


def _conv(a: Attributes, x: torch.Tensor, w: torch.Tensor, b: torch.Tensor | None = None) -> torch.Tensor:
    strides, dilations = a.get("strides", [1, 1]), a.get("dilations", [1, 1])
    return F.conv2d(_padded(a, x, 0), w, b, strides, 0, dilations, a.get("group", 1))


def _padded(a: Attributes, x: torch.Tensor, fill: float) -> torch.Tensor:
    """Pad as the attributes say, which give top, left, bottom, right."""
    assert a.get("auto_pad", b"NOTSET") == b"NOTSET"
    top, left, bottom, right = a.get("pads", [0, 0, 0, 0])
    return F.pad(x, (left, right, top, bottom), value=fill)


def _max_pool(a: Attributes, x: torch.Tensor) -> torch.Tensor:
    ceil = bool(a.get("ceil_mode", 0))
    assert not (ceil and any(a.get("pads", [0]))), "PyTorch would let a window start in the padding"
    strides, dilations = a.get("strides", [1, 1]), a.get("dilations", [1, 1])
    return F.max_pool2d(_padded(a, x, -torch.inf), a["kernel_shape"], strides, 0, dilations, ceil)


def _average_pool(a: Attributes, x: torch.Tensor) -> torch.Tensor:
    """Sums of the windows, over the number of cells or of those that are no padding."""
    assert not a.get("ceil_mode", 0)

    def sums(values: torch.Tensor) -> torch.Tensor:
        return F.avg_pool2d(values, a["kernel_shape"], a.get("strides", [1, 1]), divisor_override=1)

    whole = torch.ones_like(x[:1, :1])
    return sums(_padded(a, x, 0)) / sums(_padded(a, whole, float(a.get("count_include_pad", 0))))


def _lrn(a: Attributes, x: torch.Tensor) -> torch.Tensor:
    """x / (bias + alpha / size · Σ x² over the neighbouring channels)^beta"""
    size = a["size"]
    squares = F.pad(x**2, (0, 0, 0, 0, (size - 1) // 2, size // 2))
    sums = sum(squares[:, i : i + x.shape[1]] for i in range(size))
    return x / (a.get("bias", 1.0) + a.get("alpha", 1e-4) / size * sums) ** a.get("beta", 0.75)


def _gemm(a: Attributes, x: torch.Tensor, w: torch.Tensor, b: torch.Tensor | None = None) -> torch.Tensor:
    product = (x.T if a.get("transA", 0) else x) @ (w.T if a.get("transB", 0) else w)
    return a.get("alpha", 1.0) * product + (0 if b is None else a.get("beta", 1.0) * b)


def _batch_norm(
    a: Attributes, x: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor, mean: torch.Tensor, variance: torch.Tensor
) -> torch.Tensor:
    return F.batch_norm(x, mean, variance, scale, shift, eps=a.get("epsilon", 1e-5))


def _reshape(a: Attributes, x: torch.Tensor, shape: torch.Tensor) -> torch.Tensor:
    sizes = shape.tolist()
    return x.reshape(sizes if a.get("allowzero", 0) else [x.shape[i] if d == 0 else d for i, d in enumerate(sizes)])


def _unsqueeze(a: Attributes, x: torch.Tensor, axes: torch.Tensor | None = None) -> torch.Tensor:
    for axis in sorted(a["axes"] if axes is None else axes.tolist()):  # an attribute up to opset 12
        x = x.unsqueeze(axis)
    return x


def _mean(a: Attributes, x: torch.Tensor, axes: torch.Tensor | None = None) -> torch.Tensor:
    chosen = a["axes"] if axes is None else axes.tolist()  # an attribute up to opset 17
    return x.mean(chosen, keepdim=bool(a.get("keepdims", 1)))


OPERATORS: dict[str, Callable[..., torch.Tensor]] = {
    "Add": lambda a, x, y: x + y,
    "Mul": lambda a, x, y: x * y,
    "Sum": lambda a, *xs: sum(xs),
    "Relu": lambda a, x: F.relu(x),
    "Clip": lambda a, x, low, high: F.hardtanh(x, low.item(), high.item()),
    "Dropout": lambda a, x, *ratio: x,
    "Concat": lambda a, *xs: torch.cat(xs, a["axis"]),
    "Transpose": lambda a, x: x.permute(a["perm"]),
    "Flatten": lambda a, x: x.reshape(prod(x.shape[: a.get("axis", 1)]), -1),
    "Reshape": _reshape,
    "Unsqueeze": _unsqueeze,
    "Gemm": _gemm,
    "Conv": _conv,
    "BatchNormalization": _batch_norm,
    "LRN": _lrn,
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "GlobalAveragePool": lambda a, x: x.mean((2, 3), keepdim=True),
    "ReduceMean": _mean,
}
