"""The catalogue of figures: what each is called, which direction is good, and what it says."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """A figure.

    Attributes
    ----------
    title : str
        As tables have it.
    better : {"higher", "lower"}
    group : str
        What is asked for: a name in `GROUPS`.
    help : str
        One sentence.
    """

    title: str
    better: str
    group: str
    help: str


METRICS: dict[str, Metric] = {
    "insertion_deletion": Metric("insertion − deletion", "higher", "faithfulness", "Insertion less deletion."),
    "insertion": Metric("insertion", "higher", "faithfulness", "Area under p while the hottest pixels of a blur clear up."),
    "deletion": Metric("deletion", "lower", "faithfulness", "Area under p while the hottest pixels turn into the mean colour."),
    "average_drop": Metric("average drop", "lower", "faithfulness", "Share of p that is lost on image ⊙ heatmap."),
    "increase": Metric("increase", "higher", "faithfulness", "Share of photos whose p grows on image ⊙ heatmap."),
    "adcc": Metric("ADCC", "higher", "adcc", "Harmonic mean of coherency, 1 − complexity and 1 − drop."),
    "coherency": Metric("coherency", "higher", "adcc", "Correlation with the heatmap of image ⊙ heatmap, as (r + 1) / 2."),
    "complexity": Metric("complexity", "lower", "adcc", "Mean of the heatmap."),
    "pointing": Metric("pointing game", "higher", "localisation", "Share of photos whose hottest pixel lies in the object."),
    "energy": Metric("energy pointing game", "higher", "localisation", "Share of the heatmap's sum that lies in the object."),
    "road": Metric("ROAD", "lower", "road", "Mean p after the hottest 10 … 90 % of the pixels are imputed from others."),
    "stability": Metric("stability", "higher", "stability", "Rank correlation with heatmaps of the image under small noise."),
    "seeds": Metric("agreement of seeds", "higher", "seeds", "Mean rank correlation between the heatmaps of five seeds."),
    "randomisation": Metric(
        "randomised weights", "lower", "randomisation", "Mean size of the rank correlation with heatmaps of shuffled weights."
    ),
}  # fmt: skip
GROUPS = tuple(dict.fromkeys(metric.group for metric in METRICS.values()))
LEADING = "insertion_deletion"  # the figure that a report leads with, where it was measured
DEFAULT_GROUPS = ("faithfulness", "adcc", "localisation")
