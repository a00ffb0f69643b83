"""The engine of one machine: one worker, which takes every core, or the GPU."""

from __future__ import annotations

from collections.abc import Generator, Iterable

from camrt.scale.job import Job, Setup, Shard
from camrt.scale.keeper import Keeper, Tick


def local(setup: Setup, jobs: Iterable[Job], tick: Tick) -> Generator[Shard, None, None]:
    """Yield the shards of jobs, in order."""
    with Keeper(setup) as keeper:
        yield from keeper.run(jobs, tick)
