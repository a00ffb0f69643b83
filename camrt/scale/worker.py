"""The process that explains: it takes jobs from its keeper, and gives back shards.

It runs as `python -m camrt.scale.worker`, apart from its keeper, because a photo may kill it.
"""

from __future__ import annotations

import os
import sys
import threading
import traceback
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from camrt import __version__
from camrt.errors import BatchError, BundleError, CamrtError, one_line
from camrt.explainer import Explainer, load
from camrt.explanation import Explanation, slug
from camrt.photo import ImageSource
from camrt.render import encode_jpeg
from camrt.scale.gauge import Gauge
from camrt.scale.job import Broke, Job, Setup, Trial, Tried
from camrt.scale.listing import read_part_at
from camrt.scale.part import Item
from camrt.scale.schema import VERSION, Row, crashed, explained, failed
from camrt.scale.shard import ShardWriter
from camrt.scale.simulated import simulate
from camrt.scale.store import open_store
from camrt.stream import BREAK, OF_ONE_IMAGE, Failure

FETCHES = 32  # photos behind URLs that are fetched at once; as many are on their way as the stream takes
OVERLAY_QUALITY = 90  # of JPEG

Found = tuple[list[Row], list[tuple[str, bytes]]]  # rows, and overlays by the end of their names


@dataclass
class Expected:
    """A photo whose result is to come, or a part's end.

    Attributes
    ----------
    job : Job
    item : Item or None
        None at the end of the part.
    index : int
        The photo's place in the part.
    """

    job: Job
    item: Item | None
    index: int


class Worker:
    """Explains parts, one after the other.

    Parameters
    ----------
    setup : Setup
    link : Connection
        To the keeper.
    gauge : Gauge
    """

    def __init__(self, setup: Setup, link: Connection, gauge: Gauge):
        self._setup, self._link, self._gauge = setup, link, gauge
        self._store = open_store(setup.output)
        self._explainer = _open(setup)
        ran = {"camrt": __version__, "bundle_sha256": setup.bundle_sha256, "simulated": setup.simulate}
        self._about = {"version": VERSION, **ran}
        self._expected: deque[Expected] = deque()
        self._shards: dict[int, ShardWriter] = {}
        self._fetching = ThreadPoolExecutor(FETCHES, "camrt-fetch")

    def serve(self) -> None:
        """Do what the keeper asks for, until it hangs up."""
        while (task := self._next(wait=True)) is not None:
            if isinstance(task, Trial):
                self._try(task)
            elif self._setup.simulate:
                self._link.send(simulate(self._store, task, self._part_items(task), self._about))
            elif task.alone:
                self._fill_alone(task)
            else:
                self._fill(task)

    def _next(self, *, wait: bool) -> Job | Trial | None:
        """Return the next task; None where there is none yet, or, waiting, where there will be none."""
        try:
            if wait or self._link.poll():
                task: Job | Trial = self._link.recv()
                return task
        except EOFError:
            if not wait:
                sys.exit()
        return None

    def _part_items(self, job: Job) -> Iterator[Item]:
        return read_part_at(self._store, job.number, job.offset, job.length).items()

    # --- explaining -----------------------------------------------------------------------------------------------------
    def _fill(self, job: Job) -> None:
        """Explain a job, and those that are there by then, in one stream."""
        try:
            for result in self._explainer.explain_many(self._images(job), then=self._found, **self._setup.question):
                self._pass_by()
                expected = self._expected.popleft()
                rows, pictures = ([failed(result.error)], []) if isinstance(result, Failure) else result
                self._add(expected, rows, pictures)
            self._pass_by()
        except BaseException:
            for shard in self._shards.values():
                shard.abandon()
            raise

    def _images(self, job: Job | None) -> Iterator[Any]:
        """Yield the images of a job, and of those that wait behind it, each job's in groups of its own."""
        while job is not None:
            self._gauge["taken"], self._gauge["taken_job"] = 0, job.number
            self._shards[job.number] = ShardWriter(self._store, job.number, self._about)
            for index, item in enumerate(self._part_items(job)):
                self._expected.append(Expected(job, item, index))
                if index in job.skip:
                    continue
                self._gauge["taken"] = index + 1
                yield self._begun(item.image)
            self._expected.append(Expected(job, None, 0))
            yield BREAK
            task = self._next(wait=False)
            assert not isinstance(task, Trial), "nothing waits behind a job that killed a worker"
            job = task

    def _begun(self, image: ImageSource) -> ImageSource:
        """Return an image that is fetched from now on."""
        return self._fetching.submit(image).result if callable(image) else image

    def _pass_by(self) -> None:
        """Add what stands before the next result: photos that are skipped, and ends of parts."""
        while self._expected:
            first = self._expected[0]
            if first.item is None:
                self._expected.popleft()
                self._link.send(self._shards.pop(first.job.number).close())
            elif first.index in first.job.skip:
                self._expected.popleft()
                self._add(first, [crashed(first.job.skip[first.index])], [])
            else:
                return

    def _add(self, expected: Expected, rows: list[Row], pictures: list[tuple[str, bytes]]) -> None:
        item = expected.item
        assert item is not None
        named = [(f"{expected.index:06d}.{end}", data) for end, data in pictures]
        self._shards[expected.job.number].add(item.id, item.source, rows, named)
        self._gauge["done"], self._gauge["done_job"] = expected.index + 1, expected.job.number

    def _found(self, explanation: Explanation) -> Found:
        """Return what is kept of an explanation; runs in threads."""
        features = self._explainer.manifest.features.shape
        rows = explained(explanation, (features[2], features[3]))
        if not self._setup.overlays:
            return rows, []
        ends = [f"{rank}.{slug(target.title)}.jpg" for rank, target in enumerate(explanation.targets)]
        return rows, [(end, encode_jpeg(explanation.overlay(i), OVERLAY_QUALITY)) for i, end in enumerate(ends)]

    # --- where a photo kills --------------------------------------------------------------------------------------------
    def _try(self, trial: Trial) -> None:
        """Explain suspects one by one."""
        photos = 0
        for index, item in enumerate(self._part_items(trial.job)):
            if trial.start <= index < trial.stop and index not in trial.job.skip:
                self._alone(item, index)
                photos += 1
        self._link.send(Tried(photos))

    def _fill_alone(self, job: Job) -> None:
        """Explain a job's photos one by one."""
        shard = self._shards[job.number] = ShardWriter(self._store, job.number, self._about)
        try:
            for index, item in enumerate(self._part_items(job)):
                found = ([crashed(job.skip[index])], []) if index in job.skip else self._alone(item, index)
                self._add(Expected(job, item, index), *found)
            self._link.send(shard.close())
        except BaseException:
            shard.abandon()
            raise

    def _alone(self, item: Item, index: int) -> Found:
        """Return what is found of one photo, and leave word that it is under way."""
        self._gauge["trial"] = index
        try:
            return self._found(self._explainer.explain(item.image, **self._setup.question))
        except OF_ONE_IMAGE as error:
            return [failed(error)], []


