"""Ask a server for a long time, and see whether its memory stays where it was.

    python -m tests.server.soak [--seconds 600] [--clients 8] [BUNDLE]

Clients ask by several methods, in all forms, with photos good and bad.  Memory is the process's own figure in /metrics.
"""

from __future__ import annotations

import argparse
import itertools
from dataclasses import dataclass

from tests.conftest import SAMPLES
from tests.server.conftest import serving
from tests.server.load import Answers, load, metric

PATHS = (
    "/v1/explain", "/v1/explain?top=3&image=overlay", "/v1/explain?method=hires-cam&image=heatmap", "/v1/explain?method=grad-cam&top=8",
    "/v1/explain?clusters=24", "/v1/explain?target=nothing",
)  # fmt: skip
SETTLED = 0.25  # of the time, after which memory is compared with that at the end


@dataclass(frozen=True)
class Soaked:
    """What came of it: answers by status, and resident megabytes after a quarter of the time and at the end."""

    answers: Answers
    early: float
    late: float

    def __str__(self) -> str:
        counts = ", ".join(f"{n} of {status}" for status, n in sorted(self.answers.statuses.items(), key=str))
        return f"{counts}; {self.early:.1f} MB after a quarter of the time, {self.late:.1f} MB at the end"


def soak(url: str, seconds: float, clients: int) -> Soaked:
    """Ask for so many seconds."""
    photos = [path.read_bytes() for path in sorted(SAMPLES.glob("*.png"))]
    photos += [photos[0][:1000], b"no photo"]
    answers, early = Answers(), 0.0
    each = max(1.0, seconds / 24)
    for path in itertools.cycle(PATHS):
        got = load(url, photos, clients, path=path, seconds=each)
        answers.statuses.update(got.statuses)
        answers.took += got.took
        if not early and answers.took >= SETTLED * seconds:
            early = metric(url, "process_resident_memory_bytes") / 1e6
        if answers.took >= seconds:
            return Soaked(answers, early, metric(url, "process_resident_memory_bytes") / 1e6)
    raise AssertionError("a cycle does not end")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", nargs="?", default="shapes")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--clients", type=int, default=8)
    options = parser.parse_args()
    with serving(options.bundle) as server:
        print(soak(server.url, options.seconds, options.clients))


if __name__ == "__main__":
    main()
