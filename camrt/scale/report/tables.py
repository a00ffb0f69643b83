"""The parts of the page that are numbers: outcomes, the histogram, the table of classes."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from camrt.markup import Html, joined, plain, several, share, tag, words
from camrt.picture import picture
from camrt.scale.report.outcomes import OTHERS, Group
from camrt.scale.report.pictures import tile
from camrt.scale.report.summary import Summary
from camrt.scale.report.suspicion import MIN_PHOTOS, ClassFigures
from camrt.scale.schema import OK

MOST_CLASSES = 200  # in the table
TILE = 64  # pixels of a mean heatmap in the table
NONE = "–"


def facts(pairs: Iterable[tuple[str, object]]) -> Html:
    """Return terms, each with what there is to say about it beside it; pairs of which that is None are left out."""
    given = [tag("div", tag("dt", term), tag("dd", said)) for term, said in pairs if said is not None]
    return tag("dl", *given, class_="facts")


def outcomes(summary: Summary) -> list[Html]:
    """Return how many rows came out how, as bars, and what was said of those without a heatmap."""
    counts = summary.survey.outcomes.counts
    if not counts:
        return []
    total = sum(counts.values())
    rows = [
        tag("tr", tag("th", words(word), scope="row"), tag("td", f"{count:,}"), tag("td", share(count, total)),
            tag("td", _meter(count / total, "" if word == OK else "failed"), class_="meter"))
        for word, count in counts.most_common()
    ]  # fmt: skip
    head = tag("tr", *(tag("th", title, scope="col") for title in ("outcome", "rows", "share", "")))
    table = tag("table", tag("thead", head), tag("tbody", *rows), class_="outcomes")
    return [tag("div", table, class_="wide narrow"), *(_group(group) for group in summary.survey.outcomes.groups)]


def _group(group: Group) -> Html:
    said = joined(tag("b", words(group.outcome)), f", {several(group.count, 'row')}")
    more = group.count - len(group.named)
    names = tag("ul", *(tag("li", name) for name in group.named), tag("li", f"and {more:,} more") if more > 0 else "")
    message = f": {group.message}" if group.message and group.message != OTHERS else f" ({OTHERS})" if group.message else ""
    return tag("details", tag("summary", said, message), names)


def histogram(summary: Summary) -> list[Html]:
    """Return the distribution of the probabilities as bars."""
    counts = summary.survey.histogram
    if not counts.any():
        return []
    edges = np.linspace(0, 1, len(counts) + 1)
    named = [f"{low:.2f} to {high:.2f}: {count:,}" for low, high, count in zip(edges, edges[1:], counts.tolist(), strict=False)]
    bars = [
        tag("i", style=f"height:{100 * count / counts.max():.1f}%", title=told)
        for count, told in zip(counts.tolist(), named, strict=True)
    ]
    axis = tag("div", *(tag("span", text) for text in ("0", "0.25", "0.5", "0.75", "1")), class_="axis", aria_hidden="true")
    label = f"Histogram of {'probabilities' if summary.dataset.by_name else 'top-class probabilities'}; {'; '.join(named)}"
    bottom = tag("figcaption", f"The highest bar is {several(int(counts.max()), 'photo')}.")
    return [tag("figure", tag("div", *bars, class_="bars", role="img", aria_label=label), axis, bottom, class_="histogram")]


def classes(summary: Summary) -> list[Html]:
    """Return the table of classes: suspicious ones first, then by falling photos."""
    shown = summary.classes[:MOST_CLASSES]
    if not shown:
        return []
    titles = ("class", "mean heatmap", "photos", "mean p", "no heatmap", "agreement", "with others", "peak", "from centre")
    head = tag("tr", *(tag("th", title, scope="col") for title in titles))
    table = tag("table", _caption(summary), tag("thead", head), tag("tbody", *(_class(one) for one in shown)))
    left = len(summary.classes) - len(shown)
    why = "less suspicious than these" if left and summary.classes[MOST_CLASSES].suspicious else "with fewer photos, or no more"
    rest = [tag("p", f"{several(left, 'class', 'classes')} more, {why}, left out.")] if left else []
    return [tag("div", table, class_="wide", tabindex=0, role="region", aria_label="Classes"), *rest]


def _caption(summary: Summary) -> Html:
    order = "Suspicious classes first, then by photos." if summary.suspects else "By photos."
    typical = "" if summary.typical is None else f" The class in the middle has an agreement of {plain(summary.typical, 2)}."
    return tag("caption", f"{order}{typical} Faint: fewer than {MIN_PHOTOS} heatmaps, too few to judge.")


def _class(one: ClassFigures) -> Html:
    name = tag("th", one.label, tag("small", f"class {one.index}"), _badge(one), scope="row")
    where = [NONE, NONE] if one.peak is None else [one.peak.words, f"{100 * one.peak.distance:.0f} %"]
    numbers = [
        f"{one.photos:,}", _number(one.probability), share(one.failed, one.photos),
        _number(one.agreement), _number(one.others), *where,
    ]  # fmt: skip
    kind = "suspicious" if one.suspicious else None if one.enough else "few"
    return tag("tr", name, tag("td", _mean(one)), *(tag("td", number) for number in numbers), class_=kind)


def _badge(one: ClassFigures) -> Html | str:
    return tag("span", "suspicious", class_="badge") if one.suspicious else ""


def _mean(one: ClassFigures) -> Html | str:
    return NONE if one.heatmap is None else picture(tile(one.heatmap, TILE), f"Mean heatmap of {one.label}")


def _number(value: float | None) -> str:
    return NONE if value is None else plain(value, 2)


def _meter(share: float, kind: str) -> Html:
    return tag("i", style=f"width:{100 * share:.1f}%", class_=kind or None)
