"""What explaining in bulk costs: beside `explain_many` on the same files, and what a million photos would take.

    CAMRT_REAL=… python tests/benchmarks/scale.py throughput [--model mobilenet_v2_tv] [--photos 400] [--rounds 3]
    python tests/benchmarks/scale.py simulate [--photos 10_000_000]
    python tests/benchmarks/scale.py table [--device-ms 30.0] …

`throughput` explains JPEG files on disk, in turns by `explain_many`, whose results are dropped, and by a local run, whose rows go
into Parquet files on disk; the rate of the run is that of its shards after the first, so without its worker's start, which is
told apart.  `simulate` lists, schedules, writes and goes on with invented results, is killed half-way, and tells seconds and
memory.  `table` says what other machines would take, from figures that are given.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path
from statistics import median

import camrt
from camrt.explainer import HANDS
from camrt.scale.asked import ask
from camrt.scale.batch import Watch
from camrt.scale.job import SHARD_SIZE
from camrt.scale.local import local

LINE = 220  # bytes of a shard in the manifest
SHARD = 25  # photos, in the measurement of throughput


class Timed(Watch):
    """Keeps when each shard was there."""

    def __init__(self) -> None:
        self.begun, self.shards = 0.0, list[tuple[float, int]]()

    def begin(self, *_: object) -> None:
        self.begun = time.perf_counter()

    def shard(self, shard) -> None:
        self.shards.append((time.perf_counter(), shard.photos))


def throughput(model: str, photos: int, rounds: int) -> None:
    """Print the rates of `explain_many` and of a run in turns."""
    from tests.benchmarks.study import bundle  # which wants CAMRT_REAL

    real = Path(os.environ["CAMRT_REAL"])
    count, paths = photos, list(islice(cycle(sorted((real / "photos" / "sample").iterdir())), photos))
    explainer = bundle(model, 0)
    folder_of_bundle = str(explainer.engine.bundle.folder)
    list(explainer.explain_many(paths[:16]))
    print("| round | explain_many, photos/s | batch, photos/s | batch / explain_many | worker's start, s |\n| --- | --- | --- | --- | --- |")
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "list.csv").write_text("id,path\n" + "".join(f"{i},{photo}\n" for i, photo in enumerate(paths)))
        for turn in range(rounds):
            started = time.perf_counter()
            assert sum(not isinstance(e, camrt.Failure) for e in explainer.explain_many(paths)) == count
            bare = count / (time.perf_counter() - started)
            watch, output = Timed(), f"{folder}/out{turn}"
            ask(folder_of_bundle, [f"{folder}/list.csv"], output, shard_size=SHARD).run(local, watch)
            (first, some), *_, (last, _) = watch.shards
            rate = (count - some) / (last - first)
            ratios.append(rate / bare)
            start = first - watch.begun - some / rate
            print(f"| {turn + 1} | {bare:.1f} | {rate:.1f} | {rate / bare:.3f} | {start:.1f} |", flush=True)
            shutil.rmtree(output)
    print(f"\n{model}: median of {rounds} rounds {median(ratios):.3f}")


def simulate(photos: int) -> None:
    """Print what a run of so many invented results takes, killed half-way and gone on with."""
    count = photos
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "0.jpg").touch()
        with open(f"{folder}/list.txt", "w") as file:
            file.writelines(f"{i}.jpg\n" for i in range(count))
        command = [sys.executable, "-m", "camrt", "batch", "shapes", f"{folder}/list.txt", "-o", f"{folder}/out", "--simulate", "--json"]
        started = time.perf_counter()
        first = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        parts = -(-count // SHARD_SIZE)
        while len(list(Path(folder, "out", "data").glob("part-*"))) < parts // 2:
            time.sleep(1)
            assert first.poll() is None
        first.send_signal(signal.SIGKILL)
        first.wait()
        killed = time.perf_counter() - started
        before = time.perf_counter()
        again = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        peak = 0
        while again.poll() is None:
            peak = max(peak, sum(resident(pid) for pid in (again.pid, *children(again.pid))))
            time.sleep(0.5)
        assert again.returncode == 0
        rest = time.perf_counter() - before
        size = sum(f.stat().st_size for f in Path(folder, "out", "data").iterdir())
        manifest = sum(f.stat().st_size for f in Path(folder, "out", "manifest").iterdir())
        listing = sum(f.stat().st_size for f in Path(folder, "out", "listing").iterdir())
        print(
            f"{count:,} rows in {parts:,} shards: {killed:.0f} s until kill -9 with half of them, {rest:.0f} s for the rest; "
            f"{peak / 2**20:.0f} MB, both processes; data {size / 2**30:.2f} GB, manifest {manifest / 2**20:.1f} MB, "
            f"listing {listing / 2**20:.0f} MB"
        )


def resident(pid: int) -> int:
    """Return the bytes of memory that a process holds now."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def children(pid: int) -> list[int]:
    """Return a process's children."""
    try:
        return [int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def table(device_ms: float, decode_ms: float, photo_kb: float, row_bytes: float, read_mb: float, hands: int) -> None:
    """Print what 10⁶ and 10⁸ photos take on 1 to 64 devices, and what holds them up."""
    print("| photos | devices | device, h | decode, h | object store, h | takes, h | held up by | shards | manifest | dataset |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for count in (10**6, 10**8):
        for devices in (1, 8, 64):
            hours = {
                "device": count * device_ms / devices / 3.6e6,
                "decode": count * decode_ms / (hands * devices) / 3.6e6,
                "object store": count * photo_kb / 1024 / (read_mb * devices) / 3600,
            }
            slowest = max(hours, key=lambda name: hours[name])
            size = SHARD_SIZE if count == 10**6 else 10 * SHARD_SIZE
            shards = count // size
            cells = [f"{count:.0e}", devices, *(f"{h:.2f}" for h in hours.values()), f"{hours[slowest]:.2f}", slowest]
            cells += [f"{shards:,} of {size:,}", f"{shards * LINE / 2**20:.1f} MB", f"{count * row_bytes / 2**30:.2f} GB"]
            print("| " + " | ".join(map(str, cells)) + " |")


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    one = parts.add_parser("throughput")
    one.set_defaults(run=throughput)
    one.add_argument("--model", default="mobilenet_v2_tv")
    one.add_argument("--photos", type=int, default=400)
    one.add_argument("--rounds", type=int, default=3)
    two = parts.add_parser("simulate")
    two.set_defaults(run=simulate)
    two.add_argument("--photos", type=int, default=10_000_000)
    three = parts.add_parser("table")
    three.set_defaults(run=table)
    for name, default in (("device-ms", 30.0), ("decode-ms", 10.0), ("photo-kb", 150.0), ("row-bytes", 114.0), ("read-mb", 500.0)):
        three.add_argument(f"--{name}", type=float, default=default)
    three.add_argument("--hands", type=int, default=HANDS)
    given = vars(parser.parse_args())
    del given["part"]
    given.pop("run")(**given)


if __name__ == "__main__":
    main()
