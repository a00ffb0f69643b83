"""What the same explanation costs elsewhere, on the same weights, image, class and layer, on a CPU.

    python -m venv peers-venv
    peers-venv/bin/pip install torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu
    peers-venv/bin/pip install --no-deps -r tests/benchmarks/peers.txt
    PYTHONPATH=. peers-venv/bin/python tests/benchmarks/peers.py [--networks resnet50 …] [--rounds 15] [--score-cam]

--no-deps, because OpenVINO XAI 1.1 asks for numpy 1 and openvino-dev 2024.4, but runs with those of peers.txt, and because
pytorch-grad-cam asks for torchvision.  Where torchvision is missing, `Compose`, `Normalize`, `ToTensor` and `resize`, which
pytorch_grad_cam imports, are replaced by None while it is imported; nothing that is timed calls them.  What is not
installed is left out and named.

Every row begins with what its library takes, pixels of the network's size for camrt, the preprocessed tensor for the others,
and ends with a heatmap of H × W; models, hooks and sessions are made before.  Each library is used as its own documentation
has it: pytorch-grad-cam derives by all weights, torchcam by the tail alone.  "By hand" is tests/benchmarks/eager.py.
scikit-learn's n_init is 1 by default since 1.4 and was 10 before.  OpenVINO computes in bfloat16 by default where the CPU
has it; OpenVINO XAI takes no options, so its graph is compiled by this script, once in that precision and once in float32.

Rows take turns in one process: a pause, a call that is not counted, then calls for 0.15 s, of which the median counts; in
each round another row comes first.  The pause is there because threads of OpenMP and OpenBLAS spin for a while after their
work: right after a forward pass of eager PyTorch, one of ONNX Runtime took 12.9 and one of OpenVINO 13.2 ms, with 20 ms
between 9.7 and 9.5 (ResNet-18, one image).  A turn in which other processes had more than a tenth of a core is taken again,
four times at most: eager PyTorch suffers most from them.

glibc is told to keep freed memory, for which the script starts itself once more (`--malloc default` leaves that out): PyTorch
has no arena of its own on the CPU, and with the memory of a batch fetched from the kernel in every call, 32 images took eager
PyTorch 1037 ms on MobileNetV2, else 209 to 279.  With VGG-16 and K = 32 the process takes some 13 GB.

`max |Δ|` is the largest difference from camrt's signed map, both upsampled and stretched to [0, 1]; for eager Cluster-CAM
with camrt's clusters.  "× its passes" is the ratio to the bare passes of the same engine.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import numpy as np
    import torch

    import camrt
    import exporters
    from camrt.floor import Spread
    from camrt.image import preprocess_photo
    from tests import networks
    from tests.benchmarks.peer_calls import LIBRARIES, Row, Scene, asked, reference, score_cams
except ImportError as missing:
    raise SystemExit(f"peers.py needs {missing.name}: see the first lines of it for how its environment is made.") from None

SIZE = 224
NETWORKS: dict[str, tuple[Callable[[], torch.nn.Module], str]] = {
    "resnet50": (networks.resnet50, "layer4"),
    "resnet18": (lambda: networks.settled(networks.resnet18(), SIZE), "layer4"),
    "vgg16": (networks.vgg16, "stage5.convs"),
    "mobilenet_v2": (networks.mobilenet_v2, "1"),
}
PAUSE = 0.1  # seconds after which no thread of the row before spins any more
TURN = 0.15  # seconds of calls in one turn of a row
WARM_UP = 1  # rounds that are not counted
QUIET = 0.1  # cores that other processes may have during a turn
KEEP = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40)}  # glibc: nothing freed goes back to the kernel
TRIES, LATER = 5, 2.0  # how often a disturbed turn is taken, and how many seconds lie between


def scene_of(name: str, folder: Path, threads: int, clusters: list[int]) -> Scene:
    """Return a network with random weights in all its forms, a smooth picture, and the class that gains most by it over black."""
    make, layer = NETWORKS[name]
    model = make().eval()
    example = torch.zeros(2, 3, SIZE, SIZE)
    torch.onnx.export(
        model, (example,), folder / f"{name}.onnx", dynamo=True, opset_version=18, verbose=False, external_data=False,
        input_names=["image"], output_names=["logits"], dynamic_shapes=({0: torch.export.Dim("images")},),
    )  # fmt: skip
    exporters.export(folder / f"{name}.onnx", folder / name, preset="imagenet", overrides={"resize": (SIZE, SIZE)})
    explainer = camrt.load(folder / name, providers=["cpu"], threads=threads)
    coarse = np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.float32)
    planes = torch.nn.functional.interpolate(torch.from_numpy(coarse).permute(2, 0, 1)[None], SIZE, mode="bicubic")
    pixels = planes[0].permute(1, 2, 0).clamp(0, 255).to(torch.uint8).numpy()
    x = preprocess_photo(pixels, explainer.manifest.preprocess)[0][None]
    target = int((explainer.engine.forward(x)[0] - explainer.engine.black_logits()).argmax())
    return Scene(model, layer, folder / f"{name}.onnx", explainer, pixels, x, target, threads, clusters)


def rows_of(scene: Scene, libraries: Iterable[str]) -> list[Row]:
    """Return what can be measured here; what is not installed is left out with the reason."""
    rows = list[Row]()
    for library in libraries:
        try:
            rows.extend(LIBRARIES[library](scene))
        except ImportError as missing:
            print(f"  {library}: left out, or in part ({missing})")
    return rows


# --- times ----------------------------------------------------------------------------------------------------------------
class Others:
    """Other processes, since this was made (known on Linux)."""

    def __init__(self) -> None:
        self.busy, self.mine, self.clock = self._now()

    @staticmethod
    def _now() -> tuple[float, float, float]:
        stat = Path("/proc/stat")
        ticks = [int(t) for t in stat.read_text().split("\n", 1)[0].split()[1:9]] if stat.exists() else [math.nan] * 8
        busy = sum(ticks) - sum(ticks[3:5])  # all but idle and waiting
        return busy / os.sysconf("SC_CLK_TCK"), time.process_time(), time.perf_counter()

    @property
    def cores(self) -> float:
        """Return how many cores they had."""
        busy, mine, clock = self._now()
        return max(0.0, busy - self.busy - (mine - self.mine)) / (clock - self.clock)


def turn(call: Callable[[], object]) -> float:
    """Return the median seconds of a call, after a pause and one call that is not counted."""
    time.sleep(PAUSE)
    call()
    times = list[float]()
    while sum(times) < TURN:
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def quiet_turn(call: Callable[[], object]) -> tuple[float, bool]:
    """Return the seconds of a turn, taken again where others disturbed it, and whether they disturbed the last one too."""
    for _ in range(TRIES):
        others = Others()
        seconds = turn(call)
        disturbed = others.cores > QUIET
        if not disturbed:
            break
        time.sleep(LATER)
    return seconds, disturbed


def measure(rows: list[Row], rounds: int) -> tuple[list[Spread], int]:
    """Return the times of every row, and how many turns were disturbed; in each round another row comes first."""
    times: list[list[float]] = [[] for _ in rows]
    disturbed = 0
    for number in range(WARM_UP + rounds):
        for i in [*range(number % len(rows), len(rows)), *range(number % len(rows))]:
            if number < WARM_UP:
                turn(rows[i].call)
            else:
                seconds, was = quiet_turn(rows[i].call)
                times[i].append(seconds)
                disturbed += was
    return [Spread(*np.quantile(seconds, (0.5, 0.25, 0.75)) * 1e3) for seconds in times], disturbed


# --- the table --------------------------------------------------------------------------------------------------------------
def agreement(row: Row, expected: dict[str, np.ndarray]) -> str:
    """Return how far a row's heatmap is from camrt's, both stretched to [0, 1]."""
    if not row.floor or row.by.startswith("camrt"):
        return ""
    found = (row.judged or row.call)()
    low, high = found.min(), found.max()
    if high == low or not expected[row.method].any():
        return "flat"
    return f"{np.abs((found - low) / (high - low) - expected[row.method]).max():.0e}"


def table(rows: list[Row], spreads: list[Spread], errors: list[str]) -> None:
    """Print the rows by method, camrt's first."""
    found = {(row.method, row.by): spread.median for row, spread in zip(rows, spreads, strict=True)}
    ours = {row.method: s.median for row, s in zip(rows, spreads, strict=True) if row.by.startswith(("camrt", "ONNX Runtime"))}
    print(f"  {'':<42} ms median [quartiles]      × camrt  × its passes   max |Δ|")
    for method in dict.fromkeys(row.method for row in sorted(rows, key=lambda row: bool(row.floor))):
        print(f"  {method}")
        for row, spread, error in zip(rows, spreads, errors, strict=True):
            if row.method == method:
                ratio = f"{spread.median / ours[method]:.2f}" if method in ours else "–"
                floor = found.get((row.floor, row.engine))
                passes = f"{spread.median / floor:.2f}" if floor else ""
                ms = f"{spread.median:8.1f} [{spread.low:.1f} {spread.high:.1f}]"
                print(f"    {row.by:<40} {ms:<26} {ratio:>8} {passes:>13} {error:>9}")


