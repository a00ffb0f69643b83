"""What an evaluation found, in sentences: "better" and "worse" are said only of differences whose interval excludes 0."""

from __future__ import annotations

import numpy as np

from camrt.evaluate.metric import LEADING, METRICS
from camrt.evaluate.summary import BETTER, UNDECIDED, WORSE, Row, Summary, verdict
from camrt.markup import listed, plain, several, signed
from camrt.metrics import Interval, paired

FEW = 30  # photos, below which a bootstrap interval is often too narrow
MOST = 4  # names in a sentence; more are counted
CHANCE = 0.05  # of a difference that is none to be called one


def leading(summary: Summary) -> str | None:
    """Return the figure that the report leads with: insertion − deletion, else the first that was measured."""
    measured = summary.measured
    return LEADING if LEADING in measured else next(iter(measured), None)


def main_figures(summary: Summary) -> list[str]:
    """Return the figures that sentences and plots speak of; those that are only parts of another are left out."""
    parts = {"insertion", "deletion"} if LEADING in summary.measured else set()
    parts |= {"coherency", "complexity"} if "adcc" in summary.measured else set()
    return [name for name in summary.measured if name not in parts]


def methods(summary: Summary) -> list[Row]:
    """Return the rows that ran, controls left out."""
    return [row for row in summary.rows if row.unavailable is None and row.variant.method is not None]


def headline(summary: Summary) -> list[str]:
    """Return what was found, one sentence an entry."""
    metric = leading(summary)
    if not summary.photos:
        return [f"Of {several(len(summary.evaluation.subjects), 'photo')}, none could be measured."]
    if not methods(summary):
        return ["None of the methods could run on this bundle."]
    if metric is None:
        return ["No figure applies to these photos: localisation needs boxes or masks, agreement of seeds a method that draws."]
    return [*_comparison(summary, metric), *_others(summary, metric), *_controls(summary, metric), *_cost(summary, metric)]


def cautions(summary: Summary) -> list[str]:
    """Return what must be kept in mind with the figures."""
    count = len(summary.photos)
    compared = sum(len(row.differences) for row in methods(summary))
    found = []
    if count == 1:
        found.append("One photo cannot tell methods apart: no interval can be given, and nothing is called better or worse.")
    elif 1 < count < FEW:
        found.append(f"{count} photos are few: the intervals are likely too narrow. Measure {FEW} or more before you decide.")
    if compared > 1 and count > 1:
        found.append(
            f"{compared} differences from {summary.reference} were tested at 95 %: if none were real, about "
            f"{max(1, round(compared * CHANCE))} would still be called better or worse by chance."
        )
    return found


def _comparison(summary: Summary, metric: str) -> list[str]:
    """Return which methods are better than the reference in the leading figure."""
    reference, title = summary.reference, METRICS[metric].title
    others = [row for row in methods(summary) if row.variant.name != reference and metric in row.differences]
    photos = f"On {several(len(summary.photos), 'photo')}"
    if not others:
        return [f"{photos}, only {reference} was measured: {_means(summary, metric)}."]
    of = {kind: [row for row in others if row.differences[metric].verdict == kind] for kind in (BETTER, WORSE, UNDECIDED)}
    best = sorted(of[BETTER], key=lambda row: -abs(row.differences[metric].interval.mean))
    if not best:
        first = f"{photos}, no method is better than {reference} in {title}"
    else:
        named = listed(f"{row.variant.name} ({_gain(row.differences[metric].interval)})" for row in best[:3])
        more = f" and {several(len(best) - 3, 'other method')}" if len(best) > 3 else ""
        first = f"{photos}, {named}{more} {'is' if len(best) == 1 else 'are'} better than {reference} in {title}"
    rest = [
        f"{len(of[WORSE])} {'is' if len(of[WORSE]) == 1 else 'are'} worse" if of[WORSE] else "",
        f"{len(of[UNDECIDED])} cannot be told from it" if of[UNDECIDED] else "",
    ]
    return ["; ".join([first, *filter(None, rest)]) + "."]


def _gain(interval: Interval) -> str:
    return f"{signed(interval.mean)}, 95 % interval {signed(interval.low)} … {signed(interval.high)}"


