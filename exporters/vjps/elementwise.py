"""Elementwise operators: every line can be checked against a table of derivatives.

At kinks the slopes are PyTorch's: 0 for Relu and Abs at 0, 0 for Clip at both bounds, equal shares for ties of Max and Min.
"""

from __future__ import annotations

import math

from exporters.emitter import Emitter
from exporters.vjps.rule import Forward, Gradients, vjp


# --- arithmetic -----------------------------------------------------------------------------------------------------------
@vjp("Add", broadcasts=True)
def add(op: Emitter, node: Forward, g: str) -> Gradients:
    """da = g, db = g"""
    return [g, g]


@vjp("Sub", broadcasts=True)
def sub(op: Emitter, node: Forward, g: str) -> Gradients:
    """da = g, db = −g"""
    return [g, op.Neg(g)]


@vjp("Mul", broadcasts=True)
def mul(op: Emitter, node: Forward, g: str) -> Gradients:
    """da = g · b, db = g · a"""
    a, b = node.inputs
    return [op.Mul(g, b), op.Mul(g, a)]


@vjp("Div", broadcasts=True)
def div(op: Emitter, node: Forward, g: str) -> Gradients:
    """da = g / b, db = −g · y / b"""
    b = node.inputs[1]
    return [op.Div(g, b), op.Neg(op.Div(op.Mul(g, node.y), b))]


@vjp("Pow", broadcasts=True)
def power(op: Emitter, node: Forward, g: str) -> Gradients:
    """da = g · b · a^(b−1), 0 where b = 0;  db = g · y · ln a, 0 where a = 0 and b ≥ 0"""
    a, b = node.inputs
    zero = op.number(0)
    real = b if node.element_type(b) == node.element_type(a) else op.CastLike(b, a)
    slope = op.Mul(real, op.Pow(a, op.Sub(real, op.number(1))))
    da = op.Mul(g, op.Where(op.Equal(real, zero), zero, slope))
    flat = op.And(op.Equal(a, zero), op.GreaterOrEqual(real, zero))
    return [da, op.Mul(g, op.Where(flat, zero, op.Mul(node.y, op.Log(a))))]


@vjp("Sum", broadcasts=True)
def total(op: Emitter, node: Forward, g: str) -> Gradients:
    """dxᵢ = g"""
    return [g for _ in node.inputs]


@vjp("Mean", broadcasts=True)
def mean(op: Emitter, node: Forward, g: str) -> Gradients:
    """dxᵢ = g / n"""
    share = op.Div(g, op.number(len(node.inputs)))
    return [share for _ in node.inputs]


@vjp("Max", "Min", broadcasts=True)
def extreme(op: Emitter, node: Forward, g: str) -> Gradients:
    """dxᵢ = g / (number of inputs that reach y) where xᵢ = y, else 0"""
    reached = [op.CastLike(op.Equal(x, node.y), g) for x in node.inputs]
    share = op.Div(g, op.Sum(*reached))
    return [op.Mul(share, one) for one in reached]


@vjp("Where", broadcasts=True)
def where(op: Emitter, node: Forward, g: str) -> Gradients:
    """da = g where the condition holds, db = g where it does not"""
    condition, zero = node.inputs[0], op.number(0)
    return [None, op.Where(condition, g, zero), op.Where(condition, zero, g)]


# --- simple functions -----------------------------------------------------------------------------------------------------
@vjp("Neg")
def neg(op: Emitter, node: Forward, g: str) -> Gradients:
    """dx = −g"""
    return [op.Neg(g)]


@vjp("Abs")
def absolute(op: Emitter, node: Forward, g: str) -> Gradients:
    """dx = g · sign x"""
    return [op.Mul(g, op.Sign(node.x))]


@vjp("Exp")
def exp(op: Emitter, node: Forward, g: str) -> Gradients:
    """dx = g · y"""
    return [op.Mul(g, node.y)]


@vjp("Log")
def log(op: Emitter, node: Forward, g: str) -> Gradients:
    """dx = g / x"""
    return [op.Div(g, node.x)]


@vjp("Sqrt")
def sqrt(op: Emitter, node: Forward, g: str) -> Gradients:
    """dx = g / (2 y)"""
    return [op.Div(g, op.Mul(op.number(2), node.y))]


