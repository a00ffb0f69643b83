"""What Cluster-CAM costs over its bare forward passes, and K-means over scikit-learn's.

    CAMRT_REAL=… python tests/benchmarks/cost.py [--runs 30]

ResNet-18 has random weights, the others are the real models of CAMRT_REAL (left out without it).
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnx
from sklearn.cluster import KMeans

import camrt
from camrt.bench import bench
from camrt.image import preprocess_photo
from camrt.kmeans import kmeans
from exporters import export
from exporters.source import read_source
from tests.networks import resnet18

SAMPLES = Path(__file__).parents[2] / "models" / "shapes" / "samples"


def milliseconds(call: Callable[[], object], runs: int = 30) -> float:
    call()
    times = []
    for _ in range(runs):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return statistics.median(times) * 1e3


def features_of(explainer: camrt.Explainer, photo: Path) -> np.ndarray:
    """Return the feature maps (C, h · w) of a photo."""
    x, _ = preprocess_photo(camrt.load_photo(photo).pixels, explainer.manifest.preprocess)
    features = explainer.engine.features(explainer.engine.put(x[None])).numpy()[0]
    return features.reshape(len(features), -1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=30)
    options = parser.parse_args()
    real = Path(os.environ["CAMRT_REAL"]) if "CAMRT_REAL" in os.environ else None
    photos = sorted((real / "photos" / "sample").glob("*")) if real else sorted(SAMPLES.glob("*.png"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        onnx.save(read_source(resnet18().eval(), None, (224, 224)).model, folder / "resnet18.onnx")
        sources = {"resnet18": (folder / "resnet18.onnx", {"preset": "imagenet"})}
        for model in ("mobilenet_v2_tv", "squeezenet11_gluon", "googlenet_caffe") if real else ():
            sources[model] = (real / "models" / f"{model}.onnx", {"preprocess": real / "models" / f"{model}.json"})
        print("model               K   floor ms  explain ms  ratio  K-means ms  of floor  scikit-learn ms  of it")
        for model, (source, how) in sources.items():
            export(source, folder / model, **how)
            explainer = camrt.load(folder / model)
            points = [features_of(explainer, photo) for photo in photos[:8]]
            floor = source if model != "resnet18" else None  # torch writes a fixed batch: head → tail instead
            for clusters in (10, 32):
                b = bench(
                    explainer, source=floor, photo=camrt.load_photo(photos[3]).pixels, runs=options.runs, clusters=clusters
                )
                bare = b.floor_one.median + b.floor_batch.median
                ours = statistics.mean(milliseconds(partial(kmeans, p, clusters)) for p in points)
                judge = KMeans(clusters, n_init=1, random_state=0)
                theirs = statistics.mean(milliseconds(partial(judge.fit, p)) for p in points)
                figures = f"{bare:8.1f}  {b.explain.median:10.1f}  {b.ratio:5.3f}  {ours:10.2f}  {ours / bare:8.1%}"
                print(f"{model:<19} {clusters:<3} {figures}  {theirs:15.2f}  {ours / theirs:5.2f}", flush=True)


if __name__ == "__main__":
    main()
