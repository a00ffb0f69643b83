"""What each method costs over its bare forward passes, and a gradient over the tail it is the gradient of.

CAMRT_REAL=… python tests/benchmarks/methods.py [--runs 15]
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import camrt
from camrt.bench import bench
from camrt.explanation import counted
from camrt.methods import METHODS
from exporters import export, layers

REAL = Path(os.environ["CAMRT_REAL"])
MODELS = ("mobilenet_v2_tv", "squeezenet11_gluon", "googlenet_caffe")
SETTINGS = {"rise": {"masks": 200}}


def milliseconds(calls: dict[str, Callable[[], object]], runs: int) -> dict[str, float]:
    """Return the median time of every call, taken in turns."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(runs + 2):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - started)
    return {name: statistics.median(values[2:]) * 1e3 for name, values in times.items()}


def costs_of_methods(explainer: camrt.Explainer, source: Path, photo: np.ndarray, runs: int, methods: list[str]) -> None:
    for name in methods:
        try:
            b = bench(explainer, source=source, photo=photo, runs=runs, methods={name: SETTINGS.get(name, {})}, images=1)
        except camrt.MethodUnavailable:
            print(f"{name:<14} not available")
            continue
        (cost,) = b.costs
        ran = counted(cost.passes, cost.tail_passes, cost.backward_passes)
        figures = f"{cost.floor.median:9.1f} {cost.explain.median:10.1f} {cost.ratio.median:7.3f}"
        print(f"{name:<14} {ran:<28} {figures}", flush=True)


def costs_of_gradients(source: Path, described: Path, runs: int) -> None:
    found = layers(source)  # the last first
    for layer in (found[-1], found[len(found) // 2], found[0]):
        with tempfile.TemporaryDirectory() as folder:
            manifest = export(source, Path(folder) / "bundle", layer=layer.tensor, preprocess=described)
            engine = camrt.load(Path(folder) / "bundle").engine
            rng = np.random.default_rng(0)
            features = rng.standard_normal((1, *manifest.features.shape[1:]), np.float32)
            cotangents = np.eye(1, manifest.classes, dtype=np.float32)[None]
            ms = milliseconds(
                {
                    "tail": lambda e=engine, f=features: e.logits(f),
                    "gradient": lambda e=engine, f=features, c=cotangents: e.gradients(f, c),
                },
                runs,
            )
            sizes = [(Path(folder) / "bundle" / f"{name}.onnx").stat().st_size / 1e3 for name in ("tail", "gradient")]
        shape = " x ".join(map(str, layer.shape))
        print(
            f"{shape:<15} {ms['tail']:8.2f} {ms['gradient']:11.2f} {ms['gradient'] / ms['tail']:6.2f} {sizes[0]:9.1f} {sizes[1]:12.1f}"
            f"   {manifest.gradient_error:.1e}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--without", nargs="+", default=[], help="methods to leave out")
    options = parser.parse_args()
    methods = [name for name in METHODS if name not in options.without]
    photo = camrt.load_photo(sorted((REAL / "photos" / "sample").glob("*"))[3]).pixels
    for model in options.models:
        source, described = REAL / "models" / f"{model}.onnx", REAL / "models" / f"{model}.json"
        with tempfile.TemporaryDirectory() as folder:
            export(source, Path(folder) / model, preprocess=described)
            print(f"\n{model}\nmethod         ran                           floor ms explain ms   ratio")
            costs_of_methods(camrt.load(Path(folder) / model), source, photo, options.runs, methods)
        print("features        tail ms gradient ms  ratio   tail kB  gradient kB   slope error")
        costs_of_gradients(source, described, options.runs)


if __name__ == "__main__":
    main()
