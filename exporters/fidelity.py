"""What float16 changes: logits, the class named first, and heatmaps, between a float32 bundle and the same one in float16.

Float16 is computed as by a device that rounds every tensor, see `exporters.rounding`.  Heatmaps are compared with all choices
held fixed that the float32 network made: the class and, for Cluster-CAM, the clusters.  K-means itself may end elsewhere after
the least rounding, as it may for another seed; how far that moves the heatmap is told, but is no reason to refuse.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import onnx

from camrt.case import probabilities
from camrt.errors import ExportError
from camrt.heatmap import heatmap
from camrt.kmeans import group_means, kmeans
from camrt.methods.cluster_cam import cluster_cam
from camrt.methods.hires_cam import hires_cam
from camrt.precision import FLOAT16, Difference, Precision
from camrt.preprocess import Preprocess
from camrt.runtime import Session
from exporters.proof import open_graph, run_graph, run_score
from exporters.rounding import rounding_each

# Of three networks MobileNetV2 is off most: by 0.032 on black and by 0.01 on photos; the others by 0.007 and 0.002 at most.
LOGITS_ALLOWED = 0.05  # of the largest logit on images of that kind
MEAN_ALLOWED = 0.05  # of a heatmap in [0, 1]; at the automatic layers of three networks 0.005 was found on patterns and photos
CORRELATION_ALLOWED = 0.9  # of heatmaps, where few pixels are coloured and the mean says little; 0.95 to 1 was found
EVIDENCE = 0.01  # of the largest score: clusters that speak for the class by less are weighted by what rounding left
CLUSTERS = 10  # as Cluster-CAM has by default
HEATMAPS = 4  # of the natural images; each costs a dozen passes, and rounded ones are slow
PATTERNS, CELLS = 8, ((3, 90.0), (8, 50.0), (24, 25.0))  # images; coloured cells across, and how strong they are in grey levels
SEED = 0
ANEW = "cluster-cam clustered anew"
BOUNDS = f"{MEAN_ALLOWED:g}, to one of {CORRELATION_ALLOWED:g}"
ADVICE = "Export it with --precision fp32"

Network = Mapping[str, Session]


@dataclass(frozen=True)
class Choices:
    """What the float32 network chose for one image: the class, and every channel's cluster (C,)."""

    target: int
    clusters: np.ndarray


def open_network(folder: Path, *, rounding: bool = False) -> dict[str, Session]:
    """Return sessions of a bundle's graphs by name, on request as a device computes them that rounds every tensor."""
    return {
        path.stem: open_graph(rounding_each(onnx.load(path)).SerializeToString() if rounding else path, path.name)
        for path in sorted(folder.glob("*.onnx"))
    }


def patterns(preprocess: Preprocess) -> np.ndarray:
    """Return seeded images (N, 3, H, W) of soft coloured patches in three sizes: nearer to photos than noise is."""
    rng = np.random.default_rng(SEED)
    height, width = preprocess.size
    pixels = np.zeros((PATTERNS, preprocess.channels, height, width))
    for plane in pixels.reshape(-1, height, width):
        plane += rng.uniform(60, 190)
        for cells, strength in CELLS:
            plane += strength * cv2.resize(rng.standard_normal((cells, cells)), (width, height), interpolation=cv2.INTER_CUBIC)
    mean, std = (np.array(v)[:, None, None] for v in (preprocess.mean, preprocess.std))
    return np.asarray((np.clip(pixels, 0, 255) * preprocess.scale - mean) / std, np.float32)


def measure(exact: Network, half: Network, images: Mapping[str, np.ndarray], natural: str, kind: str) -> Precision:
    """Return what float16 changes.

    Parameters
    ----------
    exact, half : mapping of str to Session
        The graphs in float32 and in float16, of `open_network`.
    images : mapping of str to ndarray of shape (N, 3, H, W)
        By kind.
    natural : str
        The kind on which heatmaps are compared: on noise and black images they show nothing.
    kind : str
        What the output is; see bundle.json.

    Raises
    ------
    ExportError
        The logits or Cluster-CAM's heatmaps differ by more than is allowed.
    """
    worst, same = 0.0, 0
    for name, batch in images.items():
        expected, found = (np.concatenate([_forward(network, x[None])[1] for x in batch]) for network in (exact, half))
        with np.errstate(invalid="ignore"):
            change = float(np.abs(found - expected).max() / max(1.0, np.abs(expected).max()))
        told = f"the logits by {change:.3g} of the largest on {name!r} images"
        _check(change <= LOGITS_ALLOWED, told, f"{LOGITS_ALLOWED:g}")
        worst, same = max(worst, change), same + int((found.argmax(axis=1) == expected.argmax(axis=1)).sum())
    heatmaps = _compare_heatmaps(exact, half, images[natural][:HEATMAPS], kind)
    if "cluster-cam" in heatmaps:
        near, told = _is_near(heatmaps["cluster-cam"]), _told(heatmaps["cluster-cam"])
        _check(near, f"cluster-cam's heatmaps by {told}", BOUNDS, f"{ADVICE}, or cut at another layer")
    return Precision(FLOAT16, worst, LOGITS_ALLOWED, sum(map(len, images.values())), same, heatmaps)


