"""What the results say: means with their intervals, what one method has over another, costs, and the telling photos."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from camrt.evaluate.evaluation import Evaluation
from camrt.evaluate.metric import METRICS
from camrt.evaluate.records import Records
from camrt.evaluate.results import MethodResult, PhotoResult, Results, read_results
from camrt.evaluate.shown import Shown, choose_shown
from camrt.evaluate.variant import Variant
from camrt.explanation import counted
from camrt.heatmap import Outcome
from camrt.metrics import Interval, bootstrap, paired
from camrt.runtime import versions

BETTER, WORSE, UNDECIDED = "better", "worse", "undecided"
FEWEST = 10  # photos of a difference that is called better or worse: a bootstrap of fewer is too sure of itself


@dataclass(frozen=True)
class Difference:
    """A figure of a method less that of the reference, over the same photos.

    Attributes
    ----------
    interval : Interval
    verdict : {"better", "worse", "undecided"}
        Undecided where the interval holds 0.
    """

    interval: Interval
    verdict: str


@dataclass(frozen=True)
class Row:
    """What is known about one variant.

    Attributes
    ----------
    variant : Variant
    unavailable : str or None
        Why it could not run.
    figures : mapping of str to Interval
        By names of `METRICS`; those that apply nowhere are left out.
    differences : mapping of str to Difference
        From the reference.
    outcomes : mapping of str to int
        How many photos ended in each; all but "ok" have a heatmap of zeros, and count with it.
    cost : str
        "11 passes"; the median photo's.
    passes : float
        Forward passes of the whole network.
    ms, ratio, memory : float or None
        Milliseconds of an explanation, its ratio to the bare passes among them (medians), and megabytes at the peak.
    curves : mapping of str to list of float
        Mean over the photos.
    """

    variant: Variant
    unavailable: str | None = None
    figures: Mapping[str, Interval] = field(default_factory=dict)
    differences: Mapping[str, Difference] = field(default_factory=dict)
    outcomes: Mapping[str, int] = field(default_factory=dict)
    cost: str = ""
    passes: float = 0.0
    ms: float | None = None
    ratio: float | None = None
    memory: float | None = None
    curves: Mapping[str, Sequence[float]] = field(default_factory=dict)

    @property
    def degenerate(self) -> int:
        """Return how many heatmaps are of zeros."""
        return sum(count for outcome, count in self.outcomes.items() if outcome != Outcome.OK.word)


@dataclass(frozen=True)
class Summary:
    """What an evaluation found.

    Attributes
    ----------
    evaluation : Evaluation
    rows : sequence of Row
        One for each variant, in the order that was asked for.
    reference : str
        The variant from which differences are taken: the first that could run.
    photos : mapping of str to PhotoResult
        The photos that could be measured.
    results : mapping of (str, str) to MethodResult
        By photo and variant.
    failed : mapping of str to str
        Why the other photos could not.
    shown : sequence of Shown
    versions : mapping of str to str
    """

    evaluation: Evaluation
    rows: Sequence[Row]
    reference: str
    photos: Mapping[str, PhotoResult]
    results: Mapping[tuple[str, str], MethodResult]
    failed: Mapping[str, str]
    shown: Sequence[Shown]
    versions: Mapping[str, str]

    @property
    def accuracy(self) -> tuple[int, int]:
        """Return how many of how many labelled photos the network names rightly; by the labels as they were given."""
        labelled = [photo for photo in self.photos.values() if photo.label is not None]
        return sum(photo.top == photo.label for photo in labelled), len(labelled)

    @property
    def measured(self) -> list[str]:
        """Return the figures that some variant has, in the catalogue's order."""
        return [name for name in METRICS if any(name in row.figures for row in self.rows)]


def summarise(evaluation: Evaluation, records: Records) -> Summary:
    """Return what the results say about the photos and variants of an evaluation; older results of others are left out."""
    results = read_results(records.lines, {s.name for s in evaluation.subjects})
    run = [v.name for v in evaluation.variants if results.of_variant(v.name)]
    reference = run[0] if run else ""
    rows = [
        _row(v, results, reference) if v.name in run else Row(v, results.unavailable.get(v.name, "not measured"))
        for v in evaluation.variants
    ]
    found = versions() | {"provider": evaluation.explainer.engine.provider}
    shown = choose_shown(results, run)
    return Summary(evaluation, rows, reference, results.photos, results.methods, results.failed, shown, found)


def _row(variant: Variant, results: Results, reference: str) -> Row:
    name, mine = variant.name, results.of_variant(variant.name)
    found = list(mine.values())
    passes, *others = (_median(getattr(r, kind) for r in found) for kind in ("passes", "tail_passes", "backward_passes"))
    control = variant.method is None
    return Row(
        variant,
        figures=_figures(name, results),
        differences={} if name == reference else _differences(name, results, reference),
        outcomes=Counter(r.outcome for r in found),
        cost="" if control else counted(passes, *others),
        passes=passes,
        ms=None if control else statistics.median(r.ms for r in found),
        ratio=None if control else statistics.median(_ratio(r, results.photos[photo]) for photo, r in mine.items()),
        memory=results.memory.get(name),
        curves=_mean_curves(found),
    )


def _median(counts: Iterable[int]) -> int:
    return round(statistics.median(counts))


def _figures(name: str, results: Results) -> dict[str, Interval]:
    columns = {metric: results.figure(name, metric) for metric in METRICS}
    known = {metric: column[~np.isnan(column)] for metric, column in columns.items()}
    return {metric: bootstrap(column) for metric, column in known.items() if len(column)}


def _differences(name: str, results: Results, reference: str) -> dict[str, Difference]:
    """Return the figures' differences over the photos on which both variants have them."""
    found = {}
    for metric in METRICS:
        own, other = results.figure(name, metric), results.figure(reference, metric)
        both = ~np.isnan(own) & ~np.isnan(other)
        if both.any():
            interval = paired(own[both], other[both])
            found[metric] = Difference(interval, verdict(metric, interval))
    return found


def verdict(metric: str, interval: Interval) -> str:
    """Return what a difference says; "undecided" where its interval holds 0, and of too few photos."""
    if interval.verdict == UNDECIDED or interval.n < FEWEST:
        return UNDECIDED
    return BETTER if interval.verdict == METRICS[metric].better else WORSE


def _ratio(result: MethodResult, photo: PhotoResult) -> float:
    """Return what an explanation took over its bare passes: one image by itself, and the masked ones in batches."""
    return result.ms / (photo.one_ms + max(result.passes - 1, 0) * photo.pass_ms)


def _mean_curves(results: Sequence[MethodResult]) -> dict[str, Sequence[float]]:
    """Return the mean curves, of those without a gap and with as many points as the first."""
    curves = dict[str, Sequence[float]]()
    for name, first in results[0].curves.items():
        given = [r.curves.get(name, ()) for r in results]
        whole = [curve for curve in given if None not in curve and len(curve) == len(first)]
        if whole:
            curves[name] = [round(float(p), 6) for p in np.mean(np.array(whole, np.float64), axis=0)]
    return curves
