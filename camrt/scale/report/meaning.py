"""What the figures mean, and what they cannot tell."""

from __future__ import annotations

from camrt.markup import Html, definitions, plain, tag
from camrt.scale.report.summary import Summary
from camrt.scale.report.survey import ENOUGH
from camrt.scale.report.suspicion import HIGH, MIN_PHOTOS, MORE

OF_TOP = (
    "The figures of a class are of the photos for which it is the class that the model names. Rows of less probable classes "
    "are only among the outcomes."
)
OF_ALL = "Classes were asked for by name, so that the figures of each are of all photos, whatever they show."
MEAN = (
    "The mean of the class's heatmaps in the network's window, in colours from 0 (blue) to 1 (red). A hot spot is a place "
    "where the model looks in most photos."
)
AGREEMENT = (
    "The mean correlation between the heatmaps of two photos of the class. Near 1, the model looks at the same place in every "
    "photo; near 0, it follows something that moves."
)
OTHERS = (
    "The mean correlation between a heatmap of the class and one of another class. Photographers centre their subjects, so "
    "that this is above 0, too."
)
PEAK = (
    "Where the mean heatmap is greatest, and how far from the centre: 100 % is a corner. Subjects are seldom in corners; "
    "watermarks, logos and dates often are."
)
SUSPICIOUS = (
    f"The class has at least {MIN_PHOTOS} heatmaps; its agreement is {plain(HIGH, 2)} or more; and the agreement exceeds what "
    f"its heatmaps have in common with those of other classes by {plain(MORE, 2)} or more. Classes are ordered by that excess."
)
STRANGE = (
    f"Of classes with at least {ENOUGH} heatmaps: the mean correlation of one heatmap with the others of its class, less the "
    "agreement of the class."
)
LIMITS = (
    "A suspicious class need not be a shortcut: a horizon, a stage or a fixed camera puts the subject itself at one place, and "
    "frames of one video are all alike. Look at the photos.",
    "A shortcut in only some of the photos, such as a watermark on every fifth, hardly moves the agreement. It may show among "
    "the strangest heatmaps.",
    "A shortcut that moves, such as a person beside the subject, or that covers the photo, such as a texture, is not found.",
    "A shortcut of all classes together is not found by comparing them; the agreement over all photos and its peak hint at it.",
    "A heatmap shows what the method finds, which need not be all that the model uses.",
)


def meaning(summary: Summary) -> list[Html]:
    """Return the explanations."""
    known = summary.agreement
    overall = "" if known is None else f" Between two photos of this dataset, whatever their class, it is {plain(known, 2)}."
    return [definitions([
        ("photos", OF_ALL if summary.dataset.by_name else OF_TOP), ("mean heatmap", MEAN), ("agreement", AGREEMENT + overall),
        ("with others", OTHERS), ("peak, from centre", PEAK), ("suspicious", SUSPICIOUS), ("strange", STRANGE),
        ("what this cannot tell", tag("ul", *(tag("li", limit) for limit in LIMITS))),
    ])]  # fmt: skip