def why_no_gradient(precision: Precision) -> str | None:
    """Return why gradients in float16 cannot be trusted: HiResCAM's heatmaps differ by more than is allowed."""
    found = precision.heatmaps.get("hires-cam")
    if found is None or _is_near(found):
        return None
    return (
        f"float16 changes hires-cam's heatmaps by {_told(found)}, allowed is {BOUNDS}; export with --precision fp32, or cut "
        "at a later layer"
    )


# --- steps --------------------------------------------------------------------------------------------------------------
def _compare_heatmaps(exact: Network, half: Network, images: np.ndarray, kind: str) -> dict[str, Difference]:
    """Return the largest difference of each method's heatmaps over the images on which float32 gives one."""
    found: dict[str, list[Difference]] = {}
    blanks = [probabilities(_forward(network, np.zeros_like(images[:1]))[1], kind) for network in (exact, half)]
    for x in np.split(images, len(images)):
        features, logits = _forward(exact, x)
        choices = Choices(int(logits.argmax()), _clusters(features))
        pairs = zip((exact, half), blanks, strict=True)
        expected, rounded = (_heatmaps(network, x, choices, kind, blank) for network, blank in pairs)
        if "cluster-cam" in expected:
            own = replace(choices, clusters=_clusters(_forward(half, x)[0]))
            expected[ANEW], anew = expected["cluster-cam"], _heatmaps(half, x, own, kind, blanks[1])
            rounded |= {ANEW: anew["cluster-cam"]} if "cluster-cam" in anew else {}
        for method in expected:
            if expected[method].any():
                other = rounded.get(method, np.zeros_like(expected[method]))
                found.setdefault(method, []).append(_difference(expected[method], other))
    return {m: Difference(max(d.mean for d in ds), min(d.correlation for d in ds)) for m, ds in sorted(found.items())}


def _heatmaps(network: Network, x: np.ndarray, choices: Choices, kind: str, blank: np.ndarray) -> dict[str, np.ndarray]:
    """Return the heatmap (H, W) of each method for one image (1, 3, H, W); `blank` (1, L) are the black image's scores."""
    size = (x.shape[2], x.shape[3])
    features, logits = _forward(network, x)
    maps = _cluster_maps(features, choices.clusters)
    scores = probabilities(run_score(network["score"], x, maps, normalise=True), kind)[..., [choices.target]]
    blank = blank[:, [choices.target]]
    signed = {}
    if (scores - blank).max() >= EVIDENCE * np.abs(scores).max():
        signed["cluster-cam"] = cluster_cam(maps, scores, blank, size)
    if "gradient" in network:
        cotangent = np.zeros_like(logits)
        cotangent[0, choices.target] = 1
        g = run_graph(network["gradient"], {"features": features, "cotangent": cotangent}, "gradient.onnx")
        signed["hires-cam"] = np.maximum(hires_cam(features, g[:, None]), 0)
    return {method: heatmap(found, size)[0, 0] for method, found in signed.items()}


def _forward(network: Network, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return features (N, C, h, w) and logits (N, L)."""
    features = run_graph(network["head"], {"image": x}, "head.onnx")
    return features, run_graph(network["tail"], {"features": features}, "tail.onnx")


def _clusters(features: np.ndarray) -> np.ndarray:
    """Return every channel's cluster (C,) of one image's features (1, C, h, w)."""
    return kmeans(features[0].reshape(features.shape[1], -1), CLUSTERS).labels


def _cluster_maps(features: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """Return the mean feature map of every cluster (1, K, h, w)."""
    means = group_means(features[0].reshape(features.shape[1], -1), clusters, int(clusters.max()) + 1)
    return np.asarray(means, np.float32).reshape(1, -1, *features.shape[2:])


def _difference(expected: np.ndarray, found: np.ndarray) -> Difference:
    a, b = (h.astype(np.float64) - h.mean(dtype=np.float64) for h in (expected, found))
    size = np.sqrt((a * a).sum() * (b * b).sum())
    correlation = float(np.clip((a * b).sum() / size, -1, 1)) if size > 0 else 0.0
    return Difference(float(np.abs(expected - found).mean()), correlation)


def _is_near(found: Difference) -> bool:
    return found.mean <= MEAN_ALLOWED and found.correlation >= CORRELATION_ALLOWED


def _told(found: Difference) -> str:
    return f"{found.mean:.3g} of 1 on average, to a correlation of {found.correlation:.3g}"


def _check(good: bool, changed: str, allowed: str, advice: str = ADVICE) -> None:
    if not good:  # NaN is refused too
        raise ExportError(f"Float16 changes {changed}; allowed is {allowed}. {advice}.")
