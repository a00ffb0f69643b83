"""What the page tells: the figures of the classes and of all photos, and the rows that are worth a look."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from camrt.scale.report.agreement import agreement, known
from camrt.scale.report.dataset import Dataset, RowPlace
from camrt.scale.report.heatmaps import mean_heatmap
from camrt.scale.report.peak import Peak, peak
from camrt.scale.report.survey import Survey
from camrt.scale.report.suspicion import ClassFigures, figures
from camrt.scale.schema import GEOMETRY

MOST_SUSPECTS = 12  # that are shown with photos
ROW = ("id", "source", "target", "label", "probability", "outcome", "heatmap", *GEOMETRY)


@dataclass(frozen=True)
class Summary:
    """A dataset in figures.

    Attributes
    ----------
    dataset : Dataset
    survey : Survey
    classes : list of ClassFigures
        Suspicious ones first.
    agreement : float or None
        Mean correlation of two heatmaps of whatever class.
    heatmap : ndarray of shape (h, w), or None
        Mean over all.
    peak : Peak or None
        Of `heatmap`.
    rows : dict of RowPlace to dict
        The rows that are shown, by the columns `ROW`.
    """

    dataset: Dataset
    survey: Survey
    classes: list[ClassFigures]
    agreement: float | None
    heatmap: np.ndarray | None
    peak: Peak | None
    rows: dict[RowPlace, dict[str, Any]]

    @property
    def suspects(self) -> list[ClassFigures]:
        """Return the suspicious classes, the most suspicious first."""
        return [one for one in self.classes if one.suspicious]

    @property
    def judged(self) -> list[ClassFigures]:
        """Return the classes that have photos enough."""
        return [one for one in self.classes if one.enough]

    @property
    def typical(self) -> float | None:
        """Return the agreement of the class in the middle, of those with photos enough."""
        agreeing = [one.agreement for one in self.judged if one.agreement is not None]
        return float(np.median(agreeing)) if agreeing else None


def summarise(dataset: Dataset, survey: Survey) -> Summary:
    """Return the summary of a dataset that was surveyed.

    Raises
    ------
    BatchError
        A shard has gone meanwhile.
    """
    classes = survey.classes
    found = figures(classes, survey.size)
    suspects = [one for one in found if one.suspicious][:MOST_SUSPECTS]
    shown = [place for one in suspects for place in one.places]
    shown += [place for least in (survey.least_probable, survey.strangest) for _, place in least]
    mean = mean_heatmap(classes.heatmap.sum(axis=0), (classes.rows - classes.failed).sum(), survey.size)
    overall = agreement(classes.unit.sum(axis=0)[None], classes.maps.sum(keepdims=True))[0]
    return Summary(
        dataset=dataset, survey=survey, classes=found, agreement=known(overall), heatmap=mean,
        peak=None if mean is None else peak(mean), rows=dataset.rows(shown, ROW),
    )  # fmt: skip


def to_json(summary: Summary) -> dict[str, Any]:
    """Return the summary's figures."""
    manifest = summary.dataset.manifest
    return {
        "bundle": summary.dataset.bundle, "method": manifest.asked.get("method"), "state": manifest.state,
        "simulated": summary.dataset.simulated, "photos": manifest.photos, "rows": manifest.rows,
        "shards": {"done": manifest.done, "of": manifest.parts},
        "outcomes": dict(sorted(summary.survey.outcomes.counts.items())),
        "classes": len(summary.classes), "classes_judged": len(summary.judged),
        "agreement": summary.agreement, "agreement_of_the_middle_class": summary.typical,
        "peak": _peak(summary.peak),
        "suspicious": [_class(one) for one in summary.suspects],
        "probabilities": summary.survey.histogram.tolist(),
    }  # fmt: skip


def _class(one: ClassFigures) -> dict[str, Any]:
    return {
        "class": one.index, "label": one.label, "photos": one.photos, "failed": one.failed, "probability": one.probability,
        "agreement": one.agreement, "with_other_classes": one.others, "peak": _peak(one.peak),
    }  # fmt: skip


def _peak(found: Peak | None) -> dict[str, Any] | None:
    return found and {"where": found.words, "from_centre": round(found.distance, 3)}