def _means(summary: Summary, metric: str) -> str:
    """Return the reference's own figure with its interval."""
    figure = next(row for row in summary.rows if row.variant.name == summary.reference).figures.get(metric)
    if figure is None:
        return f"{METRICS[metric].title} does not apply to it"
    width = f" (95 % interval {plain(figure.low)} … {plain(figure.high)})" if figure.n > 1 else ""
    return f"{METRICS[metric].title} {plain(figure.mean)}{width}"


def _others(summary: Summary, metric: str) -> list[str]:
    """Return which methods are better than the reference in the other figures."""
    better, none = [], []
    for name in main_figures(summary):
        verdicts = {row.variant.name: row.differences[name].verdict for row in methods(summary) if name in row.differences}
        best = [method for method, word in verdicts.items() if word == BETTER]
        if best and name != metric:
            better.append(f"{listed(best) if len(best) <= MOST else several(len(best), 'method')} in {METRICS[name].title}")
        elif verdicts and name != metric:
            none.append(METRICS[name].title)
    found = [f"Better than {summary.reference}: {'; '.join(better)}."] if better else []
    return found + ([f"No method is better than {summary.reference} in {listed(none, 'or')}."] if none else [])


def _controls(summary: Summary, metric: str) -> list[str]:
    """Return which methods were shown to be better than maps that look at nothing, and which were not."""
    title, names = METRICS[metric].title, [row.variant.name for row in methods(summary)]
    controls = [row.variant.name for row in summary.rows if row.variant.method is None and metric in row.figures]
    failing = {control: [n for n in names if versus(summary, n, control, metric) != BETTER] for control in controls}
    beaten = [f"the {control}" for control in controls if not failing[control]]
    whose = "The method is" if len(names) == 1 else f"All {len(names)} methods are"
    found = [f"{whose} better than {listed(beaten)} in {title}."] if beaten else []
    for control in controls:
        if failing[control]:
            some = failing[control]
            named = listed(some) if len(some) <= MOST else f"{len(some)} of {len(names)} methods"
            found.append(f"Not shown to be better than the {control}, which looks at nothing, in {title}: {named}.")
    return found


def versus(summary: Summary, name: str, other: str, metric: str) -> str:
    """Return whether one variant is better than another in a figure, over the photos on which both have it."""
    pairs = [[summary.results.get((photo, n)) for n in (name, other)] for photo in summary.photos]
    values = [[result.values.get(metric) if result else None for result in pair] for pair in pairs]
    both = np.array([pair for pair in values if None not in pair], np.float64)
    return verdict(metric, paired(both[:, 0], both[:, 1])) if len(both) else UNDECIDED


def _cost(summary: Summary, metric: str) -> list[str]:
    """Return what the reference costs, and which is the quickest of the methods that were not shown to be worse."""
    timed = {row.variant.name: row for row in methods(summary) if row.ms is not None}
    reference = timed.get(summary.reference)
    if reference is None or reference.ms is None:
        return []
    ratio = f", {reference.ratio:.2f} × its bare passes" if reference.ratio is not None else ""
    first = f"{summary.reference} takes {milliseconds(reference.ms)} a photo ({reference.cost}{ratio})"
    equal = [row for row in timed.values() if metric in row.differences and row.differences[metric].verdict != WORSE]
    quickest = min([reference, *equal], key=lambda row: row.ms or 0.0)
    if quickest is reference or quickest.ms is None:
        quicker = any((row.ms or 0.0) < reference.ms for row in timed.values())
        said = "; every quicker method was shown to be worse" if quicker else "; no other method is quicker"
        return [f"{first}{said if len(timed) > 1 else ''}."]
    named = f"{quickest.variant.name} with {milliseconds(quickest.ms)}"
    return [f"{first}; the quickest method that was not shown to be worse is {named}."]


def milliseconds(ms: float) -> str:
    """Return a time as people read it.

    >>> milliseconds(4.25), milliseconds(181.3), milliseconds(12345.6)
    ('4.2 ms', '181 ms', '12.3 s')
    """
    if ms >= 10_000:
        return f"{ms / 1000:.1f} s"
    return f"{ms:.0f} ms" if ms >= 100 else f"{ms:.1f} ms"
