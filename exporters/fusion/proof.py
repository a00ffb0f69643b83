"""Prove a compiled graph: on random and smooth images its heatmaps must be those of the Python runtime.

max|Δ heatmap| ≤ 1e-4, the same outcomes and clusters, logits as exact as the bundle's split.

An image can hang on rounding: the baseline's score equals the masked image's but for the last bits, a value lies between two
steps of a quantised network, a feature map as near to one cluster as to another.  Whether it does is asked of the Python
runtime itself, by pixels and scores that differ in the last bits; there the graph may differ ten times as much as that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import cv2
import numpy as np

from camrt.answer import signed_maps
from camrt.case import ALL, Case
from camrt.errors import BundleError, ExportError, one_line
from camrt.explainer import Explainer
from camrt.heatmap import heatmap
from camrt.image import preprocess_photo
from camrt.methods import Method
from camrt.methods.cluster_cam import cluster_maps
from camrt.photo import ImageSource, load_photo
from camrt.preprocess import Preprocess
from camrt.providers import Choice
from camrt.runtime import Session, runtime
from camrt.session import open_session
from exporters.fusion.graph import LABELS
from exporters.proof import TOLERANCE as LOGITS_TOLERANCE

TOLERANCE = 1e-4  # of a heatmap, whose values are 0 to 1
QUANTISED = 0.05  # of a quantised network's, whose values step: in one graph ONNX Runtime may fuse the same operators otherwise
SEED = 0
SMOOTH, NOISE = 4, 3  # images of each kind
FEW = 1, 1  # for methods of many passes
MANY_PASSES = 100
LAST_BITS = 2.0**-19  # relative; pixels and scores are moved by up to that much, about what float32 makes of them
TRIALS = 3
MORE = 10  # times what rounding of the pixels does; that of the masks comes on top.  A wrong graph is off by far more
TARGETS = np.array([[-1, -2, -3]])


@dataclass(frozen=True)
class Agreement:
    """How well a compiled graph reproduces the Python runtime.

    Attributes
    ----------
    images : int
        How many were compared, for up to three classes each.
    tolerance, heatmap : float
        Allowed and largest difference of the heatmaps.
    on_rounding : int
        Images whose heatmap hangs on rounding in the Python runtime too, and are not counted in `heatmap`.
    rounding : float
        The largest difference on those.
    logits : float
        Largest difference of the logits from the bundle's, over max(1, max|z|),
    split : float
        and of the bundle's from those of the source model.
    clusters : int or None
        Images whose clusters were compared, and equal; None for a method without.
    """

    images: int
    tolerance: float
    heatmap: float
    on_rounding: int
    rounding: float
    logits: float
    split: float
    clusters: int | None

    def to_json(self) -> dict[str, Any]:
        """Return the figures as JSON has them."""
        return asdict(self)

    @property
    def verdict(self) -> str:
        """Say how well the runtime is reproduced, on one line."""
        exact = self.images - self.on_rounding
        text = f"heatmaps within {self.heatmap:.2g} on {exact} of {self.images} images (allowed is {self.tolerance:g})"
        if self.on_rounding:
            text += f", within {self.rounding:.2g} on the {self.on_rounding} that hang on rounding"
        return f"{text}; logits within {self.logits:.2g}"


@dataclass(frozen=True)
class Comparison:
    """One image through both runtimes.

    Attributes
    ----------
    error : float
        Largest difference of the heatmaps; 1 where an outcome differs.
    by_rounding : float or None
        How far rounding alone moves the Python runtime's; None where nobody had to ask.
    logits : float
        Largest difference, over max(1, max|z|).
    same_clusters : bool or None
    tolerance : float
        What `error` may be, rounding apart.
    """

    error: float
    by_rounding: float | None
    logits: float
    same_clusters: bool | None
    tolerance: float = TOLERANCE

    @property
    def allowed(self) -> float:
        return self.tolerance if self.by_rounding is None else max(self.tolerance, MORE * self.by_rounding)

    @property
    def holds(self) -> bool:
        return self.error <= self.allowed and (self.same_clusters is not False or self.hangs)

    @property
    def hangs(self) -> bool:
        """Tell whether rounding alone moves the heatmap by more than is allowed."""
        return self.by_rounding is not None and MORE * self.by_rounding > self.tolerance

    @property
    def tells(self) -> bool:
        """Tell whether a wrong heatmap would show."""
        return self.allowed < 0.5


def sample_images(preprocess: Preprocess, photos: Iterable[ImageSource], few: bool) -> list[np.ndarray]:
    """Return RGB images (H, W, 3) uint8: smooth patterns, noise, saturated pixels, and photos as the network sees them."""
    rng = np.random.default_rng(SEED)
    height, width = preprocess.size
    smooth, noise = FEW if few else (SMOOTH, NOISE)
    images = [_pattern(rng, (height, width), cells=3 + i) for i in range(smooth)]
    images += [rng.integers(0, 256, (height, width, 3), np.uint8) for _ in range(noise)]
    images += [] if few else [rng.choice(np.array([0, 255], np.uint8), (height, width, 3))]
    plain = replace(preprocess, color="rgb", scale=1.0, mean=(0.0,) * 3, std=(1.0,) * 3)
    for photo in photos:
        planes, _ = preprocess_photo(load_photo(photo).pixels, plain)
        images.append(planes.transpose(1, 2, 0).astype(np.uint8))
    return images


def prove(
    model: bytes, explainer: Explainer, method: Method, settings: Mapping[str, Any], *, pixels: str,
    photos: Sequence[ImageSource] = (), passes: int = 1, tolerance: float = TOLERANCE,
    progress: Callable[[str], None] = lambda step: None,
) -> Agreement:  # fmt: skip
    """Return how well a graph reproduces the Python runtime.

    Parameters
    ----------
    model : bytes
        From `fuse`, with the output `LABELS`.
    explainer : Explainer
        Of the bundle, on the CPU.
    method, settings
        What was compiled.
    pixels : {"float", "uint8"}
        What the graph's input is.
    photos : sequence of image sources
        To be compared besides.
    passes : int
        Roughly what an image costs; many make the set of images small.
    tolerance : float
        Of the heatmaps.
    progress : callable, optional
        Called with the name of each step.

    Raises
    ------
    ExportError
        ONNX Runtime cannot run the graph, or it does not reproduce the runtime.
    """
    preprocess, classes = explainer.manifest.preprocess, explainer.manifest.classes
    images = sample_images(preprocess, photos, few=passes > MANY_PASSES)
    exact = replace(preprocess, resize=(preprocess.size[1], preprocess.size[0]))
    inputs = np.stack([preprocess_photo(image, exact)[0] for image in images])
    given = np.stack(images) if pixels == "uint8" else inputs
    session = open_graph(model)
    found: list[Comparison] = []
    together = 2 if explainer.manifest.one_by_one is None else 1
    for batch in (slice(0, 1), *(slice(i, i + together) for i in range(1, len(images), together))):
        progress(f"check {min(batch.stop, len(images))} of {len(images)}")
        answers = _run(session, {"image": given[batch], "target": TARGETS[:, :classes]})
        found += _compare(explainer, method, settings, inputs[batch], answers, tolerance)
    for number, comparison in enumerate(found):
        _check(method, number, comparison)
    if not any(comparison.tells for comparison in found):
        raise ExportError(
            f"The compiled graph of {method.name} cannot be proved: on all {len(found)} sample images rounding alone moves the "
            "heatmap. Give photos of the network's kind with --sample, or explain with the bundle itself."
        )
    exactly = [c for c in found if c.by_rounding is None]
    hanging = [c for c in found if c.by_rounding is not None]
    same = [c.same_clusters for c in found if c.same_clusters is not None]
    return Agreement(
        images=len(found),
        tolerance=tolerance,
        heatmap=max((c.error for c in exactly), default=0.0),
        on_rounding=len(hanging),
        rounding=max((c.error for c in hanging), default=0.0),
        logits=max(c.logits for c in found),
        split=explainer.manifest.split.error,
        clusters=sum(same) if same else None,
    )


def _compare(
    explainer: Explainer, method: Method, settings: Mapping[str, Any], x: np.ndarray,
    answers: Mapping[str, np.ndarray], tolerance: float,
) -> list[Comparison]:  # fmt: skip
    """Compare what a graph answered to images (N, 3, H, W) with the Python runtime."""
    case, heatmaps, codes = _explained(explainer, method, settings, x, answers["targets"])
    labels = cluster_labels(case.features, settings) if LABELS in answers else None
    found = []
    for i in range(len(x)):
        error = _difference(answers["heatmap"][i], answers["outcomes"][i], heatmaps[i], codes[i])
        same = None if labels is None else bool((labels[i] == answers[LABELS][i]).all())
        by_rounding = None
        if not error <= tolerance or same is False:
            by_rounding = _rounding(explainer, method, settings, x[i : i + 1], answers["targets"][i : i + 1])
        logits = _logits_error(answers["logits"][i], case.logits[i])
        found.append(Comparison(error, by_rounding, logits, same, tolerance))
    return found


def _explained(
    explainer: Explainer,
    method: Method,
    settings: Mapping[str, Any],
    x: np.ndarray,
    targets: np.ndarray,
    kind: type[Case] = Case,
) -> tuple[Case, np.ndarray, np.ndarray]:
    case = kind(explainer.engine, x)
    case.targets = targets
    signed, codes = signed_maps(case, method, dict(settings))
    return case, heatmap(signed, case.size), codes


class _Shaken(Case):
    """A case whose scores are off in their last bits, as those of another batch, or of other kernels, would be."""

    def scores(self, logits: np.ndarray, score: str, rows: slice = ALL) -> np.ndarray:
        found = super().scores(logits, score, rows)
        rng = np.random.default_rng([SEED, rows.start or 0])  # each image in its own way
        return found * (1 + rng.uniform(-LAST_BITS, LAST_BITS, found.shape)).astype(np.float32)


def _rounding(explainer: Explainer, method: Method, settings: Mapping[str, Any], x: np.ndarray, targets: np.ndarray) -> float:
    """Return how far the heatmaps of an image move, at most, when its values and the network's scores do in their last bits."""
    _, before, codes = _explained(explainer, method, settings, x, targets)
    moved = np.random.default_rng(SEED).uniform(-LAST_BITS, LAST_BITS, (TRIALS, *x.shape[1:]))
    nearby = (x * (1 + moved)).astype(np.float32)
    _, after, others = _explained(explainer, method, settings, nearby, np.repeat(targets, TRIALS, axis=0), _Shaken)
    return max(_difference(before[0], codes[0], *found) for found in zip(after, others, strict=True))


