"""Emit nodes as expressions: `op.Mul(a, b)` adds a node and returns the name of its output."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper


class Emitter:
    """Collects nodes and constants whose names start with `prefix`.

    Attributes
    ----------
    dtype : str or dtype
        Of the constants that `number` makes.
    opset : int
        In which the nodes are written.
    told : list of ValueInfoProto
        Shapes of tensors that cannot be inferred; of use in a body.
    """

    def __init__(self, prefix: str, dtype: Any = "float32", opset: int = 13):
        self.prefix = prefix
        self.dtype = dtype
        self.opset = opset
        self.nodes: list[NodeProto] = []
        self.told: list[ValueInfoProto] = []
        self._constants: dict[tuple[Any, ...], TensorProto] = {}
        self._numbers = itertools.count()

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
        name = f"{self.prefix}/{operator}_{next(self._numbers)}"
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

    def reduce(self, operator: str, tensor: str, *axes: int, keepdims: bool = True) -> str:
        """Reduce over axes, which are an attribute up to opset 17 and an input from 18, for ReduceSum from 13."""
        if self.opset < 18 and operator != "ReduceSum":
            return self.several(operator, 1, tensor, axes=list(axes), keepdims=int(keepdims))[0]
        return self.several(operator, 1, tensor, self.constant(list(axes)), keepdims=int(keepdims))[0]

    def tell(self, tensor: str, *shape: int | str) -> str:
        """Tell the shape of a float32 tensor, a free dimension as text, and return the tensor."""
        self.told.append(helper.make_tensor_value_info(tensor, TensorProto.FLOAT, shape))
        return tensor

    # --- branches and loops ---------------------------------------------------------------------------------------------
    def branch(
        self, condition: str, dtypes: Sequence[int], then: Callable[[Emitter], list[str]], other: Callable[[Emitter], list[str]]
    ) -> list[str]:
        """Return what one of two branches emits.

        Parameters
        ----------
        condition : str
            A bool scalar.
        dtypes : sequence of int
            Element types of the results.
        then, other : callable
            Emitter of the branch → names of the results.
        """
        bodies = []
        for emit in (then, other):
            inner = self._inside()
            bodies.append(inner.body([], emit(inner), dtypes))
        return self.several("If", len(dtypes), condition, then_branch=bodies[0], else_branch=bodies[1])

    def loop(
        self,
        turns: str,
        state: Sequence[str],
        dtypes: Sequence[int],
        turn: Callable[[Emitter, str, list[str]], tuple[str | None, list[str]]],
    ) -> list[str]:
        """Return the state after the last turn.

        Parameters
        ----------
        turns : str
            An int64 scalar: how many at most.
        state : sequence of str
            What the first turn begins with; its shapes may change from turn to turn.
        dtypes : sequence of int
            Its element types.
        turn : callable
            Emitter of the body, number of the turn, state → whether to go on (a bool scalar, or None for always), and the
            new state.
        """
        inner = self._inside()
        number, go_on = (f"{inner.prefix}/{word}_{next(self._numbers)}" for word in ("turn", "go"))
        carried = [f"{inner.prefix}/state_{next(self._numbers)}" for _ in state]
        again, results = turn(inner, number, carried)
        inputs = [
            helper.make_tensor_value_info(number, TensorProto.INT64, []),
            helper.make_tensor_value_info(go_on, TensorProto.BOOL, []),
            *(_value(name, dtype) for name, dtype in zip(carried, dtypes, strict=True)),
        ]
        body = inner.body(inputs, [again or go_on, *results], [TensorProto.BOOL, *dtypes])
        return self.several("Loop", len(dtypes), turns, self.constant(True, "bool"), *state, body=body)

    def _inside(self) -> Emitter:
        """Return an emitter for the body of a node: nodes of its own, this one's constants and numbers."""
        inner = Emitter(self.prefix, self.dtype, self.opset)
        inner._constants, inner._numbers = self._constants, self._numbers
        return inner

    def body(self, inputs: list[Any], outputs: Sequence[str], dtypes: Sequence[int]) -> GraphProto:
        """Return the nodes as a body; what they did not write themselves passes through an Identity."""
        written = {name for node in self.nodes for name in node.output}
        names: list[str] = []
        for name in outputs:
            names.append(name if name in written and name not in names else self.Identity(name))
        values = [_value(name, dtype) for name, dtype in zip(names, dtypes, strict=True)]
        return helper.make_graph(self.nodes, self.prefix, inputs, values, value_info=self.told)

    def name(self, old: str, new: str) -> None:
        """Give the tensor `old` of the last node its name in the interface."""
        assert self.nodes[-1].output[0] == old
        self.nodes[-1].output[0] = new


def _value(name: str, dtype: int) -> Any:
    """Return an input or output of a body, of any shape."""
    return helper.make_tensor_value_info(name, dtype, None)
