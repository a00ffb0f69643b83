"""Quality against cost: the leading figure over milliseconds, and the methods that none is both quicker and better than."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from camrt.evaluate.drawing import CONTROL_DASHES, INK, axes, marker, series, svg
from camrt.evaluate.finding import leading
from camrt.evaluate.metric import METRICS
from camrt.evaluate.placing import Box, place
from camrt.evaluate.summary import Row, Summary
from camrt.markup import Html, readable

LETTER, LINE = 4.7, 9.5  # points: the mean width of a letter of a name, and the height of its line
LONGEST = 40  # letters of a name


def plot(summary: Summary) -> Html | None:
    """Return the plot; None where fewer than two methods have both a figure and a time."""
    metric = leading(summary)
    points = [(i, row) for i, row in enumerate(summary.rows) if row.variant.method and row.ms and metric in row.figures]
    if metric is None or len(points) < 2:
        return None
    title = METRICS[metric].title
    with axes(6.6, 4.4) as drawn:
        drawn.set_xscale("log")
        drawn.xaxis.set_major_formatter(lambda ms, _: f"{ms:g}")
        for i, row in points:
            _point(drawn, i, row, metric, 8 if row.variant.name == summary.reference else 6)
        rows = [row for _, row in points]
        _front(drawn, rows, metric)
        _levels(drawn, summary, metric)
        _limit(drawn, rows, metric)
        drawn.set(xlabel="milliseconds an explanation (left is better)", ylabel=f"{title} (up is better)")
        _name(drawn, rows, metric)
        return svg(drawn, "tradeoff", f"{title} over milliseconds, a point for each method; the table has the figures.")


def _point(drawn: Any, index: int, row: Row, metric: str, size: float) -> None:
    figure, color = row.figures[metric], series(index)["color"]
    drawn.errorbar(
        [row.ms], [figure.mean], yerr=[[figure.mean - figure.low], [figure.high - figure.mean]], fmt=marker(index), color=color,
        ecolor=(color, 0.4), elinewidth=1.2, markersize=size,
    )  # fmt: skip


def front_of(rows: Sequence[Row], metric: str) -> list[Row]:
    """Return the methods that none is both quicker and better than, quickest first."""
    sign = 1 if METRICS[metric].better == "higher" else -1
    front: list[Row] = []
    for row in sorted(rows, key=lambda row: (row.ms or 0.0, -sign * row.figures[metric].mean)):
        if not front or sign * row.figures[metric].mean > sign * front[-1].figures[metric].mean:
            front.append(row)
    return front


def _front(drawn: Any, rows: Sequence[Row], metric: str) -> None:
    front = front_of(rows, metric)
    times, heights = [row.ms for row in front], [row.figures[metric].mean for row in front]
    drawn.step(times, heights, where="post", color=INK, linewidth=2.5, alpha=0.25)


def _levels(drawn: Any, summary: Summary, metric: str) -> None:
    """Draw the controls, which cost nothing, as lines across."""
    controls = [row for row in summary.rows if row.variant.method is None and metric in row.figures]
    upward = METRICS[metric].better == "higher"
    highest = max((row.figures[metric].mean for row in controls), default=0.0)
    for row, dashes in zip(controls, CONTROL_DASHES, strict=False):
        level = row.figures[metric].mean
        side = "bottom" if (level == highest) == upward else "top"
        drawn.axhline(level, color=INK, linewidth=0.8, dashes=dashes)
        where = drawn.get_yaxis_transform()
        drawn.text(0.995, level, row.variant.name, transform=where, ha="right", va=side, fontsize=8, style="italic")


def _limit(drawn: Any, rows: Sequence[Row], metric: str) -> None:
    """Leave room for names at all sides, and let what is better be above."""
    times = [float(row.ms or 1.0) for row in rows]
    spread = max(max(times) / min(times), 4.0) ** 0.22
    drawn.set_xlim(min(times) / spread, max(times) * spread)
    drawn.margins(y=0.08)
    if METRICS[metric].better == "lower":
        drawn.invert_yaxis()


def _name(drawn: Any, rows: Sequence[Row], metric: str) -> None:
    """Write each method's name beside its point, with a thin line where it stands further off."""
    drawn.figure.draw_without_rendering()  # so that the axes have their place
    scale = 72 / drawn.figure.dpi  # pixels to points
    ends = drawn.get_window_extent()
    room = Box(ends.x0 * scale, ends.y0 * scale, ends.x1 * scale, ends.y1 * scale)
    places = [drawn.transData.transform((row.ms, row.figures[metric].mean)) * scale for row in rows]
    points = [(float(x), float(y)) for x, y in places]
    names = [_short(readable(row.variant.name)) for row in rows]
    boxes = place(points, [(LETTER * len(name), LINE) for name in names], room)
    for name, box, point in zip(names, boxes, points, strict=True):
        line = {"arrowstyle": "-", "color": INK, "lw": 0.5, "shrinkB": 3} if box.distance(point) > LINE else None
        drawn.annotate(
            name, point, box.centre, xycoords="figure points", textcoords="figure points", ha="center", va="center",
            fontsize=8.5, arrowprops=line,
        )  # fmt: skip


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"
