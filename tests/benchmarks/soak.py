"""Whether memory stays where it was: thousands of explanations, and the resident memory along the way.

    python tests/benchmarks/soak.py [BUNDLE] [--count 10000] [--provider cuda] [-m cluster-cam -m hires-cam …]

Takes turns between single images, lists, streams and four threads, between all sample photos, and between the methods.
"""

from __future__ import annotations

import argparse
import itertools
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

import camrt
from camrt.memory import device_memory, own_memory

SAMPLES = Path(__file__).parents[2] / "models" / "shapes" / "samples"
MARKS = (100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000)
TURN = 5  # explanations before the way of asking changes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", nargs="?", default="shapes")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--provider", action="append")
    parser.add_argument("-m", "--method", action="append")
    options = parser.parse_args()
    methods = options.method or ["cluster-cam", "hires-cam", "group-cam", "recipro-cam"]
    explainer = camrt.load(options.bundle, options.provider)
    photos = [camrt.load_photo(path).pixels for path in sorted(SAMPLES.glob("*.png"))]
    endless = itertools.cycle(photos)

    def some() -> list[np.ndarray]:
        return list(itertools.islice(endless, TURN))

    def in_threads(method: str) -> None:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda photo: explainer.explain(photo, method=method).heatmap, some()))

    ways = (
        lambda method: [explainer.explain(photo, method=method).heatmap for photo in some()],
        lambda method: explainer.explain(some(), method=method, top=2),
        lambda method: list(explainer.explain_many(some(), method=method, then=lambda e: e.overlay())),
        in_threads,
    )
    print(f"{options.bundle} on {explainer.engine.provider}: {', '.join(methods)}; single, list, stream, four threads")
    print("explanations  resident MB  device MB  seconds", flush=True)
    started, turns = time.perf_counter(), itertools.cycle(itertools.product(ways, methods))
    marks = [mark for mark in MARKS if mark <= options.count]
    for done in range(TURN, options.count + TURN, TURN):
        way, method = next(turns)
        way(method)
        if marks and done >= marks[0]:
            device = device_memory()
            told = "none" if device is None else f"{device:.0f}"
            print(
                f"{marks.pop(0):12}  {own_memory('VmRSS'):11.1f}  {told:>9}  {time.perf_counter() - started:7.0f}", flush=True
            )


if __name__ == "__main__":
    main()
