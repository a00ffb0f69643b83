"""What a dataset shows, in sentences."""

from __future__ import annotations

from camrt.markup import listed, plain, several
from camrt.scale.report.summary import Summary
from camrt.scale.report.suspicion import HIGH, MIN_PHOTOS, ClassFigures
from camrt.scale.schema import OK

NAMED = 3  # classes that a sentence names
MANY_FAILED = 0.1  # of the rows


def headline(summary: Summary) -> str:
    """Return the finding in one sentence."""
    manifest, suspects, judged = summary.dataset.manifest, summary.suspects, summary.judged
    if not manifest.rows:
        return "No photo is explained yet."
    if summary.heatmap is None:
        return f"None of the {several(manifest.photos, 'photo')} has a heatmap."
    if not judged:
        return (
            f"Whether the model takes shortcuts cannot be said: no class has {MIN_PHOTOS} photos with a heatmap, "
            "fewer of which may agree by chance."
        )
    if suspects:
        return _suspected(suspects)
    if len(summary.classes) == 1:
        return (
            f"All photos are of one class, {_quoted(judged[0])}, so it cannot be compared with others: two of its heatmaps "
            f"correlate at {plain(judged[0].agreement or 0, 2)}."
        )
    return (
        f"No class looks like a shortcut: of the {several(len(judged), 'class', 'classes')} with {MIN_PHOTOS} photos or more, "
        "none has heatmaps that lie at one place much more than those of the others."
    )


def _suspected(suspects: list[ClassFigures]) -> str:
    if len(suspects) == 1:
        return (
            f"{_quoted(suspects[0])} looks like a shortcut: in photo after photo the model looks at {_where(suspects[0])}, but "
            "not for other classes."
        )
    named = [f"{_quoted(one)} at {_where(one)}" for one in suspects[:NAMED]]
    named += [f"{len(suspects) - NAMED:,} more"] if len(suspects) > NAMED else []
    return (
        f"{len(suspects):,} classes look like shortcuts: in photo after photo the model looks at the same place, but not for "
        f"other classes: {listed(named)}."
    )


def _quoted(one: ClassFigures) -> str:
    return f"“{one.label}”"


def _where(one: ClassFigures) -> str:
    return f"the {one.peak.words}" if one.peak else "one place"


def cautions(summary: Summary) -> list[str]:
    """Return what must be known before anything is believed."""
    dataset, manifest = summary.dataset, summary.dataset.manifest
    found = []
    if dataset.simulated:
        found.append("The results are invented: the dataset was made with --simulate. Nothing here is about the model.")
    if not dataset.finished:
        found.append(
            f"The dataset is not finished ({manifest.state}): {manifest.done:,} of {manifest.parts:,} shards are done, and "
            "this is of them alone. The camrt batch that wrote it goes on when it is given again."
        )
    failed = manifest.rows - summary.survey.outcomes.counts[OK]
    if failed > MANY_FAILED * manifest.rows:
        found.append(f"{failed:,} of {several(manifest.rows, 'row')} have no heatmap; see what went wrong.")
    if summary.agreement is not None and summary.agreement >= HIGH and summary.peak and len(summary.judged):
        found.append(
            f"Heatmaps agree whatever the class: those of two photos correlate at {plain(summary.agreement, 2)}; their mean "
            f"has its peak at the {summary.peak.words}. Either the photos are framed alike, or the model looks at something "
            "that all of them share: a shortcut of all classes together cannot be found by comparing classes."
        )
    return found
