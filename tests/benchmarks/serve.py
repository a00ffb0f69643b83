"""What serving costs: throughput and latency at 1, 8 and 64 clients on loopback, beside `explain_many` on the same photos.

    CAMRT_REAL=… python tests/benchmarks/serve.py [--model mobilenet_v2_tv] [--seconds 8] [--rounds 3] [-- --threads 1 --workers 2]

Each round runs the bare engine and the server in turns, both from JPEG bytes in memory to what is answered: JSON with the
prediction, or the heatmap on the photo, at most 224 pixels wide, as .npy.  The clients are a process of their own on the
same cores.  What stands behind -- goes to `camrt serve`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from camrt.explainer import Explainer
from camrt.server.pictures import npy, shrunk
from tests.benchmarks.study import bundle
from tests.server.conftest import serving
from tests.server.load import Answers, load

CLIENTS = (1, 8, 64)
LONGEST = 224
FORMS = {"json": ("/v1/explain", "application/json"), "heatmap": (f"/v1/explain?longest={LONGEST}", "application/x-npy")}


def photos() -> list[bytes]:
    """Return the photos of the validation set, encoded."""
    return [path.read_bytes() for path in sorted((Path(os.environ["CAMRT_REAL"]) / "photos" / "val").iterdir())][:40]


def engine_rate(explainer: Explainer, encoded: list[bytes], form: str, seconds: float) -> float:
    """Return how many photos a second `explain_many` explains and writes in a form."""
    end = time.perf_counter() + seconds

    def source():
        for photo in itertools.cycle(encoded):
            if time.perf_counter() > end:
                return
            yield photo

    written = {"json": lambda e: json.dumps(e.to_json()), "heatmap": lambda e: npy(shrunk(e, LONGEST).heatmap)}[form]
    started = time.perf_counter()
    count = sum(1 for _ in explainer.explain_many(source(), then=written))
    return count / (time.perf_counter() - started)


def asked(url: str, clients: int, form: str, seconds: float) -> Answers:
    """Return what clients in a process of their own got."""
    code = (
        "import sys; from tests.benchmarks.serve import photos; from tests.server.load import load\n"
        "url, clients, path, accept, seconds = sys.argv[1:]\n"
        "a = load(url, photos(), int(clients), path=path, accept=accept, seconds=float(seconds))\n"
        "import json; print(json.dumps([a.seconds, {str(k): v for k, v in a.statuses.items()}, a.took]))"
    )
    path, accept = FORMS[form]
    done = subprocess.run(
        [sys.executable, "-c", code, url, str(clients), path, accept, str(seconds)], capture_output=True, text=True, check=True
    )
    spent, statuses, took = json.loads(done.stdout)
    found = Answers(spent, took=took)
    found.statuses.update(statuses)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="mobilenet_v2_tv", help="a model of CAMRT_REAL, or shapes")
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("serve", nargs="*", help="options of camrt serve")
    options = parser.parse_args()
    explainer, encoded = bundle(options.model, 0), photos()
    folder = options.model if options.model == "shapes" else str(explainer.engine.bundle.folder)
    with serving(folder, "--per-client", "0", *options.serve) as server:
        load(server.url, encoded, 4, requests=40)  # warm
        list(explainer.explain_many(encoded[:10]))
        for form in FORMS:
            rates: list[float] = []
            answers: dict[int, list[Answers]] = {count: [] for count in CLIENTS}
            for _ in range(options.rounds):
                rates.append(engine_rate(explainer, encoded, form, options.seconds))
                for count in CLIENTS:
                    answers[count].append(asked(server.url, count, form, options.seconds))
            print(
                f"{options.model}, {form}: explain_many {median(rates):.1f} a second ({', '.join(f'{r:.1f}' for r in rates)})"
            )
            for count, several in answers.items():
                share = median(a.rate / r for a, r in zip(several, rates, strict=True))
                ms = [median(a.percentile(q) for a in several) for q in (50, 95, 99)]
                statuses = {s for a in several for s in a.statuses}
                print(f"  {count:>2} clients  {median(a.rate for a in several):6.1f} a second  {share:5.2f} of explain_many   "
                      f"p50 {ms[0]:6.0f}  p95 {ms[1]:6.0f}  p99 {ms[2]:6.0f} ms   statuses {', '.join(sorted(statuses))}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
