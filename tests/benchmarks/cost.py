"""What Cluster-CAM costs over its bare forward passes, one image at a time and as a stream; K-means over scikit-learn's.

    CAMRT_REAL=… python tests/benchmarks/cost.py [--runs 12] [--networks resnet50 …] [--clusters 10 32] [--masking both]

ResNet-50, ResNet-18 and VGG-16 have random weights, the others are the real models of CAMRT_REAL (left out without it).
`never`, `always` and `whole` are what explain takes if ONNX Runtime's waiting threads never spin, or also after a run, and if the
K-means multiplies whole matrices; peak memory is that of the bare network and of the explanation, each in a process of its own.
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
import torch
from sklearn.cluster import KMeans
from torch.export import Dim

import camrt
from camrt.bench import Bench, bench
from camrt.image import preprocess_photo
from camrt.kmeans import kmeans
from camrt.methods.cluster_cam import MASKINGS
from exporters import export
from tests.networks import resnet18, resnet50, settled, vgg16

SAMPLES = Path(__file__).parents[2] / "models" / "shapes" / "samples"
RANDOM = {"resnet50": resnet50, "resnet18": lambda: settled(resnet18(), 224), "vgg16": vgg16}
REAL = ("mobilenet_v2_tv", "squeezenet11_gluon", "googlenet_caffe")
STREAM = {"vgg16": 16}  # images of a stream in a round
METHODS = ("hires-cam", "grad-cam", "recipro-cam")


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
    features = explainer.engine.whole(explainer.engine.put(x[None]))[0].numpy()[0]
    return features.reshape(len(features), -1)


def source_of(network: str, folder: Path) -> tuple[Path, dict]:
    """Return the uncut .onnx model, of any batch, and how its photos are preprocessed."""
    if network in REAL:
        models = Path(os.environ["CAMRT_REAL"]) / "models"
        return models / f"{network}.onnx", {"preprocess": models / f"{network}.json"}
    path = folder / f"{network}.onnx"
    options = {"dynamo": True, "dynamic_shapes": ({0: Dim.DYNAMIC},), "external_data": False, "verbose": False}
    torch.onnx.export(RANDOM[network]().eval(), (torch.randn(2, 3, 224, 224),), path, **options)
    return path, {"preset": "imagenet"}


def told(network: str, clusters: int, b: Bench, ours: float, theirs: float) -> str:
    cost = b.costs[0]
    effects = " ".join(f"{spread.median:8.1f}" for spread in b.effects.values())
    ratio, stream = cost.ratio, b.stream.ratio
    memory = "" if b.memory is None or b.floor_memory is None else f"{b.floor_memory.resident:6.0f} {b.memory.resident:6.0f}"
    return (
        f"{network:<18} {clusters:<3} {cost.floor.median:8.1f} {cost.explain.median:8.1f}  {ratio.median:.3f} ({ratio.low:.3f} … "
        f"{ratio.high:.3f})  {stream.median:.3f} ({stream.low:.3f} … {stream.high:.3f}) {b.stream.per_second.median:7.1f}  "
        f"{effects}  {ours:5.2f} {theirs:5.2f}  {memory}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=12)
    parser.add_argument("--networks", nargs="+", default=[*RANDOM, *(REAL if "CAMRT_REAL" in os.environ else ())])
    parser.add_argument("--clusters", nargs="+", type=int, default=[10, 32])
    parser.add_argument("--masking", choices=MASKINGS, default="both", help="image: the passes of the floor and no others")
    options = parser.parse_args()
    folder = Path(os.environ["CAMRT_REAL"]) / "photos" / "sample" if "CAMRT_REAL" in os.environ else SAMPLES
    photos = sorted(path for path in folder.glob("*") if path.suffix in (".jpg", ".jpeg", ".png", ".JPEG"))
    print(
        "network            K    floor ms  explain  over the floor          stream over it          images/s  "
        "never   always    whole  K-means, sk   MB bare, explain"
    )
    others = []
    with tempfile.TemporaryDirectory() as name:
        for network in options.networks:
            source, how = source_of(network, Path(name))
            export(source, Path(name) / network, **how)
            explainer = camrt.load(Path(name) / network)
            points = [features_of(explainer, photo) for photo in photos[:8]]
            for clusters in options.clusters:
                asked = {"cluster-cam": {"clusters": clusters, "masking": options.masking}}
                if clusters == options.clusters[0]:
                    asked |= {method: {} for method in METHODS}
                b = bench(
                    explainer, source=source, photo=camrt.load_photo(photos[3]).pixels, runs=options.runs, methods=asked,
                    images=STREAM.get(network, 32),
                )  # fmt: skip
                ours = statistics.mean(milliseconds(partial(kmeans, p, clusters)) for p in points)
                judge = KMeans(clusters, n_init=1, random_state=0)
                theirs = statistics.mean(milliseconds(partial(judge.fit, p)) for p in points)
                print(told(network, clusters, b, ours, theirs), flush=True)
                others += [(network, cost) for cost in b.costs[1:]]
    print("\nnetwork            method        one pass ms  explain  over the pass")
    for network, cost in others:
        ratio = cost.ratio
        figures = (
            f"{cost.floor.median:8.2f} {cost.explain.median:8.2f}  {ratio.median:.3f} ({ratio.low:.3f} … {ratio.high:.3f})"
        )
        print(f"{network:<18} {cost.method:<12}  {figures}")


if __name__ == "__main__":
    main()
