"""What float16 changes on photos: size, time on the CPU, the class named first, and heatmaps of three methods.

CAMRT_REAL=… python tests/benchmarks/precision.py [--photos 40]
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

import camrt
from exporters import export

REAL = Path(os.environ["CAMRT_REAL"])
MODELS = ("mobilenet_v2_tv", "squeezenet11_gluon", "googlenet_caffe")
METHODS = ("cluster-cam", "group-cam", "hires-cam")


def difference(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Return mean |Δ| and correlation of two heatmaps."""
    return float(np.abs(a - b).mean()), float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def timed(explainer: camrt.Explainer, photo: camrt.Photo, **options: object) -> tuple[camrt.Explanation, float]:
    started = time.perf_counter()
    explanation = explainer.explain(photo, **options)
    return explanation, (time.perf_counter() - started) * 1e3


def report(name: str, values: list[tuple[float, float]]) -> None:
    mean, correlation = (np.array(column) for column in zip(*values, strict=True))
    print(
        f"  {name:<36} mean |Δ| {np.median(mean):.4f}, at most {mean.max():.4f}; "
        f"correlation {np.median(correlation):.4f}, at least {correlation.min():.4f}",
        flush=True,
    )


def compare(single: camrt.Explainer, half: camrt.Explainer, photos: dict[Path, int]) -> None:
    """Print what two bundles of the same network say to photos, the class held that the float32 one names."""
    same, right, found = 0, [0, 0], {name: [] for name in (*METHODS, "another seed")}
    times = {(precision, method): [] for precision in (0, 1) for method in METHODS}
    for path, label in photos.items():
        photo = camrt.load_photo(path)
        tops = [explainer.explain(photo, method="eigen-cam").targets[0].index for explainer in (single, half)]
        same += tops[0] == tops[1]
        right = [count + (top == label) for count, top in zip(right, tops, strict=True)]
        for method in METHODS:
            pair = [timed(explainer, photo, target=tops[0], method=method) for explainer in (single, half)]
            found[method].append(difference(*(explanation.network_heatmap[0] for explanation, _ in pair)))
            for precision, (_, ms) in enumerate(pair):
                times[precision, method].append(ms)
        seeds = [single.explain(photo, target=tops[0], seed=seed).network_heatmap[0] for seed in (0, 1)]
        found["another seed"].append(difference(*seeds))
    print(f"  the same class first on {same} of {len(photos)}; the right one on {right[0]} and {right[1]}")
    for method in METHODS:
        before, after = (statistics.median(times[precision, method]) for precision in (0, 1))
        report(f"{method} ({before:.0f} → {after:.0f} ms)", found[method])
    report("cluster-cam, float32, seeds 0 and 1", found["another seed"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=int, default=40)
    parser.add_argument("--models", nargs="+", default=MODELS)
    options = parser.parse_args()
    rows = list(csv.DictReader((REAL / "photos/labels.csv").open()))
    rows = rows[:: max(1, len(rows) // options.photos)][: options.photos]
    photos = {REAL / "photos" / row["file"]: int(row["class_index"]) for row in rows}
    for model in options.models:
        source, described = (REAL / "models" / f"{model}.{end}" for end in ("onnx", "json"))
        with tempfile.TemporaryDirectory() as folder:
            bundles = {precision: Path(folder) / precision for precision in ("fp32", "fp16")}
            seconds, megabytes = [], []
            for precision, bundle in bundles.items():
                started = time.perf_counter()
                manifest = export(source, bundle, preprocess=described, precision=precision)
                seconds.append(time.perf_counter() - started)
                megabytes.append(sum(path.stat().st_size for path in bundle.iterdir()) / 1e6)
            single, half = (camrt.load(bundle, providers=["cpu"]) for bundle in bundles.values())
            print(f"\n{model}: {megabytes[0]:.2f} → {megabytes[1]:.2f} MB, exported in {seconds[0]:.0f} and {seconds[1]:.0f} s")
            print(f"  at export: {manifest.precision.verdict}")
            compare(single, half, photos)


if __name__ == "__main__":
    main()
