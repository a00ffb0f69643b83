"""What a call from a C++ host costs over the same call from Python, and what starting costs.

    python tests/benchmarks/cpp_host.py [BUNDLE] [--rounds 60] [--build FOLDER]

Both processes take turns, a block of calls each, so that the machine's changing clock meets both; idle sessions do not spin.
A call is `explain` on pixels in memory at the network's size, and the heatmap of its first target.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import camrt
from camrt.cpp import cmake_dir

HOST = Path(__file__).parents[1] / "cpp_host"
CALLS = 20  # in a block
METHODS = ("cluster-cam", "hires-cam", "eigen-cam")


def build(folder: Path) -> Path:
    """Build the host with its checks, and return the program."""
    flags = [f"-Dcamrt_DIR={cmake_dir()}", f"-DPython_EXECUTABLE={sys.executable}", "-DCAMRT_CHECKS=ON"]
    subprocess.run(["cmake", "-S", HOST, "-B", folder, *flags], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["cmake", "--build", folder, "--target", "checks"], check=True, stdout=subprocess.DEVNULL)
    return folder / "checks"


def block(explainer: camrt.Explainer, pixels: np.ndarray, method: str) -> list[float]:
    """Return the milliseconds of a block of calls from Python."""
    times = []
    for _ in range(CALLS):
        started = time.perf_counter()
        explainer.explain(pixels, method=method).heatmap  # noqa: B018
        times.append((time.perf_counter() - started) * 1e3)
    return times


def compare(program: Path, bundle: str, method: str, rounds: int) -> tuple[list[float], list[float]]:
    """Return the milliseconds of calls from Python and from C++."""
    explainer = camrt.load(bundle, providers=["cpu"])
    height, width = explainer.manifest.size
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    with tempfile.NamedTemporaryFile() as file:
        pixels.tofile(file.name)
        command = [program, "bench", sys.prefix, bundle, file.name, str(height), str(width), f"method={method}"]
        host = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert host.stdin is not None
        assert host.stdout is not None
        python, cpp = list[float](), list[float]()
        for number in range(rounds + 1):
            mine = block(explainer, pixels, method)
            print(CALLS, file=host.stdin, flush=True)
            theirs = [float(ms) for ms in host.stdout.readline().split()]
            if number:  # the first round warms up
                python += mine
                cpp += theirs
        host.stdin.close()
        host.wait()
    return python, cpp


def starting(program: Path, runs: int = 9) -> list[list[float]]:
    """Return, for every run, milliseconds to start, load and explain first, and MB of memory after that."""
    command = [program, "start", sys.prefix]
    told = [subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(runs)]
    return [[float(value) for value in line.split()] for line in told]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", nargs="?", default="shapes")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--build", type=Path, help="folder to build in  [default: a temporary one]")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        program = build(given.build or Path(folder))
        print(f"{'':<12}  {'Python':>8}  {'C++':>8}  {'C++ − Python':>12}  ms, medians of {given.rounds * CALLS} calls")
        for method in METHODS:
            python, cpp = (statistics.median(times) for times in compare(program, given.bundle, method, given.rounds))
            print(f"{method:<12}  {python:>8.3f}  {cpp:>8.3f}  {cpp - python:>+12.3f}")
        start, load, first, memory = (statistics.median(column) for column in zip(*starting(program), strict=True))
        print(f"start {start:.0f} ms, load {load:.0f} ms, first call {first:.0f} ms; {memory:.0f} MB in memory after it")


if __name__ == "__main__":
    main()
