"""Emit nodes as expressions: `op.Mul(a, b)` adds a node and returns the name of its output."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper


class Emitter:
    """Collects nodes and constants whose names start with `prefix`.

    Attributes
    ----------
    dtype : str or dtype
        Of the constants that `number` makes.
    """

    def __init__(self, prefix: str, dtype: Any = "float32"):
        self.prefix = prefix
        self.dtype = dtype
        self.nodes: list[NodeProto] = []
        self._constants: dict[tuple[Any, ...], TensorProto] = {}

    @property
    def initializers(self) -> list[TensorProto]:
        return list(self._constants.values())

    def __getattr__(self, operator: str) -> Callable[..., str]:
        if not operator[0].isupper():
            raise AttributeError(operator)

        def emit(*inputs: str, **attributes: Any) -> str:
            return self.several(operator, 1, *inputs, **attributes)[0]

        return emit

    def several(self, operator: str, count: int, *inputs: str, **attributes: Any) -> list[str]:
        """Add a node and return the names of its first `count` outputs."""
        name = f"{self.prefix}/{operator}_{len(self.nodes)}"
        outputs = [name, *(f"{name}/{i}" for i in range(1, count))]
        self.nodes.append(helper.make_node(operator, inputs, outputs, name=name, **attributes))
        return outputs

    def constant(self, value: Any, dtype: Any = np.int64) -> str:
        """Return the name of a constant; the same value is stored once."""
        array = np.array(value, dtype)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            name = f"{self.prefix}/constant_{len(self._constants)}"
            self._constants[key] = numpy_helper.from_array(array, name)
        return self._constants[key].name

    def number(self, value: float) -> str:
        """Return the name of a scalar constant of the emitter's element type."""
        return self.constant(value, self.dtype)

    def name(self, old: str, new: str) -> None:
        """Give the tensor `old` of the last node its name in the interface."""
        assert self.nodes[-1].output[0] == old
        self.nodes[-1].output[0] = new