@vjp("Reciprocal")
def reciprocal(op: Emitter, node: Forward, g: str) -> Gradients:
    """dx = −g · y²"""
    return [op.Neg(op.Mul(g, op.Mul(node.y, node.y)))]


@vjp("Sin")
def sin(op: Emitter, node: Forward, g: str) -> Gradients:
    """dx = g · cos x"""
    return [op.Mul(g, op.Cos(node.x))]


@vjp("Cos")
def cos(op: Emitter, node: Forward, g: str) -> Gradients:
    """dx = −g · sin x"""
    return [op.Neg(op.Mul(g, op.Sin(node.x)))]


@vjp("Erf")
def erf(op: Emitter, node: Forward, g: str) -> Gradients:
    """dx = g · 2/√π · exp(−x²)"""
    bell = op.Exp(op.Neg(op.Mul(node.x, node.x)))
    return [op.Mul(g, op.Mul(op.number(2 / math.sqrt(math.pi)), bell))]


# --- activations ----------------------------------------------------------------------------------------------------------
@vjp("Relu")
def relu(op: Emitter, node: Forward, g: str) -> Gradients:
    """dx = g where y > 0, else 0"""
    zero = op.number(0)
    return [op.Where(op.Greater(node.y, zero), g, zero)]


@vjp("Clip")
def clip(op: Emitter, node: Forward, g: str) -> Gradients:
    """dx = g where low < x < high, else 0 (PyTorch's hardtanh and relu6)"""
    low, high = node.given(1), node.given(2)
    inside = [op.Greater(node.x, low)] * bool(low) + [op.Less(node.x, high)] * bool(high)
    if not inside:
        return node.only(g)
    both = op.And(*inside) if len(inside) == 2 else inside[0]
    return node.only(op.Where(both, g, op.number(0)))


@vjp("LeakyRelu")
def leaky_relu(op: Emitter, node: Forward, g: str) -> Gradients:
    """dx = g where x > 0, else α g"""
    alpha = op.number(node.number("alpha", 0.01))
    return [op.Where(op.Greater(node.x, op.number(0)), g, op.Mul(alpha, g))]


@vjp("PRelu", broadcasts=True)
def prelu(op: Emitter, node: Forward, g: str) -> Gradients:
    """dx = g where x > 0, else slope · g;  dslope = 0 where x > 0, else x · g"""
    x, slope = node.inputs
    zero = op.number(0)
    positive = op.Greater(x, zero)
    return [op.Where(positive, g, op.Mul(slope, g)), op.Where(positive, zero, op.Mul(x, g))]


@vjp("ThresholdedRelu")
def thresholded_relu(op: Emitter, node: Forward, g: str) -> Gradients:
    """dx = g where x > α, else 0"""
    return [op.Where(op.Greater(node.x, op.number(node.number("alpha", 1.0))), g, op.number(0))]


@vjp("Elu")
def elu(op: Emitter, node: Forward, g: str) -> Gradients:
    """dx = g where x > 0, else g · α eˣ"""
    alpha = op.number(node.number("alpha", 1.0))
    return [op.Where(op.Greater(node.x, op.number(0)), g, op.Mul(g, op.Mul(alpha, op.Exp(node.x))))]


@vjp("Selu")
def selu(op: Emitter, node: Forward, g: str) -> Gradients:
    """dx = g · γ where x > 0, else g · γ α eˣ"""
    alpha = op.number(node.number("alpha", 1.67326319217681884765625))
    scaled = op.Mul(g, op.number(node.number("gamma", 1.05070102214813232421875)))
    return [op.Where(op.Greater(node.x, op.number(0)), scaled, op.Mul(scaled, op.Mul(alpha, op.Exp(node.x))))]


@vjp("Celu")
def celu(op: Emitter, node: Forward, g: str) -> Gradients:
    """dx = g where x > 0, else g · exp(x/α)"""
    bent = op.Exp(op.Div(node.x, op.number(node.number("alpha", 1.0))))
    return [op.Where(op.Greater(node.x, op.number(0)), g, op.Mul(g, bent))]


@vjp("Sigmoid")
def sigmoid(op: Emitter, node: Forward, g: str) -> Gradients:
    """dx = g · y (1 − y)"""
    return [op.Mul(g, op.Mul(node.y, op.Sub(op.number(1), node.y)))]


