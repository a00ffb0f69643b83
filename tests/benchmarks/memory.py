"""What a bundle's sessions keep in memory, each set of them in a process of its own.

    python tests/benchmarks/memory.py BUNDLE…

`opened` is what opening the sessions added to a process that had imported camrt, and `explained` what there was after five
explanations by a method that uses them, both with and without the kept optimised graphs.  Of what is mapped from files
(`of it mapped`) processes share one copy, and the system takes it back when memory is short.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from camrt.bundle import open_bundle

METHODS = {"cluster-cam": "score", "recipro-cam": "score, tail", "hires-cam": "score, gradient"}
PROGRAM = """
import json, sys
import numpy as np
import camrt
from camrt.memory import own_memory
folder, method, cache = sys.argv[1], sys.argv[2], sys.argv[3] == "True"
def resident():
    return {name: own_memory(name) for name in ("VmRSS", "RssFile", "VmHWM")}
before = resident()
explainer = camrt.load(folder, ["cpu"], cache=cache)
for graph in {"recipro-cam": ["tail"], "hires-cam": ["gradient"]}.get(method, []):
    explainer.engine.sessions.open(graph)
opened = resident()
pixels = np.random.default_rng(0).integers(0, 256, (*explainer.manifest.size, 3), np.uint8)
for _ in range(5):
    explainer.explain(pixels, method=method)
print(json.dumps([before, opened, resident()]))
"""


def measure(bundle: str, method: str, cache: bool) -> list[dict[str, float]]:
    command = [sys.executable, "-c", PROGRAM, bundle, method, str(cache)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundles", nargs="+")
    options = parser.parse_args()
    print("bundle            weights  sessions          kept    opened  of it mapped  over weights  explained     peak")
    for bundle in options.bundles:
        weights = open_bundle(bundle).weights_size / 1e6
        for cache in (False, True):
            for method, sessions in METHODS.items():
                measure(bundle, method, cache)  # fills the cache, and the system's
                before, opened, after = measure(bundle, method, cache)
                added = opened["VmRSS"] - before["VmRSS"]
                mapped = opened["RssFile"] - before["RssFile"]
                figures = f"{added:8.1f}  {mapped:12.1f}  {added * 1.048576 / weights:12.2f}  {after['VmRSS']:9.1f}"
                name = Path(bundle).name
                print(
                    f"{name:<16} {weights:8.1f}  {sessions:<16}  {'yes' if cache else 'no':<4}  {figures} {after['VmHWM']:8.1f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
