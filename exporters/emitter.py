"""Emit nodes as expressions: `op.Mul(a, b)` adds a node and returns the name of its output."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper


class Emitter:
    """Collects nodes and constants whose names start with `prefix`."""

    def __init__(self, prefix: str):
        self.prefix = prefix
        self.nodes: list[NodeProto] = []
        self.initializers: list[TensorProto] = []

    def __getattr__(self, operator: str) -> Callable[..., str]:
        if not operator[0].isupper():
            raise AttributeError(operator)

        def emit(*inputs: str, **attributes: Any) -> str:
            output = f"{self.prefix}/{operator}_{len(self.nodes)}"
            self.nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
            return output

        return emit

    def constant(self, value: Any, dtype: Any = np.int64) -> str:
        """Return the name of a new constant."""
        name = f"{self.prefix}/constant_{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.array(value, dtype), name))
        return name

    def name(self, old: str, new: str) -> None:
        """Give the tensor `old` of the last node its name in the interface."""
        assert self.nodes[-1].output[0] == old
        self.nodes[-1].output[0] = new
