"""What an explanation costs over the forward passes it needs, measured in one process, interleaved.

The floor is the bare network in one session: once with one image, once with K in a batch.
"""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from camrt.errors import BundleError, ParameterError
from camrt.explainer import Explainer
from camrt.photo import load_photo
from camrt.providers import open_session, versions

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
    floor_one, floor_batch : Spread
        The bare network with one image, and with K in a batch.
    explain : Spread
        `explain` on a decoded photo at network size.
    ratio : float
        explain / (floor_one + floor_batch), of the medians.
    stages : dict of str to Spread
        Parts of `explain`.
    beside : dict of str to Spread
        What else a user waits for: decoding the photo, the heatmap on it, drawing, encoding.
    memory_floor, memory_explain : float
        Peak resident memory of the process after one bare image, and at the end.
    """

    bundle: str
    floor_of: str
    method: str
    parameters: dict[str, Any]
    passes: int
    provider: str
    versions: dict[str, str]
    runs: int
    floor_one: Spread
    floor_batch: Spread
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
    method: str = "cluster-cam",
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

    floor, floor_of = _source_floor(explainer, source) if source else (_split_floor(explainer), "head → tail")
    rng = np.random.default_rng(0)
    one = rng.standard_normal((1, *manifest.image.shape[1:]), np.float32)
    floor(one)
    memory_floor = _peak_memory()
    first = explainer.explain(pixels, method=method, **parameters)
    on_photo = explainer.explain(encoded, method=method, **parameters)
    many = np.repeat(one, max(1, first.run.passes - 1), axis=0)

    times: dict[str, list[float]] = {name: [] for name in ("one", "batch", "explain")}
    stages: dict[str, list[float]] = {}
    beside: dict[str, list[float]] = {name: [] for name in ("decode", "heatmap on photo", "overlay")}
    for i in range(WARM_UP + runs):
        record: dict[str, float] = {}
        record["one"], _ = _timed(lambda: floor(one))
        record["batch"], _ = _timed(lambda: floor(many))
        record["explain"], explanation = _timed(lambda: explainer.explain(pixels, method=method, **parameters))
        record["decode"], _ = _timed(lambda: load_photo(encoded))
        record["heatmap on photo"], _ = _timed(lambda: on_photo.heatmap)
        record["overlay"], _ = _timed(lambda: on_photo.overlay())
        if i >= WARM_UP:
            for name, seconds in record.items():
                (times if name in times else beside)[name].append(seconds)
            for stage, ms in explanation.run.timings.items():
                stages.setdefault(stage, []).append(ms / 1e3)
        step()
    spreads = {name: Spread.of(values) for name, values in times.items()}
    return Bench(
        bundle=manifest.name,
        floor_of=floor_of,
        method=method,
        parameters=dict(first.run.parameters),
        passes=first.run.passes,
        provider=first.run.provider,
        versions=versions(),
        runs=runs,
        floor_one=spreads["one"],
        floor_batch=spreads["batch"],
        explain=spreads["explain"],
        ratio=round(spreads["explain"].median / (spreads["one"].median + spreads["batch"].median), 4),
        stages={stage: Spread.of(values) for stage, values in stages.items()},
        beside={name: Spread.of(values) for name, values in beside.items()},
        memory_floor=memory_floor,
        memory_explain=_peak_memory(),
    )


def _source_floor(explainer: Explainer, source: Path) -> tuple[Callable[[np.ndarray], Any], str]:
    """Return the uncut model as a function of a batch."""
    if not source.is_file():
        raise BundleError(f"{source}: there is no such file. --source takes the .onnx file that the bundle was made from.")
    session, _ = open_session(source, explainer.engine.choice, explainer.engine.threads)
    image = session.get_inputs()[0]
    if list(image.shape[1:]) != list(explainer.manifest.image.shape[1:]) or isinstance(image.shape[0], int):
        raise ParameterError(
            f"{source} takes {image.shape}, the floor needs a free batch of {list(explainer.manifest.image.shape[1:])}. "
            "Leave out --source: head → tail is measured instead."
        )
    return lambda x: session.run(None, {image.name: x}), source.name


def _split_floor(explainer: Explainer) -> Callable[[np.ndarray], Any]:
    engine = explainer.engine
    return lambda x: engine.logits(engine.features(engine.put(x)))


def _timed(call: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    result = call()
    return time.perf_counter() - started, result


def _peak_memory() -> float:
    """Return the process's peak resident memory in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1 << 20 if sys.platform == "darwin" else 1 << 10), 1)


def _pattern() -> np.ndarray:
    """Return a smooth coloured pattern of 640 × 480 pixels."""
    coarse = np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8)
    return np.asarray(cv2.resize(coarse, (640, 480), interpolation=cv2.INTER_CUBIC))