@vjp("HardSigmoid")
def hard_sigmoid(op: Emitter, node: Forward, g: str) -> Gradients:
    """dx = α g where 0 < y < 1, else 0"""
    zero = op.number(0)
    inside = op.And(op.Greater(node.y, zero), op.Less(node.y, op.number(1)))
    return [op.Where(inside, op.Mul(op.number(node.number("alpha", 0.2)), g), zero)]


@vjp("HardSwish")
def hard_swish(op: Emitter, node: Forward, g: str) -> Gradients:
    """dx = 0 where x ≤ −3, g · (x/3 + 1/2) where x < 3, else g"""
    between = op.Mul(g, op.Add(op.Div(node.x, op.number(3)), op.number(0.5)))
    upper = op.Where(op.Less(node.x, op.number(3)), between, g)
    return [op.Where(op.Greater(node.x, op.number(-3)), upper, op.number(0))]


@vjp("Tanh")
def tanh(op: Emitter, node: Forward, g: str) -> Gradients:
    """dx = g · (1 − y²)"""
    return [op.Mul(g, op.Sub(op.number(1), op.Mul(node.y, node.y)))]


@vjp("Softplus")
def softplus(op: Emitter, node: Forward, g: str) -> Gradients:
    """dx = g · σ(x)"""
    return [op.Mul(g, op.Sigmoid(node.x))]


@vjp("Softsign")
def softsign(op: Emitter, node: Forward, g: str) -> Gradients:
    """dx = g / (1 + |x|)²"""
    bottom = op.Add(op.number(1), op.Abs(node.x))
    return [op.Div(g, op.Mul(bottom, bottom))]


@vjp("Mish")
def mish(op: Emitter, node: Forward, g: str) -> Gradients:
    """dx = g · (t + x (1 − t²) σ(x)), t = tanh(softplus x)"""
    t = op.Tanh(op.Softplus(node.x))
    bent = op.Mul(op.Mul(node.x, op.Sigmoid(node.x)), op.Sub(op.number(1), op.Mul(t, t)))
    return [op.Mul(g, op.Add(t, bent))]


@vjp("Gelu")
def gelu(op: Emitter, node: Forward, g: str) -> Gradients:
    """dx = g · (Φ(x) + x φ(x)); with approximate="tanh" g · (½ (1 + t) + ½ x (1 − t²) u′), t = tanh u(x)"""
    x, half, one = node.x, op.number(0.5), op.number(1)
    square = op.Mul(x, x)
    if node.text("approximate", "none") == "tanh":
        root, cubic = op.number(math.sqrt(2 / math.pi)), 0.044715
        t = op.Tanh(op.Mul(root, op.Mul(x, op.Add(one, op.Mul(op.number(cubic), square)))))
        inner = op.Mul(root, op.Add(one, op.Mul(op.number(3 * cubic), square)))
        bent = op.Mul(op.Mul(x, inner), op.Sub(one, op.Mul(t, t)))
        return [op.Mul(g, op.Mul(half, op.Add(op.Add(one, t), bent)))]
    below = op.Mul(half, op.Add(one, op.Erf(op.Mul(x, op.number(math.sqrt(0.5))))))
    bell = op.Mul(op.number(1 / math.sqrt(2 * math.pi)), op.Exp(op.Mul(op.number(-0.5), square)))
    return [op.Mul(g, op.Add(below, op.Mul(x, bell)))]


# --- over one axis --------------------------------------------------------------------------------------------------------
@vjp("Softmax")
def softmax(op: Emitter, node: Forward, g: str) -> Gradients:
    """dx = y · (g − Σ g y)"""
    axis = op.constant([node.integer("axis", -1)])
    return [op.Mul(node.y, op.Sub(g, op.ReduceSum(op.Mul(g, node.y), axis)))]


@vjp("LogSoftmax")
def log_softmax(op: Emitter, node: Forward, g: str) -> Gradients:
    """dx = g − eʸ · Σ g"""
    axis = op.constant([node.integer("axis", -1)])
    return [op.Sub(g, op.Mul(op.Exp(node.y), op.ReduceSum(g, axis)))]
