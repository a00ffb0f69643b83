"""A summary as data for other programs: JSON, and CSV of methods and of photos."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from camrt.evaluate.finding import main_figures
from camrt.evaluate.metric import METRICS
from camrt.evaluate.summary import BETTER, UNDECIDED, WORSE, Row, Summary

SIGNS = {BETTER: "+", WORSE: "-", UNDECIDED: " "}
OF_PHOTO = ("target", "top", "label", "probability")


def to_json(summary: Summary) -> dict[str, Any]:
    """Return everything but the heatmaps."""
    evaluation, accuracy = summary.evaluation, summary.accuracy
    manifest, protocol = evaluation.explainer.manifest, evaluation.asked.protocol
    height, width = manifest.size
    return {
        "bundle": {"name": manifest.name, "sha256": evaluation.explainer.engine.bundle.sha256, "layer": manifest.layer.name},
        "source": {"file": manifest.source.file, "sha256": manifest.source.sha256},
        "versions": dict(summary.versions),
        "protocol": asdict(protocol) | {"fractions": (protocol.counts(height, width) / (height * width)).tolist()},
        "target": evaluation.target,
        "tolerance": evaluation.asked.tolerance,
        "groups": list(evaluation.asked.groups),
        "photos": len(summary.photos),
        "failed": dict(summary.failed),
        "named_rightly": None if not accuracy[1] else {"right": accuracy[0], "of": accuracy[1]},
        "reference": summary.reference,
        "metrics": {name: asdict(METRICS[name]) for name in summary.measured},
        "methods": [_row(row) for row in summary.rows],
        "shown": [{"photo": s.name, "why": s.why} for s in summary.shown],
        "by_photo": [_photo(summary, name) for name in summary.photos],
    }


def _row(row: Row) -> dict[str, Any]:
    return {
        "name": row.variant.name,
        "method": row.variant.method and row.variant.method.name,
        "parameters": dict(row.variant.settings),
        "unavailable": row.unavailable,
        "figures": {name: asdict(interval) for name, interval in row.figures.items()},
        "differences": {name: asdict(d.interval) | {"verdict": d.verdict} for name, d in row.differences.items()},
        "outcomes": dict(row.outcomes),
        "cost": row.cost,
        "passes": row.passes,
        "milliseconds": row.ms,
        "ratio_to_bare_passes": row.ratio,
        "peak_megabytes": row.memory,
        "curves": {name: list(curve) for name, curve in row.curves.items()},
    }


def _photo(summary: Summary, name: str) -> dict[str, Any]:
    photo = summary.photos[name]
    known = {key: getattr(photo, key) for key in (*OF_PHOTO, "object")}
    of_methods = {r.variant.name: summary.results.get((name, r.variant.name)) for r in summary.rows}
    kept = {method: {"outcome": found.outcome, **found.values} for method, found in of_methods.items() if found}
    return {"photo": name} | known | {"methods": kept}


def methods_csv(summary: Summary) -> bytes:
    """Return a row for every method: its figures with their intervals, what it has over the reference, its cost."""
    columns = [part for name in summary.measured for part in (name, f"{name}_low", f"{name}_high", f"{name}_against_reference")]
    header = ["method", "unavailable", "photos", "degenerate", *columns, "passes", "cost", "ms", "ratio", "peak_mb"]
    return _csv(header, (_method_row(summary, row) for row in summary.rows))


def _method_row(summary: Summary, row: Row) -> list[Any]:
    cells = list[Any]()
    for name in summary.measured:
        figure, difference = row.figures.get(name), row.differences.get(name)
        cells += [figure.mean, figure.low, figure.high] if figure else [None] * 3
        cells.append(difference and difference.verdict)
    start = [row.variant.name, row.unavailable, sum(row.outcomes.values()), row.degenerate]
    return [*start, *cells, row.passes, row.cost, row.ms, row.ratio, row.memory]


def photos_csv(summary: Summary) -> bytes:
    """Return a row for every photo and method."""
    header = ["photo", *OF_PHOTO, "method", "outcome", *summary.measured, "ms"]
    rows = (
        [photo, *(getattr(summary.photos[photo], key) for key in OF_PHOTO), method, result.outcome]
        + [result.values.get(name) for name in summary.measured] + [result.ms]
        for (photo, method), result in summary.results.items()
    )  # fmt: skip
    return _csv(header, rows)


def _csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(header)
    writer.writerows([_safe(cell) for cell in row] for row in rows)
    return text.getvalue().encode(errors="replace")


def _safe(cell: Any) -> Any:
    """Return a cell that a spreadsheet does not take for a formula."""
    return f"'{cell}" if isinstance(cell, str) and cell[:1] in ("=", "+", "-", "@", "\t", "\r") else cell


def text_table(summary: Summary) -> list[str]:
    """Return lines for a terminal: methods by figures, + or - where a difference from the reference is decided."""
    shown = main_figures(summary)
    width = max((len(row.variant.name) for row in summary.rows), default=6)
    titles = "  ".join(f"{METRICS[name].title:>{_width(name)}}" for name in shown)
    header = f"{'':<{width}}  {titles}  {'ms':>8}  {'× bare':>8}  passes"
    return [header, *(f"{row.variant.name:<{width}}  {_said(row, shown)}" for row in summary.rows)]


def _width(metric: str) -> int:
    return max(12, len(METRICS[metric].title))


def _said(row: Row, shown: Sequence[str]) -> str:
    if row.unavailable is not None:
        return f"not available: {row.unavailable}"
    cells = "  ".join(_cell(row, name).rjust(_width(name)) for name in shown)
    time = f"{row.ms:>8.1f}  {row.ratio:>8.2f}" if row.ms is not None and row.ratio is not None else f"{'':>8}  {'':>8}"
    degenerate = f"  {row.degenerate} of {sum(row.outcomes.values())} degenerate" if row.degenerate else ""
    return f"{cells}  {time}  {row.cost}{degenerate}"


def _cell(row: Row, name: str) -> str:
    figure, difference = row.figures.get(name), row.differences.get(name)
    if figure is None:
        return "–"
    return f"{figure.mean:.3f}" + SIGNS[difference.verdict if difference else UNDECIDED]
