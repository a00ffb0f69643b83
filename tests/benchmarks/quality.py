"""Which map serves best on real models and photos: the readings of Cluster-CAM, or the methods.

    CAMRT_REAL=… python tests/benchmarks/quality.py merges
    CAMRT_REAL=… python tests/benchmarks/quality.py methods [--slow] [--photos 20] [--models mobilenet_v2_tv …]

For every photo that the model names rightly: insertion − deletion (protocol `rise` with 14 steps), average drop, and whether
the heatmap's maximum lies in the object's box.  Deletion sets pixels to 0 in preprocessed space, insertion starts from a
Gaussian blur (kernel 11, σ 5, zero padding); classes are scored by softmax.
"""

from __future__ import annotations

import argparse
import csv
import os
import tempfile
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np

import camrt
from camrt.case import probabilities
from camrt.explainer import Explainer
from camrt.image import preprocess_photo, restore
from camrt.methods import METHODS
from camrt.methods.registry import MASKED_IMAGES

REAL = Path(os.environ["CAMRT_REAL"])
STEPS = 14
MODELS = ["mobilenet_v2_tv", "squeezenet11_gluon", "googlenet_caffe"]
MERGES = [{"clusters": clusters, "merge": merge} for clusters in (10, 32) for merge in ("extremes", "evidence", "positive")] + [
    {"metric": "cosine"},
    {"baseline": "blur"},
    {"score": "logit"},
    {"clusters": "auto"},
    {"clustering": "spectral"},
    {"clustering": "agglomerative"},
    {"masking": "features"},
    {"masking": "features", "score": "logit"},
    {"masking": "features", "clusters": 32},
]
SLOW = [{"method": "score-cam"}, {"method": "rise", "masks": 1000}]
NEED_NO_IMAGES = [name for name, method in METHODS.items() if MASKED_IMAGES not in method.needs]
SETS = {
    "merges": MERGES,
    "methods": [{"method": "cluster-cam"}, {"method": "group-cam"}, {"method": "group-cam", "variant": "2021-03"}]
    + [{"method": name} for name in NEED_NO_IMAGES],
}


def score(explainer: Explainer, batch: np.ndarray, target: int) -> np.ndarray:
    return probabilities(explainer.engine.forward(batch), explainer.manifest.kind)[:, target]


def curve(explainer: Explainer, start: np.ndarray, end: np.ndarray, heatmap: np.ndarray, target: int) -> float:
    """Return the area under the score while pixels turn from `start` to `end` by falling saliency."""
    order = np.argsort(-heatmap.ravel(), kind="stable")
    images = np.repeat(start[None], STEPS + 1, axis=0).reshape(STEPS + 1, start.shape[0], -1)
    for i in range(STEPS + 1):
        changed = order[: round(order.size * i / STEPS)]
        images[i][:, changed] = end.reshape(end.shape[0], -1)[:, changed]
    scores = score(explainer, images.reshape(-1, *start.shape), target)
    return float((scores.sum() - scores[0] / 2 - scores[-1] / 2) / STEPS)


def blur(x: np.ndarray) -> np.ndarray:
    return np.stack([cv2.GaussianBlur(plane, (11, 11), 5, borderType=cv2.BORDER_CONSTANT) for plane in x])


def centre_blob(size: tuple[int, int]) -> np.ndarray:
    """Return a fixed soft spot in the centre, (H, W) in [0, 1]: what any method must beat."""
    spot = np.zeros((7, 7), np.float32)
    spot[2:5, 2:5] = 1
    smooth = cv2.GaussianBlur(cv2.resize(spot, size[::-1]), (0, 0), size[0] / 14)
    return smooth / smooth.max()


def measure(
    explainer: Explainer, path: Path, target: int, boxes: list[list[float]], variants: list[dict]
) -> dict[str, tuple[float, ...]]:
    photo = camrt.load_photo(path)
    x, where = preprocess_photo(photo.pixels, explainer.manifest.preprocess)
    whole = float(score(explainer, x[None], target)[0])
    found = {}
    for variant in [*variants, None]:
        if variant is None:
            heatmap = centre_blob(where.network)
            on_photo = restore(heatmap, where)
        else:
            try:
                explanation = explainer.explain(photo, target=target, **variant)
            except camrt.MethodUnavailable:
                continue
            heatmap, on_photo = explanation.network_heatmap[0], explanation.heatmap[0]
        deletion = curve(explainer, x, np.zeros_like(x), heatmap, target)
        insertion = curve(explainer, blur(x), x, heatmap, target)
        drop = max(0.0, whole - float(score(explainer, (x * heatmap)[None], target)[0])) / whole
        row, column = np.unravel_index(on_photo.argmax(), on_photo.shape)
        inside = any(x0 <= column + 0.5 <= x1 and y0 <= row + 0.5 <= y1 for x0, y0, x1, y1 in boxes)
        name = ", ".join(f"{key}={value}" for key, value in variant.items()) if variant else "a blob in the centre"
        found[name] = (insertion - deletion, drop, float(inside) if boxes else np.nan)
    return found


def main() -> None:
    from exporters import export

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("set", choices=SETS)
    parser.add_argument("--slow", action="store_true", help="the methods with a thousand passes too")
    parser.add_argument("--photos", type=int, default=1000, help="at most")
    parser.add_argument("--models", nargs="+", default=MODELS)
    options = parser.parse_args()
    variants = SETS[options.set] + (SLOW if options.slow else [])
    labels = {r["file"]: int(r["class_index"]) for r in csv.DictReader((REAL / "photos/labels.csv").open())}
    boxes = defaultdict(list)
    for r in csv.DictReader((REAL / "photos/boxes.csv").open()):
        boxes[r["file"]].append([float(r[k]) for k in ("x0", "y0", "x1", "y1")])
    for name in options.models:
        with tempfile.TemporaryDirectory() as folder:
            described = REAL / "models" / f"{name}.json"
            export(REAL / "models" / f"{name}.onnx", Path(folder) / name, preprocess=described)
            explainer = camrt.load(Path(folder) / name)
            rows, seen = defaultdict(list), 0
            for file, target in labels.items():
                path = REAL / "photos" / file
                if seen < options.photos and explainer.explain(path, method="eigen-cam").targets[0].index == target:
                    seen += 1
                    for variant, values in measure(explainer, path, target, boxes[file], variants).items():
                        rows[variant].append(values)
        print(f"\n{name}: {seen} photos  (insertion − deletion, average drop, pointing)")
        for variant, values in rows.items():
            gain, drop, pointing = np.nanmean(np.array(values), axis=0)
            print(f"  {gain:.3f}  {drop:.3f}  {pointing:.2f}  {variant}", flush=True)


if __name__ == "__main__":
    main()