def show(scene: Scene, libraries: list[str], rounds: int) -> None:
    """Measure a network and print its table."""
    rows = rows_of(scene, libraries)
    expected = {name: reference(scene, **how) for name, how in asked(scene).items()}
    errors = [agreement(row, expected) for row in rows]
    spreads, disturbed = measure(rows, rounds)
    print(f"  {rounds} rounds, {scene.threads} threads; {disturbed} of {rounds * len(rows)} turns disturbed by other processes")
    table(rows, spreads, errors)


def show_score_cam(scene: Scene) -> None:
    """Print what Score-CAM took, once each."""
    others = Others()
    heatmaps = list[np.ndarray]()
    try:
        for row in score_cams(scene):
            time.sleep(PAUSE)
            started = time.perf_counter()
            heatmaps.append(row.call())
            seconds = time.perf_counter() - started
            error = np.abs(heatmaps[-1] - heatmaps[0]).max()
            print(
                f"  score-cam, one call, {row.by:<24} {seconds:8.1f} s   max |Δ| {error:.0e}   others {others.cores:.2f} cores",
                flush=True,
            )
    except ImportError as missing:
        print(f"  torchcam: left out ({missing})")


@contextmanager
def quiet() -> Iterator[None]:
    """Keep warnings and log lines out of the table; recorded, as openvino.runtime insists on being warned of."""
    logging.disable(logging.WARNING)
    with warnings.catch_warnings(record=True):
        yield
    logging.disable(logging.NOTSET)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--clusters", type=int, nargs="+", default=[10, 32], help="K of Cluster-CAM")
    parser.add_argument("--only", nargs="+", choices=LIBRARIES, default=list(LIBRARIES), help="libraries to measure")
    parser.add_argument("--threads", type=int, default=2, help="of every library")
    parser.add_argument("--score-cam", action="store_true", help="also Score-CAM, once: minutes")
    parser.add_argument("--malloc", choices=("keep", "default"), default="keep", help="what glibc does with freed memory")
    options = parser.parse_args()
    if options.malloc == "keep" and not KEEP.items() <= os.environ.items():
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | KEEP)
    torch.set_num_threads(options.threads)
    for name in options.networks:
        print(f"\n{name}", flush=True)
        with tempfile.TemporaryDirectory() as folder, quiet():
            scene = scene_of(name, Path(folder), options.threads, options.clusters)
            show(scene, options.only, options.rounds)
            if options.score_cam:
                show_score_cam(scene)


if __name__ == "__main__":
    main()
