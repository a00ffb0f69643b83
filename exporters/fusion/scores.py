"""What logits say of the classes, as a graph: probabilities and log-odds, as `camrt.case` has them."""

from __future__ import annotations

import numpy as np

from exporters.emitter import Emitter

LEAST, MOST = np.finfo(np.float32).tiny, 1 - np.finfo(np.float32).epsneg  # probabilities whose log-odds are finite


def probabilities(op: Emitter, logits: str, kind: str) -> str:
    """Return p of logits (…, L): softmax, sigmoid, or the values themselves, as the bundle's output kind says."""
    if kind == "logits":
        return op.Softmax(logits, axis=-1)
    if kind != "sigmoid":
        return logits
    one = op.number(1)  # ONNX Runtime's Sigmoid is off by 1e-7, which is all of a small p
    small = op.Exp(op.Neg(op.Abs(logits)))
    return op.Div(op.Where(op.GreaterOrEqual(logits, op.number(0)), one, small), op.Add(one, small))


def log_odds(op: Emitter, logits: str, kind: str, numbers: str, classes: int) -> str:
    """Return log p / (1 − p) of logits (…, L), `numbers` being 0 … L − 1; of what is no probability, the values themselves."""
    if kind == "logits" and classes == 1:  # whose p is always 1
        return op.ConstantOfShape(op.Shape(logits))
    if kind == "logits":
        return _against_the_others(op, logits, numbers)
    if kind != "probabilities":
        return logits
    p = op.Where(op.Less(logits, op.number(LEAST)), op.number(LEAST), logits)  # Max does not promise to keep NaN
    p = op.Where(op.Greater(p, op.number(MOST)), op.number(MOST), p)
    return op.Sub(op.Log(p), op.Log(op.Sub(op.number(1), p)))


def _against_the_others(op: Emitter, logits: str, numbers: str) -> str:
    """Return z_c − log Σ_j≠c exp z_j, which 1 − p would lose where p is next to 1.

    Against the highest stand all others, in units of the second; against another the highest, and of the others what is left.
    """
    best = op.ArgMax(logits, axis=-1, keepdims=1)
    highest = op.GatherElements(logits, best, axis=-1)  # NaN where that is the highest, as ReduceMax does not promise
    is_best = op.Equal(best, numbers)
    others = op.Where(is_best, op.number(-np.inf), logits)
    second = op.reduce("ReduceMax", others, -1)
    parts = op.Exp(op.Sub(others, second))
    rest = op.reduce("ReduceSum", parts, -1)
    left = op.Mul(op.Sub(rest, parts), op.Exp(op.Sub(second, highest)))
    against = op.Add(highest, op.Log(op.Add(op.number(1), left)))
    return op.Sub(logits, op.Where(is_best, op.Add(second, op.Log(rest)), against))
