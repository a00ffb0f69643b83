"""The table of methods by figures, with what each costs."""

from __future__ import annotations

from collections.abc import Sequence

from camrt.evaluate.finding import main_figures, milliseconds
from camrt.evaluate.metric import METRICS
from camrt.evaluate.summary import BETTER, UNDECIDED, WORSE, Row, Summary
from camrt.markup import Html, definitions, joined, plain, signed, tag, words

Columns = tuple[Sequence[str], Sequence[str]]  # figures before the costs, and after them

ARROWS = {"higher": "↑", "lower": "↓"}
MARKS = {BETTER: "▲", WORSE: "▼"}
COSTS = {  # title, better direction, help
    "passes": ("passes", "lower", "Forward passes of the network for one explanation, and what else ran."),
    "ms": ("time", "lower", "Of an explanation, the median photo's; reading and preprocessing it apart."),
    "ratio": ("× bare passes", "lower", "That time over that of the same passes of the network alone."),
    "memory": ("peak MB", "lower", "Most memory of a process that explains one image, in megabytes."),
    "degenerate": ("no heatmap", "lower", "Photos whose heatmap is of zeros, as there was none; hover for the reasons."),
}  # fmt: skip


def table(summary: Summary) -> Html:
    """Return the table: main figures, costs, then the figures that are parts of others.

    Controls and methods that could not run stand apart at its end.
    """
    first = main_figures(summary)
    columns = first, [name for name in summary.measured if name not in first]
    ran = [row for row in summary.rows if row.unavailable is None]
    controls = [row for row in ran if row.variant.method is None]
    groups = [
        ("methods", "", [_row(summary, row, columns) for row in ran if row not in controls]),
        ("controls", "Controls: maps that look at nothing", [_row(summary, row, columns) for row in controls]),
        ("absent", "Could not run", [_absent(row, columns) for row in summary.rows if row.unavailable is not None]),
    ]
    bodies = [tag("tbody", *_caption(title, columns), *rows, class_=name) for name, title, rows in groups if rows]
    return tag(
        "div",
        tag("table", tag("caption", _explained(summary), id="methods-caption"), _head(columns), *bodies),
        class_="wide", tabindex="0", role="region", aria_labelledby="methods-caption",
    )  # fmt: skip


def legend(summary: Summary) -> Html:
    """Return what the columns mean."""
    columns = [(METRICS[name].title, METRICS[name].better, METRICS[name].help) for name in summary.measured]
    return definitions((joined(title, " ", _arrow(better)), text) for title, better, text in [*columns, *COSTS.values()])


def _explained(summary: Summary) -> Html:
    if not summary.reference:
        return joined("Nothing could be measured.")
    return joined(
        "Means over the photos, with their 95 % intervals below. ",
        tag("span", "▲ better", class_="better"), " and ", tag("span", "▼ worse", class_="worse"), " than ",
        tag("b", summary.reference), " (the reference) where the interval of the paired difference excludes 0.",
    )  # fmt: skip


def _arrow(better: str) -> Html:
    return tag("span", ARROWS[better], title=f"{better} is better", role="img", aria_label=f"{better} is better")


def _head(columns: Columns) -> Html:
    figures = [[(METRICS[name].title, METRICS[name].better, METRICS[name].help) for name in names] for names in columns]
    cells = [
        tag("th", tag("span", title, class_="sorts"), "\u00a0", _arrow(better), scope="col", title=text, data_better=better)
        for title, better, text in [*figures[0], *COSTS.values(), *figures[1]]
    ]
    return tag("thead", tag("tr", tag("th", tag("span", "method", class_="sorts"), scope="col", data_better="lower"), *cells))


def _caption(title: str, columns: Columns) -> list[Html]:
    header = tag("th", tag("span", title), scope="rowgroup", colspan=1 + _width(columns))
    return [tag("tr", header, class_="apart")] if title else []


def _width(columns: Columns) -> int:
    return len(columns[0]) + len(COSTS) + len(columns[1])


def _row(summary: Summary, row: Row, columns: Columns) -> Html:
    name = row.variant.name
    reference = tag("span", "reference", class_="badge") if name == summary.reference else ""
    first, last = ([_figure(summary, row, metric) for metric in names] for names in columns)
    title = tag("th", _name(name), reference, scope="row", data_value=name)
    return tag("tr", title, *first, *_costs(row), *last, class_="reference" if reference else None)


def _name(name: str) -> Html:
    """Return a name that may be broken between its parameters."""
    first, *parameters = name.split(":")
    return tag("span", first, *(joined(":", tag("wbr"), part) for part in parameters))


def _figure(summary: Summary, row: Row, metric: str) -> Html:
    figure, difference = row.figures.get(metric), row.differences.get(metric)
    if figure is None:
        return tag("td", "–")
    verdict = difference.verdict if difference else UNDECIDED
    width = tag("small", f"{plain(figure.low)} … {plain(figure.high)}") if figure.n > 1 else ""
    return tag(
        "td", plain(figure.mean), _mark(verdict), width, data_value=repr(figure.mean), title=_told(summary, row, metric),
        class_=verdict if verdict in MARKS else None,
    )  # fmt: skip


def _mark(verdict: str) -> Html:
    if verdict not in MARKS:
        return joined()
    return joined(" ", tag("span", MARKS[verdict], class_="mark"), tag("span", f" {verdict}", class_="unseen"))


def _told(summary: Summary, row: Row, metric: str) -> str:
    """Return the difference from the reference, and over how many photos the mean is."""
    over = f"over {row.figures[metric].n} photos"
    if metric not in row.differences:
        return over
    interval = row.differences[metric].interval
    return f"{signed(interval.mean)} ({signed(interval.low)} … {signed(interval.high)}) from {summary.reference}; {over}"


def _costs(row: Row) -> list[Html]:
    if row.variant.method is None:
        return [tag("td", "–")] * (len(COSTS) - 1) + [_degenerate(row)]
    return [
        tag("td", row.cost, data_value=row.passes, class_="cost"),
        tag("td", "–" if row.ms is None else milliseconds(row.ms), data_value=row.ms),
        tag("td", "–" if row.ratio is None else f"{row.ratio:.2f}", data_value=row.ratio),
        tag("td", "–" if row.memory is None else f"{row.memory:.0f}", data_value=row.memory),
        _degenerate(row),
    ]


def _degenerate(row: Row) -> Html:
    told = ", ".join(f"{count} {words(outcome)}" for outcome, count in row.outcomes.items())
    shown = f"{row.degenerate} of {sum(row.outcomes.values())}" if row.degenerate else "0"
    return tag("td", shown, data_value=row.degenerate, title=told, class_="alarming" if row.degenerate else None)


def _absent(row: Row, columns: Columns) -> Html:
    reason = tag("td", tag("span", row.unavailable), colspan=_width(columns), class_="reason")
    return tag("tr", tag("th", _name(row.variant.name), scope="row"), reason)
