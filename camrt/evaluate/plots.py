"""The report's plots: mean curves, and differences from the reference."""

from __future__ import annotations

from typing import Any

from camrt.evaluate import drawing
from camrt.evaluate.drawing import INK, axes, series, svg
from camrt.evaluate.finding import main_figures
from camrt.evaluate.metric import METRICS
from camrt.evaluate.summary import BETTER, UNDECIDED, WORSE, Difference, Summary
from camrt.markup import Html, joined, readable, tag
from camrt.metrics.road import PERCENTILES

CURVES = {  # what happens to the pixels along x, which curves are good
    "insertion": ("share of the pixels that have appeared", "high is better"),
    "deletion": ("share of the pixels that are gone", "low is better"),
    "road": ("share of the pixels that are imputed", "low is better"),
}
COLORS = {BETTER: drawing.GOOD, WORSE: drawing.BAD, UNDECIDED: INK}
SHAPES = {BETTER: "^", WORSE: "v", UNDECIDED: "o"}


def curves(summary: Summary) -> list[Html]:
    """Return a plot of p along the pixels for each kind of curve that was measured."""
    found = [name for name in CURVES if any(name in row.curves for row in summary.rows)]
    return [_curves(summary, name) for name in found]


def _curves(summary: Summary, name: str) -> Html:
    fractions = _fractions(summary, name)
    with axes(3.9, 3.0) as plot:
        for i, row in enumerate(summary.rows):
            if len(row.curves.get(name, ())) == len(fractions):
                plot.plot(fractions, row.curves[name], gid=f"line-{i}", **_line(summary, i))
        plot.set(xlabel=CURVES[name][0], ylabel="p", xlim=(0, 1), title=f"{METRICS[name].title}: {CURVES[name][1]}")
        plot.set_ylim(bottom=0)
        return svg(plot, f"curve-{name}", f"Mean p along the pixels, {METRICS[name].title}, a line for each method.")


def _fractions(summary: Summary, name: str) -> list[float]:
    if name == "road":
        return [percent / 100 for percent in PERCENTILES]
    height, width = summary.evaluation.explainer.manifest.size
    counts = summary.evaluation.asked.protocol.counts(height, width)
    return [float(count) / (height * width) for count in counts]


def _line(summary: Summary, index: int) -> dict[str, Any]:
    """Return how a variant's line looks; the reference is thick, controls are thin."""
    row = summary.rows[index]
    if row.variant.method is None:
        earlier = sum(r.variant.method is None for r in summary.rows[:index])
        return {"color": INK, "dashes": drawing.CONTROL_DASHES[earlier % 2], "linewidth": 1.1}
    return {**series(index), "linewidth": 2.4 if row.variant.name == summary.reference else 1.3}


def key(summary: Summary) -> Html:
    """Return which line and point is whose."""
    entries = [
        tag("li", _sample(summary, i), " ", row.variant.name, data_line=i, tabindex="0")
        for i, row in enumerate(summary.rows) if row.curves
    ]  # fmt: skip
    return tag("ul", *entries, class_="key")


def _sample(summary: Summary, index: int) -> Html:
    look = _line(summary, index)
    dashes = " ".join(f"{d * look['linewidth']:g}" for d in look["dashes"]) or None
    stroke = drawing.PAGE[look["color"]]
    line = tag("line", x1="1", y1="5", x2="31", y2="5", stroke=stroke, stroke_width=look["linewidth"], stroke_dasharray=dashes)
    return tag("svg", line, width="32", height="10", aria_hidden="true")


def differences(summary: Summary) -> list[Html]:
    """Return a plot of the paired differences from the reference for each main figure."""
    found = [_differences(summary, name) for name in main_figures(summary)]
    return [plot for plot in found if plot is not None]


def _differences(summary: Summary, metric: str) -> Html | None:
    rows = [row for row in summary.rows if metric in row.differences]
    if not rows:
        return None
    names = [readable(row.variant.name) for row in rows]
    better = METRICS[metric].better
    with axes(3.9, 0.95 + 0.23 * len(rows)) as plot:
        plot.axvline(0, color=INK, linewidth=0.9)
        for y, row in enumerate(rows):
            _whisker(plot, y, row.differences[metric])
        plot.set_yticks(range(len(rows)), [name if len(name) <= 26 else f"{name[:25]}…" for name in names])
        plot.set_ylim(len(rows) - 0.4, -0.6)
        plot.set(title=METRICS[metric].title, xlabel="better →" if better == "higher" else "← better")
        plot.grid(False, axis="y")
        told = f"{METRICS[metric].title}: differences from {summary.reference} with their intervals."
        return svg(plot, f"difference-{metric}", told)


def _whisker(plot: Any, y: int, difference: Difference) -> None:
    found, verdict = difference.interval, difference.verdict
    width = [[found.mean - found.low], [found.high - found.mean]]
    plot.errorbar(
        [found.mean], [y], xerr=width, fmt=SHAPES[verdict], color=COLORS[verdict],
        markerfacecolor="none" if verdict == UNDECIDED else None, markersize=5, linewidth=1.3,
    )  # fmt: skip


def figure(drawn: Html, caption: object = "") -> Html:
    """Return a plot with what it says."""
    return tag("figure", drawn, tag("figcaption", caption) if caption else joined())
