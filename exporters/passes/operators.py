"""Refuse by name what no bundle can hold: custom operators, and those that answer differently every time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import NodeProto, numpy_helper

from camrt.errors import ExportError
from exporters.graph import STANDARD, Graph, attribute, describe, subgraphs

if TYPE_CHECKING:
    from exporters.passes import Normal

KNOWN = (*STANDARD, "ai.onnx.ml", "com.microsoft")  # the domains whose operators ONNX Runtime brings
LAYOUTS = ("com.microsoft.nchwc", "com.ms.internal.nhwc")  # that ONNX Runtime writes for the machine it runs on
RANDOM = ("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike")


def check_operators(normal: Normal) -> None:
    """Refuse custom operators, random ones, and those left in training mode, in branches and loops too."""
    graph = normal.graph()
    for node in graph.nodes:
        _check(node, graph)


def _check(node: NodeProto, graph: Graph) -> None:
    if node.domain in LAYOUTS:
        raise ExportError(
            f"{describe(node)} is of domain {node.domain!r}: this file was optimised by ONNX Runtime for one kind of machine. "
            "Give the model from before that, or save it with graph optimisation level basic."
        )
    if node.domain not in KNOWN:
        raise ExportError(
            f"{describe(node)} is a custom operator of domain {node.domain!r}; it would need its library wherever the "
            "bundle runs. Export the model with standard operators."
        )
    if node.domain in STANDARD and not onnx.defs.has(node.op_type):
        raise ExportError(
            f"{describe(node)} is no operator of ONNX {onnx.__version__}: the converter left behind what it could not convert, "
            "or the model is newer than this installation. Leave that layer out of the model, or update onnx."
        )
    if node.op_type in RANDOM:
        raise ExportError(
            f"{describe(node)} is random, so that no cut can be proved to reproduce the model. Export it in evaluation mode."
        )
    if _trains(node, graph):
        raise ExportError(
            f"{describe(node)} is in training mode and answers differently every time, or by the other images of the batch. "
            "Export the model in evaluation mode (in PyTorch model.eval() before torch.onnx.export)."
        )
    for body in subgraphs(node):
        for inner in body.node:
            _check(inner, graph)


def _trains(node: NodeProto, graph: Graph) -> bool:
    """Tell whether Dropout drops, or BatchNormalization takes the statistics of the batch."""
    if node.op_type == "BatchNormalization":
        return bool(attribute(node, "training_mode", 0)) or len(list(filter(None, node.output))) > 1  # before opset 14
    if node.op_type != "Dropout" or len(node.input) < 3 or not node.input[2]:
        return False
    mode = graph.initializers.get(node.input[2])
    return mode is None or bool(np.any(numpy_helper.to_array(mode)))
