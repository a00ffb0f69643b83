"""The photos that tell something: where the reference did best and worst, and where the methods agree least."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from camrt.evaluate.metric import LEADING, METRICS
from camrt.evaluate.results import MethodResult, PhotoResult, Results
from camrt.evaluate.thumbnail import read_thumbnail

EXAMPLES = 3  # photos of a kind that are shown


@dataclass(frozen=True)
class Shown:
    """A photo that tells something.

    Attributes
    ----------
    name : str
    why : str
        "best", "worst" or "most disputed", with its figure.
    photo : PhotoResult
    results : mapping of str to MethodResult
        By variant.
    """

    name: str
    why: str
    photo: PhotoResult
    results: Mapping[str, MethodResult]


def choose_shown(results: Results, names: Sequence[str]) -> list[Shown]:
    """Return the photos that are shown; the first of the variants' names is the reference."""
    extremes = _extremes(results, names[0]) if names else {}
    reasons = extremes | _disputed(results, names, extremes)
    return [Shown(name, why, results.photos[name], results.of_photo(name, names)) for name, why in reasons.items()]


def _extremes(results: Results, reference: str) -> dict[str, str]:
    """Return why to show the photos on which the reference did best and worst."""
    found = {photo: result.values.get(LEADING) for photo, result in results.of_variant(reference).items()}
    figures = {photo: value for photo, value in found.items() if value is not None}
    ranked = sorted(figures, key=lambda photo: -figures[photo])
    best = ranked[:EXAMPLES]
    worst = [photo for photo in ranked[::-1][:EXAMPLES] if photo not in best]
    title = METRICS[LEADING].title
    return {p: f"best: {title} {figures[p]:.3f}" for p in best} | {p: f"worst: {title} {figures[p]:.3f}" for p in worst}


def _disputed(results: Results, names: Sequence[str], taken: Collection[str]) -> dict[str, str]:
    """Return why to show the photos on which the methods agree least."""
    found = {photo: _agreement(list(results.of_photo(photo, names).values())) for photo in results.photos if photo not in taken}
    agreement = {photo: r for photo, r in found.items() if r is not None}
    least = sorted(agreement, key=lambda photo: agreement[photo])[:EXAMPLES]
    return {p: f"most disputed: the methods' heatmaps correlate by {agreement[p]:.2f}" for p in least}


def _agreement(results: Sequence[MethodResult]) -> float | None:
    """Return the mean correlation between methods' heatmaps, controls left out; None for fewer than two."""
    maps = [read_thumbnail(result.thumbnail).ravel() for result in results if result.passes]
    pairs = [np.corrcoef(a, b)[0, 1] if a.std() and b.std() else 0.0 for a, b in combinations(maps, 2)]
    return float(np.mean(pairs)) if pairs else None
