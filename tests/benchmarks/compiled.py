"""What a compiled file costs over the bare forward passes, and over the Python runtime; its size, start and memory.

    python tests/benchmarks/compiled.py BUNDLE [--source model.onnx] [--method cluster-cam] [-p clusters=10] [--runs 30]

One process, the calls taken in turns, medians of times and of ratios, on a smooth picture.  The floor is the uncut model, or
head and tail, once with one image and once with as many as are masked.  A session's threads spin only while it runs, as
they would take the others' cores.  Start and memory are those of fresh processes of their own.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

import camrt
from camrt.answer import signed_maps
from camrt.case import Case
from camrt.image import preprocess_photo
from camrt.methods import get_method
from camrt.session import open_session
from exporters import compile_bundle
from exporters.compile import MASKED_BATCH
from exporters.fusion.proof import sample_images

WARM_UP = 3
OPEN_FILE = """
import onnxruntime
options = onnxruntime.SessionOptions()
options.log_severity_level = 3
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
image = session.get_inputs()[0]
pixels = np.random.default_rng(0).standard_normal((1, *image.shape[1:]), np.float32)
explain = lambda: session.run(None, {image.name: pixels})
"""
OPEN_BUNDLE = """
import camrt
explainer = camrt.load(sys.argv[1], providers=["cpu"])
pixels = np.random.default_rng(0).integers(0, 256, (*explainer.manifest.size, 3), np.uint8)
explain = lambda: explainer.explain(pixels, method=sys.argv[2], **dict(text.split("=") for text in sys.argv[3:])).network_heatmap
"""
FRESH = """
import re, sys, time
started = time.perf_counter()
import numpy as np
{open}
explain()
once = time.perf_counter() - started
for _ in range(9): explain()
print(once, int(re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read()).group(1)) / 1024)
"""


def fresh(how: str, *arguments: object) -> str:
    """Return how long a fresh process takes to its first heatmap, and its peak memory after ten."""
    command = [sys.executable, "-c", FRESH.replace("{open}", how), *map(str, arguments)]
    seconds, memory = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600).stdout.split()
    return f"first heatmap after {float(seconds):.2f} s, {float(memory):.0f} MB after ten"


def milliseconds(calls: dict[str, Callable[[], object]], runs: int) -> dict[str, np.ndarray]:
    """Return the milliseconds (runs,) of every call."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(WARM_UP + runs):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            times[name].append((time.perf_counter() - started) * 1e3)
    return {name: np.array(values[WARM_UP:]) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle")
    parser.add_argument("--source", type=Path)
    parser.add_argument("--method", default="cluster-cam")
    parser.add_argument("-p", "--param", action="append", default=[])
    parser.add_argument("--runs", type=int, default=30)
    options = parser.parse_args()
    parameters = dict(text.split("=", 1) for text in options.param)
    method = get_method(options.method)
    settings = method.settings(parameters)
    explainer = camrt.load(options.bundle, providers=["cpu"])
    preprocess = explainer.manifest.preprocess
    exact = replace(preprocess, resize=preprocess.size[::-1])
    x = preprocess_photo(sample_images(preprocess, [], few=True)[0], exact)[0][None]

    def in_python() -> Case:
        case = Case(explainer.engine, x)
        case.targets = case.logits.argmax(axis=1)[:, None]
        signed_maps(case, method, settings)
        return case

    masked = in_python().passes - 1
    if options.source:
        source, _ = open_session(options.source, explainer.engine.sessions.choice)
        (image,) = source.get_inputs()
        bare = lambda batch: source.run(None, {image.name: batch})  # noqa: E731
    else:
        bare = explainer.engine.forward
    several = np.repeat(x, masked, axis=0) if masked else None

    def floor() -> None:
        bare(x)
        for start in range(0, masked, MASKED_BATCH):
            bare(several[start : start + MASKED_BATCH])

    with tempfile.TemporaryDirectory() as folder:
        written = compile_bundle(options.bundle, Path(folder) / "x.onnx", method=options.method, **parameters)
        compiled, _ = open_session(written.path, explainer.engine.sessions.choice)
        found = milliseconds(
            {"floor": floor, "compiled": lambda: compiled.run(None, {"image": x}), "python": in_python}, options.runs
        )
        processes = {
            "compiled": fresh(OPEN_FILE, written.path),
            "python": fresh(OPEN_BUNDLE, options.bundle, options.method, *options.param),
        }
    print(f"{explainer.manifest.name}, {options.method} {options.param}, floor 1 + {masked} passes")
    print(f"file {written.size / 1e6:.2f} MB, {written.growth} more than the network; {written.built.agreement.verdict}")
    for name, ms in found.items():
        print(f"  {name:<9} {np.median(ms):9.2f} ms   {np.median(ms / found['floor']):.3f} of the floor beside it")
    for name, told in processes.items():
        print(f"  {name:<9} in a fresh process: {told}")


if __name__ == "__main__":
    main()
