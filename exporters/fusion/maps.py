"""Maps as a graph: upsampling, scaling to [0, 1], and the heatmap with its outcome, as `camrt.image` and `camrt.heatmap` do."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from camrt.heatmap import Outcome
from camrt.image import FLAT, extreme_samples
from exporters.emitter import Emitter
from exporters.fusion.arithmetic import FLOAT, any_in, finite_in, relu, unsqueeze

Size = tuple[int, int]


@dataclass(frozen=True)
class Heatmaps:
    """Names of the heatmaps (N, T, H, W) in [0, 1] and of their outcomes (N, T), int64."""

    heatmaps: str
    outcomes: str


@dataclass(frozen=True)
class Window:
    """Names of the matrices that bring maps of h × w cells to H × W, by linear interpolation.

    ONNX Runtime computes them when it opens the file, where they stand in the graph itself and not in a body.  Two products
    with them are 2 to 10 × faster on a CPU than the operator Resize.

    Attributes
    ----------
    rows, columns : str
        (H, h) and (w, W).
    some_rows, some_columns : str
        The rows and columns of them in which an upsampled map takes its extremes, as in `upsampled_range`.
    """

    rows: str
    columns: str
    some_rows: str
    some_columns: str


def window(op: Emitter, cells: Size, size: Size, *, aligned: bool = False) -> Window:
    """Emit the matrices with half-pixel centres, or with the corners' centres aligned."""
    (h, w), (height, width) = cells, size
    rows, columns = _interpolation(op, h, height, aligned), _interpolation(op, w, width, aligned)
    some_rows = op.Gather(rows, op.constant(extreme_samples(h, height)))
    some_columns = op.Gather(columns, op.constant(extreme_samples(w, width)))
    turned, some_turned = (op.Transpose(matrix, perm=[1, 0]) for matrix in (columns, some_columns))
    return Window(rows, turned, some_rows, some_turned)


def _interpolation(op: Emitter, n: int, out: int, aligned: bool) -> str:
    """Return the matrix (out, n) of linear interpolation: max(0, 1 − |position − i|)."""
    zero, one, half, last = (op.constant(d, "float64") for d in (0, 1, 0.5, n - 1))
    index = op.Range(zero, op.constant(out, "float64"), one)
    if aligned:
        position = op.Mul(index, op.constant((n - 1) / max(out - 1, 1), "float64"))
    else:
        position = op.Sub(op.Mul(op.Add(index, half), op.constant(n / out, "float64")), half)
    inside = unsqueeze(op, op.Max(op.Min(position, last), zero), 1)
    distance = op.Abs(op.Sub(inside, op.Range(zero, op.constant(n, "float64"), one)))
    return op.Cast(op.Max(op.Sub(one, distance), zero), to=FLOAT)


def upsample(op: Emitter, maps: str, to: Window) -> str:
    """Return maps (N, K, h, w) as (N, K, H, W)."""
    return op.MatMul(to.rows, op.MatMul(maps, to.columns))


def stretch(op: Emitter, maps: str, low: str, high: str) -> str:
    """Return (M − low)/(high − low); zeros for a flat map."""
    span = op.Where(_is_flat(op, low, high), op.number(np.inf), op.Sub(high, low))
    return op.Div(op.Sub(maps, low), span)


def scaled(op: Emitter, maps: str) -> str:
    """Return N(M) of maps (N, K, h, w) as they are."""
    return stretch(op, maps, op.reduce("ReduceMin", maps, 2, 3), op.reduce("ReduceMax", maps, 2, 3))


def normalised(op: Emitter, maps: str, to: Window) -> str:
    """Return N(up(maps)) before its upsampling, of maps (N, K, h, w)."""
    samples = op.MatMul(to.some_rows, op.MatMul(maps, to.some_columns))
    return stretch(op, maps, op.reduce("ReduceMin", samples, 2, 3), op.reduce("ReduceMax", samples, 2, 3))


def heatmaps(op: Emitter, signed: str, finite: str, flat_features: str, to: Window) -> Heatmaps:
    """Return N(ReLU(up(map))) and how it came out.

    Parameters
    ----------
    signed : str
        (N, T, h, w)
    finite, flat_features : str
        (N, 1) bool: the network was finite; its features are the same everywhere.
    to : Window
    """
    fine = op.And(finite_in(op, signed, 2, 3, keepdims=False), finite)  # (N, T)
    up = upsample(op, op.Where(unsqueeze(op, fine, 2, 3), signed, op.number(0)), to)
    positive = op.Relu(up)
    low, high = op.reduce("ReduceMin", positive, 2, 3), op.reduce("ReduceMax", positive, 2, 3)
    least = op.Mul(op.reduce("ReduceMin", up, 2, 3), op.number(-FLAT))  # what rounding leaves of 0
    none, flat = op.Not(op.Greater(high, relu(op, least))), _is_flat(op, low, high)
    scaled_up = op.Where(none, op.number(0), stretch(op, positive, low, high))
    none, flat = (op.Squeeze(condition, op.constant([2, 3])) for condition in (none, flat))
    flat = op.Or(op.And(none, flat_features), op.And(op.Not(none), flat))
    code = op.Where(none, op.constant(int(Outcome.NO_POSITIVE_EVIDENCE)), op.constant(int(Outcome.OK)))
    code = op.Where(flat, op.constant(int(Outcome.FLAT_MAP)), code)
    return Heatmaps(scaled_up, op.Where(fine, code, op.constant(int(Outcome.NOT_FINITE))))


def flat_features(op: Emitter, features: str) -> str:
    """Return (N, 1) bool: every feature map (N, C, h, w) is the same everywhere."""
    low, high = op.reduce("ReduceMin", features, 2, 3), op.reduce("ReduceMax", features, 2, 3)
    return op.Not(any_in(op, op.Squeeze(op.Not(op.Equal(low, high)), op.constant([2, 3])), 1))


def _is_flat(op: Emitter, low: str, high: str) -> str:
    largest = op.Max(op.Abs(low), op.Abs(high))
    return op.LessOrEqual(op.Sub(high, low), op.Mul(largest, op.number(FLAT)))
