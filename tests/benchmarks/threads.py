"""What threads cost and bring: threads of one operator, callers at a time, spinning, and the stream; in turns.

python tests/benchmarks/threads.py [BUNDLE] [--rounds 7] [--images 24] [-p clusters=10]
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np

import camrt
from camrt.bundle import open_bundle
from camrt.engine import Engine

REST = 0.1  # seconds for threads that spin to fall asleep


def photos(size: tuple[int, int], count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (4, 9, 12, 3), np.uint8)
    made = [cv2.resize(image, size[::-1], interpolation=cv2.INTER_CUBIC) for image in coarse]
    return [made[i % len(made)] for i in range(count)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", nargs="?", default="shapes")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("-p", "--param", default="clusters=10")
    options = parser.parse_args()
    parameters = dict([options.param.split("=")])
    bundle = open_bundle(options.bundle)
    cores = os.cpu_count() or 1

    def explainer(threads: int, *, spinning: str = "running") -> camrt.Explainer:
        return camrt.Explainer(Engine(bundle, ["cpu"], threads=threads, spinning=spinning))

    def one_by_one(one: camrt.Explainer) -> Callable[[list[np.ndarray]], object]:
        return lambda images: [one.explain(image, **parameters) for image in images]

    def by_callers(one: camrt.Explainer, callers: int) -> Callable[[list[np.ndarray]], object]:
        def run(images: list[np.ndarray]) -> object:
            with ThreadPoolExecutor(callers) as pool:
                return list(pool.map(lambda image: one.explain(image, **parameters), images))

        return run

    every, single = explainer(0), explainer(1)
    sleeps, spins = explainer(0, spinning="never"), explainer(0, spinning="always")
    ways: dict[str, Callable[[list[np.ndarray]], object]] = {
        f"1 caller, {cores} threads an operator (default)": one_by_one(every),
        f"1 caller, {cores} threads that never spin": one_by_one(sleeps),
        f"1 caller, {cores} threads that always spin": one_by_one(spins),
        "1 caller, 1 thread": one_by_one(single),
        f"{cores} callers, {cores} threads an operator": by_callers(every, cores),
        f"{cores} callers, 1 thread": by_callers(single, cores),
        f"{4 * cores} callers, 1 thread": by_callers(single, 4 * cores),
        f"explain_many, {cores} threads": lambda images: list(every.explain_many(images, **parameters)),
        "explain_many, 1 thread": lambda images: list(single.explain_many(images, **parameters)),
    }
    images = photos(every.manifest.size, options.images)
    wall: dict[str, list[float]] = {name: [] for name in ways}
    processor: dict[str, list[float]] = {name: [] for name in ways}
    for i in range(options.rounds + 1):
        for name, way in ways.items():
            started, used = time.perf_counter(), time.process_time()
            way(images)
            if i:
                wall[name].append((time.perf_counter() - started) / len(images) * 1e3)
                processor[name].append((time.process_time() - used) / len(images) * 1e3)
            time.sleep(REST)
    print(f"{bundle.manifest.name}, {options.images} images a round, {options.rounds} rounds")
    print(f"{'':<44}  ms an image  quartiles        images/s  CPU ms an image")
    for name in ways:
        low, middle, high = statistics.quantiles(wall[name], n=4)
        used = statistics.median(processor[name])
        print(f"{name:<44}  {middle:11.2f}  {low:6.2f} … {high:6.2f}  {1e3 / middle:8.1f}  {used:15.2f}")


if __name__ == "__main__":
    main()
