"""What an explanation costs over the forward passes it needs, measured in one process, interleaved.

The floor is the bare network in one session: once with one image, and once more with as many as are masked, in as large
batches.  A gradient or a pass of the tail has no bare counterpart; what it costs shows in the ratio.
"""

from __future__ import annotations

import resource
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from camrt.errors import ParameterError
from camrt.explainer import DEFAULT_METHOD, Explainer
from camrt.explanation import Explanation
from camrt.files import sha256_of
from camrt.photo import load_photo
from camrt.providers import open_session, versions
from camrt.render import encode_png

MAX_JPEG_SIDE = 65_500  # pixels
WARM_UP = 3  # rounds that are not counted


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of several runs, in milliseconds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, seconds: list[float]) -> Spread:
        low, middle, high = statistics.quantiles(seconds, n=4) if len(seconds) > 1 else seconds * 3
        return cls(*(round(s * 1e3, 3) for s in (middle, low, high)))


@dataclass(frozen=True)
class Bench:
    """The result of a benchmark; times in milliseconds, memory in MB.

    Attributes
    ----------
    floor_one : Spread
        The bare network with one image.
    floor_batch : Spread or None
        With as many as `explain` masks; None for a method that masks none.
    explain : Spread
        `explain` on a decoded photo at network size.
    ratio : float
        explain / (floor_one + floor_batch), of the medians.
    stages : dict of str to Spread
        Parts of `explain`.
    beside : dict of str to Spread
        What else a user waits for: decoding the photo; the heatmap on it; the overlay, which contains that; encoding it.
    memory_floor, memory_explain : float
        Peak resident memory of the process after one bare image, and at the end.
    """

    bundle: str
    floor_of: str
    method: str
    parameters: dict[str, Any]
    passes: int
    tail_passes: int
    backward_passes: int
    provider: str
    versions: dict[str, str]
    runs: int
    floor_one: Spread
    floor_batch: Spread | None
    explain: Spread
    ratio: float
    stages: dict[str, Spread]
    beside: dict[str, Spread]
    memory_floor: float
    memory_explain: float

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON has it."""
        return asdict(self)


def bench(
    explainer: Explainer,
    *,
    source: Path | None = None,
    photo: np.ndarray | None = None,
    runs: int = 20,
    method: str = DEFAULT_METHOD,
    step: Callable[[], None] = lambda: None,
    **parameters: Any,
) -> Bench:
    """Measure an explainer.

    Parameters
    ----------
    source : path, optional
        The uncut .onnx model as the floor; without it head → tail, one after the other.
    photo : ndarray of shape (H, W, 3), uint8 RGB, optional
        By default a smooth coloured pattern.
    runs : int
        Rounds that are counted, after three that are not.
    step : callable, optional
        Called after every round.
    """
    if runs < 1:
        raise ParameterError(f"runs must be at least 1, got {runs}.")
    manifest = explainer.manifest
    height, width = manifest.size
    full = _pattern() if photo is None else photo
    pixels = cv2.resize(full, (width, height), interpolation=cv2.INTER_AREA)
    done, jpeg = cv2.imencode(".jpg", full[..., ::-1]) if max(full.shape) <= MAX_JPEG_SIDE else (False, None)
    if not done or jpeg is None:
        raise ParameterError(f"A photo of {full.shape[1]} x {full.shape[0]} pixels cannot be a JPEG. Take another for bench.")
    encoded = jpeg.tobytes()

    floor, floor_of = _source_floor(explainer, source) if source else (explainer.engine.forward, "head → tail")
    rng = np.random.default_rng(0)
    one = rng.standard_normal((1, *manifest.image.shape[1:]), np.float32)
    floor(one)
    memory_floor = _peak_memory()
    first = explainer.explain(pixels, method=method, **parameters)
    on_photo = explainer.explain(encoded, method=method, **parameters)
    overlaid = on_photo.overlay()
    masked = first.run.passes - 1
    batch = np.repeat(one, max(1, min(masked, first.run.masked_batch)), axis=0)

    def floor_of_masked() -> None:
        for start in range(0, masked, len(batch)):
            floor(batch[: masked - start])

    calls: dict[str, Callable[[], Any]] = {
        "one": lambda: floor(one),
        **({"batch": floor_of_masked} if masked else {}),
        "explain": lambda: explainer.explain(pixels, method=method, **parameters),
        "decode": lambda: load_photo(encoded),
        "heatmap on photo": lambda: on_photo.heatmap,
        "overlay": lambda: on_photo.overlay(),
        "encode PNG": lambda: encode_png(overlaid),
    }
    times, explanations = _rounds(calls, runs, step)
    stages = {stage: [e.run.timings[stage] / 1e3 for e in explanations] for stage in first.run.timings}
    spreads = {name: Spread.of(values) for name, values in times.items()}
    bare = sum(float(np.median(times[name])) for name in ("one", "batch") if name in times)
    return Bench(
        bundle=manifest.name,
        floor_of=floor_of,
        method=method,
        parameters=dict(first.run.parameters),
        passes=first.run.passes,
        tail_passes=first.run.tail_passes,
        backward_passes=first.run.backward_passes,
        provider=first.run.provider,
        versions=versions(),
        runs=runs,
        floor_one=spreads.pop("one"),
        floor_batch=spreads.pop("batch", None),
        explain=spreads.pop("explain"),
        ratio=round(float(np.median(times["explain"])) / bare, 4),
        stages={stage: Spread.of(values) for stage, values in stages.items()},
        beside=spreads,
        memory_floor=memory_floor,
        memory_explain=_peak_memory(),
    )


def _rounds(
    calls: dict[str, Callable[[], Any]], runs: int, step: Callable[[], None]
) -> tuple[dict[str, list[float]], list[Explanation]]:
    """Return the seconds of every call in every counted round, and the explanations."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    explanations = []
    for i in range(WARM_UP + runs):
        for name, call in calls.items():
            started = time.perf_counter()
            result = call()
            seconds = time.perf_counter() - started
            if i >= WARM_UP:
                times[name].append(seconds)
                if name == "explain":
                    explanations.append(result)
        step()
    return times, explanations


def _source_floor(explainer: Explainer, source: Path) -> tuple[Callable[[np.ndarray], Any], str]:
    """Return the uncut model as a function of a batch."""
    if not source.is_file():
        raise ParameterError(f"{source}: there is no such file. --source takes the .onnx file that the bundle was made from.")
    if sha256_of(source) != explainer.manifest.source.sha256:
        warnings.warn(
            f"{source} is not the file that the bundle was made from ({explainer.manifest.source.file}); "
            "the ratio compares two models.",
            UserWarning,
            stacklevel=3,
        )
    session, _ = open_session(source, explainer.engine.choice, explainer.engine.threads)
    image = session.get_inputs()[0]
    if list(image.shape[1:]) != list(explainer.manifest.image.shape[1:]) or isinstance(image.shape[0], int):
        raise ParameterError(
            f"{source} takes {image.shape}, the floor needs a free batch of {list(explainer.manifest.image.shape[1:])}. "
            "Leave out --source: head → tail is measured instead."
        )
    return lambda x: session.run(None, {image.name: x}), source.name


def _peak_memory() -> float:
    """Return the process's peak resident memory in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1 << 20 if sys.platform == "darwin" else 1 << 10), 1)


def _pattern() -> np.ndarray:
    """Return a smooth coloured pattern of 640 × 480 pixels."""
    coarse = np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8)
    return np.asarray(cv2.resize(coarse, (640, 480), interpolation=cv2.INTER_CUBIC))
