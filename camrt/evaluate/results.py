"""What was found about photos, and about methods on them: as lines of JSON, and read from them again."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from camrt.evaluate.measures import Found
from camrt.evaluate.thumbnail import thumbnail
from camrt.heatmap import Outcome

Line = Mapping[str, Any]


@dataclass(frozen=True)
class PhotoResult:
    """What is known about a photo that was measured.

    Attributes
    ----------
    state : str
        As `Subject.state`: results of another state are out of date.
    target, top : int
        The class that is explained, and that which the network names.
    label : int or None
    probability : float
        p of the target.
    size : sequence of int
        H and W of the network's input.
    object : float or None
        Its share of the input; None where nobody knows where it lies.
    one_ms, pass_ms : float
        Milliseconds of a bare pass: of one image by itself, and of one in a batch.
    """

    state: str
    target: int
    top: int
    label: int | None
    probability: float
    size: Sequence[int]
    object: float | None
    one_ms: float
    pass_ms: float

    @classmethod
    def of_line(cls, line: Line) -> PhotoResult:
        """Return what `dataclasses.asdict` wrote."""
        return cls(**{field.name: line[field.name] for field in fields(cls)})


@dataclass(frozen=True)
class MethodResult:
    """What was found about one variant on one photo.

    Attributes
    ----------
    values : mapping of str to float or None
        By names of `METRICS`; None where a figure does not apply or is not finite.
    curves : mapping of str to sequence of float or None
        p at every point of the protocol.
    outcome : str
        As in `camrt.evaluate.attempt.Attempt`, like what follows.
    notes : sequence of str
    passes, tail_passes, backward_passes : int
    ms : float
    thumbnail : str
        The heatmap, as `camrt.evaluate.thumbnail` keeps it.
    """

    values: Mapping[str, float | None]
    curves: Mapping[str, Sequence[float | None]]
    outcome: str
    notes: Sequence[str]
    passes: int
    tail_passes: int
    backward_passes: int
    ms: float
    thumbnail: str

    @classmethod
    def of(cls, found: Found) -> MethodResult:
        """Return it from what was measured."""
        given = found.attempt
        return cls(
            values={name: _finite(value) for name, value in found.values.items()},
            curves={name: [_finite(round(p, 6)) for p in scores] for name, scores in found.curves.items()},
            outcome=given.outcome,
            notes=list(given.notes),
            passes=given.passes,
            tail_passes=given.tail_passes,
            backward_passes=given.backward_passes,
            ms=round(given.ms, 3),
            thumbnail=thumbnail(given.heatmap),
        )

    @classmethod
    def of_line(cls, line: Line, **more: float) -> MethodResult:
        """Return what `dataclasses.asdict` wrote, with more values."""
        return cls(**{field.name: line[field.name] for field in fields(cls)} | {"values": line["values"] | more})

    @property
    def degenerate(self) -> bool:
        """Tell whether the heatmap is of zeros, as there was none."""
        return self.outcome != Outcome.OK.word


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


@dataclass(frozen=True)
class Results:
    """What is known about photos and variants.

    Attributes
    ----------
    photos : mapping of str to PhotoResult
        The photos that could be measured.
    methods : mapping of (str, str) to MethodResult
        By photo and variant.
    failed : mapping of str to str
        Why the other photos could not be measured.
    unavailable : mapping of str to str
        Why variants could not run.
    memory : mapping of str to float
        Megabytes of variants at their peak.
    """

    photos: Mapping[str, PhotoResult]
    methods: Mapping[tuple[str, str], MethodResult]
    failed: Mapping[str, str]
    unavailable: Mapping[str, str]
    memory: Mapping[str, float]

    def of_variant(self, name: str) -> dict[str, MethodResult]:
        """Return the results of a variant by photo."""
        return {photo: self.methods[photo, name] for photo in self.photos if (photo, name) in self.methods}

    def of_photo(self, photo: str, names: Iterable[str]) -> dict[str, MethodResult]:
        """Return the results on a photo by variant."""
        return {name: self.methods[photo, name] for name in names if (photo, name) in self.methods}

    def figure(self, name: str, metric: str) -> np.ndarray:
        """Return a variant's figure on every photo, (photos,) float64; NaN where there is none."""
        found = self.of_variant(name)
        values = [found[photo].values.get(metric) if photo in found else None for photo in self.photos]
        return np.array([np.nan if value is None else value for value in values], np.float64)


def read_results(lines: Iterable[Line], names: Collection[str]) -> Results:
    """Return what lines say about the photos of these names; of several lines the last one counts."""
    lines = [line for line in lines if "photo" not in line or line["photo"] in names]
    last = {line["photo"]: line for line in lines if "target" in line or "error" in line}  # what a photo is now
    photos = {photo: PhotoResult.of_line(line) for photo, line in last.items() if "target" in line}
    current = [line for line in lines if "values" in line and _is_current(line, photos)]
    randomised = _randomised([line for line in lines if "correlation" in line and _is_current(line, photos)])
    keys = [(line["photo"], line["variant"]) for line in current]
    return Results(
        photos,
        {key: MethodResult.of_line(line, **randomised.get(key, {})) for key, line in zip(keys, current, strict=True)},
        {photo: line["error"] for photo, line in last.items() if "error" in line},
        {line["variant"]: line["unavailable"] for line in lines if "unavailable" in line},
        {line["variant"]: line["memory"] for line in lines if "memory" in line},
    )


def _is_current(line: Line, photos: Mapping[str, PhotoResult]) -> bool:
    return line["photo"] in photos and line["state"] == photos[line["photo"]].state


def _randomised(lines: Sequence[Line]) -> dict[tuple[str, str], dict[str, float]]:
    """Return the mean correlation over the stages of the cascade, by photo and variant."""
    found = defaultdict[tuple[str, str], list[float]](list)
    for line in lines:
        found[line["photo"], line["variant"]].append(line["correlation"])
    return {key: {"randomisation": statistics.fmean(correlations)} for key, correlations in found.items()}
