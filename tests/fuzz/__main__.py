"""Run many cases, print how they ended, and every failure with its seed."""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from collections import Counter
from contextlib import suppress
from pathlib import Path

import click

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

from tests.fuzz.case import FAILED, Outcome
from tests.fuzz.workers import SECONDS, run_cases


@click.command()
@click.option("--count", default=10_000, show_default=True, help="How many cases.")
@click.option("--seed", default=0, show_default=True, help="Of the first case; the next ones count on from it.")
@click.option("--jobs", default=2, show_default=True, help="Processes.")
@click.option("--seconds", default=SECONDS, show_default=True, help="How long a case may take.")
def main(count: int, seed: int, jobs: int, seconds: float) -> None:
    """Export damaged models: each must be exported rightly or refused in one sentence."""
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory(prefix="camrt-fuzz-") as folder, suppress(KeyboardInterrupt):
        cases = run_cases(range(seed, seed + count), jobs, Path(folder), seconds)
        with click.progressbar(cases, length=count, label="cases", file=sys.stderr) as shown:
            for outcome in shown:
                outcomes.append(outcome)
                if outcome.word == FAILED:
                    click.echo(f"\n--seed {outcome.seed} --count 1  {outcome.kind}  {outcome.seconds:.1f} s\n{outcome.text}\n")
    for word, number in Counter(outcome.word for outcome in outcomes).most_common():
        times = sorted(outcome.seconds for outcome in outcomes if outcome.word == word)
        click.echo(f"{word:<9} {number:>7}  median {statistics.median(times) * 1e3:6.1f} ms, longest {times[-1]:.2f} s")
    sys.exit(any(outcome.word == FAILED for outcome in outcomes))


if __name__ == "__main__":
    main()