def _logits_error(a: np.ndarray, b: np.ndarray) -> float:
    """Return max|Δ| over max(1, max|z|); infinite where not the same ones of both are finite."""
    finite = np.isfinite(b)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True) or not np.isfinite(a[finite]).all():
        return float("inf")
    return float(np.abs(a[finite] - b[finite]).max(initial=0) / np.abs(b[finite]).max(initial=1))


def _difference(a: np.ndarray, a_codes: np.ndarray, b: np.ndarray, b_codes: np.ndarray) -> float:
    """Return the largest difference of heatmaps (T, H, W); 1 where an outcome differs."""
    return float(np.abs(a - b).max()) if (a_codes == b_codes).all() else 1.0


def _check(method: Method, number: int, found: Comparison) -> None:
    if not found.logits <= LOGITS_TOLERANCE:
        raise ExportError(
            f"The compiled graph does not reproduce the network: on sample image {number} its logits differ by "
            f"{found.logits:.3g} of the largest, allowed is {LOGITS_TOLERANCE:g}. Explain with the bundle itself."
        )
    if not found.holds:
        clusters = ", and its clusters are others" if found.same_clusters is False else ""
        raise ExportError(
            f"The compiled graph does not reproduce {method.name}: on sample image {number} its heatmap differs from the "
            f"Python runtime's by {found.error:.3g}{clusters}, allowed is {found.allowed:.3g}; rounding alone moves it by "
            f"{found.by_rounding:.3g}. Choose other parameters, or explain with the bundle itself."
        )


def cluster_labels(features: np.ndarray, settings: Mapping[str, Any]) -> np.ndarray:
    """Return the clusters (N, C) that cluster-cam finds."""
    return cluster_maps(features, settings["clusters"], metric=settings["metric"], seed=settings["seed"]).labels


def _pattern(rng: np.random.Generator, size: tuple[int, int], cells: int) -> np.ndarray:
    """Return smooth colours (H, W, 3), uint8."""
    coarse = rng.integers(0, 256, (cells, cells, 3), np.uint8)
    return np.asarray(cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC))


def open_graph(model: bytes) -> Session:
    """Return a session on the CPU.

    Raises
    ------
    ExportError
        ONNX Runtime refuses the graph.
    """
    try:
        return open_session(model, Choice(("cpu",), explicit=True), name="the compiled graph")[0]
    except BundleError as error:
        raise ExportError(str(error)) from None


def _run(session: Session, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    names = [output.name for output in session.get_outputs()]
    try:
        return dict(zip(names, session.run(names, feeds), strict=True))
    except Exception as error:  # ONNX Runtime's exceptions have no common public base
        raise ExportError(f"{runtime()} cannot run the compiled graph: {one_line(error)}") from None
