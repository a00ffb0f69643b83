"""The report as one page that needs nothing beside it: what was found, the table, plots, pictures, and how it was measured."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from camrt.document import document, sections
from camrt.evaluate import plots, scores, tradeoff
from camrt.evaluate.conditions import conditions, meaning
from camrt.evaluate.finding import cautions, headline
from camrt.evaluate.gallery import gallery
from camrt.evaluate.summary import Summary
from camrt.markup import Html, definitions, joined, several, tag, words

FIRST = 20  # photos that are named where many have no heatmap


def page(summary: Summary) -> str:
    """Return the report as HTML.

    Raises
    ------
    MethodUnavailable
        Matplotlib is not installed.
    """
    content = sections({
        "scores": ("Figures and costs", _scores(summary)),
        "curves": ("Curves", _curves(summary)),
        "cost": ("Quality against cost", _cost(summary)),
        "differences": (f"Differences from {summary.reference}", _differences(summary)),
        "photos": ("Photos", _pictures(summary)),
        "troubles": ("What went wrong", _troubles(summary)),
        "meaning": ("What the figures mean", [scores.legend(summary), *meaning()]),
        "conditions": ("How it was measured", [conditions(summary)]),
    })  # fmt: skip
    style, script = (Path(__file__).with_name(name).read_text("utf-8") for name in ("report.css", "report.js"))
    title = f"camrt evaluate: {summary.evaluation.explainer.manifest.name}"
    return document(title, style, joined(_header(summary), content), script)


def _header(summary: Summary) -> Html:
    manifest = summary.evaluation.explainer.manifest
    first, *rest = headline(summary)
    right, labelled = summary.accuracy
    rightly = f"{right} of {labelled} labelled ({100 * right / labelled:.0f} %)" if labelled else None
    return tag(
        "header", tag("h1", f"Which heatmaps to trust: {manifest.name}"), tag("p", first, class_="finding"),
        tag("ul", *(tag("li", sentence) for sentence in rest)) if rest else "",
        *(tag("p", caution, class_="caution") for caution in cautions(summary)),
        definitions([
            ("model", manifest.name), ("layer", manifest.layer.name), ("provider", summary.versions["provider"]),
            ("photos", _photos(summary)),
            ("named rightly", rightly),
        ]),
    )  # fmt: skip


def _photos(summary: Summary) -> str:
    failed = len(summary.failed)
    return f"{len(summary.photos)}" + (f", and {failed} that could not be measured" if failed else "")


def _scores(summary: Summary) -> list[Html]:
    return [scores.table(summary)]


def _curves(summary: Summary) -> list[Html]:
    drawn = plots.curves(summary)
    if not drawn:
        return []
    return [plots.key(summary), tag("div", *(plots.figure(plot) for plot in drawn), class_="plots")]


def _cost(summary: Summary) -> list[Html]:
    drawn = tradeoff.plot(summary)
    caption = "The stepped line joins the methods that none is both quicker and better than. Bars are 95 % intervals of means."
    return [tag("div", plots.figure(drawn, caption), class_="plots")] if drawn else []


def _differences(summary: Summary) -> list[Html]:
    drawn = plots.differences(summary)
    told = "Paired by photo, with 95 % intervals: ▲ better, ▼ worse, ○ undecided, as the interval holds 0."
    return [tag("p", told), tag("div", *(plots.figure(plot) for plot in drawn), class_="plots")] if drawn else []


def _pictures(summary: Summary) -> list[Html]:
    told = f"Best and worst are those of {summary.reference}. The figures below a heatmap are those of this photo alone."
    return [tag("p", told), *gallery(summary)] if summary.shown else []


def _troubles(summary: Summary) -> list[Html]:
    """Return photos that could not be measured, and heatmaps of zeros."""
    found = []
    if summary.failed:
        title = f"{several(len(summary.failed), 'photo')} could not be measured"
        found += [tag("h3", title), definitions(summary.failed.items())]
    without = _without_heatmap(summary)
    if without:
        entries = [(_outcome(*key, photos), _named(photos)) for key, photos in without.items()]
        found += [tag("h3", "Heatmaps of zeros"), definitions(entries)]
    return found


def _without_heatmap(summary: Summary) -> dict[tuple[str, str], list[str]]:
    """Return the photos without a heatmap by method and outcome."""
    found = defaultdict[tuple[str, str], list[str]](list)
    for (photo, method), result in summary.results.items():
        if result.degenerate:
            found[method, result.outcome].append(photo)
    order = [row.variant.name for row in summary.rows]
    return {key: found[key] for key in sorted(found, key=lambda key: (order.index(key[0]), key[1])) if key[0] in order}


def _outcome(method: str, outcome: str, photos: list[str]) -> Html:
    return joined(method, ": ", words(outcome), f" ({len(photos)})")


def _named(photos: list[str]) -> str:
    return ", ".join(photos[:FIRST]) + (f" and {len(photos) - FIRST} more" if len(photos) > FIRST else "")