def _open(setup: Setup) -> Explainer:
    explainer = load(setup.bundle, **setup.loading)
    found = explainer.engine.bundle.sha256
    if found != setup.bundle_sha256:
        raise BundleError(
            f"{setup.bundle} is another bundle here than where the run was begun ({found[:12]}, {setup.bundle_sha256[:12]}). "
            "Copy the same one to every machine."
        )
    return explainer


def main() -> None:
    """Serve the keeper whose pipe and memory have the numbers that are given; end with it, whatever it dies of."""
    link_number, lifeline, gauge_number = map(int, sys.argv[1:])
    threading.Thread(target=_end_with_keeper, args=(lifeline,), daemon=True).start()
    link = Connection(link_number)
    setup: Setup = link.recv()
    with suppress(BrokenPipeError):  # the keeper is gone
        try:
            Worker(setup, link, Gauge(gauge_number)).serve()
        except CamrtError as error:
            link.send(error)
        except OSError as error:
            link.send(_unwritable(setup.output, error))
        except Exception as error:
            traceback.print_exc()
            link.send(Broke(f"{type(error).__name__}: {one_line(error)}"))
    os._exit(0)  # threads that decode may hang


def _unwritable(output: str, error: OSError) -> BatchError:
    return BatchError(
        f"{output} cannot be written ({error.strerror or one_line(error)}). Free space, or see what holds it up; what is done "
        "so far is kept, and the same command goes on with it."
    )


def _end_with_keeper(lifeline: int) -> None:
    os.read(lifeline, 1)  # nothing is ever written to it; it ends when the keeper does
    os._exit(1)


if __name__ == "__main__":
    main()
