"""The table of calculus: for every operator its vector-Jacobian product, from easy to hard, and what stops a gradient."""

from exporters.vjps import elementwise, layout, linear, normalisation, pooling, quantisation, reduction
from exporters.vjps.rule import RULES, WHOLE, Forward, Gradients, NoGradient, Rule, sum_to

# Constant almost everywhere, or not about numbers: no gradient flows back through these.
STOPS = frozenset(
    {
        "ArgMax", "ArgMin", "Shape", "Size", "NonZero", "ConstantOfShape", "Range", "EyeLike",
        "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Not", "And", "Or", "Xor", "IsNaN", "IsInf",
        "Ceil", "Floor", "Round", "Sign",
    }
)  # fmt: skip

__all__ = ["RULES", "STOPS", "WHOLE", "Forward", "Gradients", "NoGradient", "Rule", "sum_to"]
