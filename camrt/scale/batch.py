"""Explain what a dataset was asked for, go on where it was left, and bring each shard into its place."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Any, Protocol

from camrt.errors import BatchError
from camrt.scale.inputs import Inputs
from camrt.scale.job import Job, Setup, Shard, shard_name
from camrt.scale.keeper import Tick
from camrt.scale.listing import Listing, open_listing, write_listing
from camrt.scale.manifest import FINISHED, LISTING, RUNNING, STOPPED, Manifest
from camrt.scale.shard import DATA, OVERLAYS, data_file
from camrt.scale.store import Store, open_store

Engine = Callable[[Setup, Iterable[Job], Tick], Generator[Shard, None, None]]


class Watch(Protocol):
    """Who is told how a run goes on."""

    def listing(self, photos: int) -> None:
        """So many more photos were found."""

    def begin(self, manifest: Manifest, listing: Listing, lost: int) -> None:
        """The run begins; so many shards that were done are not what they were."""

    def tick(self, photos: int) -> None:
        """So many photos of shards under way are done."""

    def shard(self, shard: Shard) -> None:
        """A shard is in its place."""


@dataclass(frozen=True)
class Batch:
    """A dataset that is asked for.

    Attributes
    ----------
    setup : Setup
    inputs : Inputs
    asked : dict
        What must be the same when the dataset is gone on with: JSON values.
    verify : bool
        Compare the shards that are done with their checksums, not with their sizes alone.
    """

    setup: Setup
    inputs: Inputs
    asked: dict[str, Any]
    verify: bool = False

    def run(self, engine: Engine, watch: Watch) -> Manifest:
        """Explain what is not done yet.

        Raises
        ------
        BatchError
            The output holds something else, cannot be written, or a worker dies whatever it is given.
        CamrtError
            What a worker met that is not of one photo.
        """
        store = open_store(self.setup.output)
        try:
            with store.locked():
                return self._run(store, engine, watch)
        except OSError as error:
            raise BatchError(
                f"{store} cannot be written ({error.strerror or error}). What is done is kept, and the same command goes on."
            ) from None

    def _run(self, store: Store, engine: Engine, watch: Watch) -> Manifest:
        manifest = Manifest.begin(store, self.asked)
        listing = self._listing(store, manifest, watch)
        lost = manifest.forget(manifest.is_damaged if self.verify else manifest.is_lost)
        _tidy(store, manifest)
        watch.begin(manifest, listing, lost)
        if not manifest.done == manifest.parts:
            manifest.write(RUNNING)
        jobs = (Job(number, *listing.place(number)) for number in manifest.missing())
        try:
            with closing(engine(self.setup, jobs, watch.tick)) as shards:
                for shard in shards:
                    _place(store, shard)
                    manifest.add(shard)
                    watch.shard(shard)
        except BaseException:
            with suppress(OSError):  # what stopped the run may stop this, too
                _tidy(store, manifest)
                manifest.write(STOPPED)
            raise
        _tidy(store, manifest)  # of workers that were lost
        if manifest.done < manifest.parts:
            raise BatchError(f"{manifest.parts - manifest.done} parts were not done. The same command tries them again.")
        if manifest.state != FINISHED:
            manifest.write(FINISHED)
        return manifest


    def _listing(self, store: Store, manifest: Manifest, watch: Watch) -> Listing:
        """Return what is to be explained: what the dataset was begun with, or what is found now."""
        if manifest.state == LISTING:
            listing = write_listing(store, self.inputs.parts(), watch.listing)
            manifest.listed(len(listing), listing.total)
            return listing
        kept = open_listing(store)
        if kept is None or len(kept) != manifest.parts:
            raise BatchError(f"{store}/listing is gone, or of another run. Begin again in another folder.")
        return kept


def _place(store: Store, shard: Shard) -> None:
    """Bring what a worker wrote beside into its place."""
    if shard.overlays is not None:
        store.move(shard.overlays, f"{OVERLAYS}/{shard_name(shard.part)}")
    store.move(shard.file, data_file(shard.part))


def _tidy(store: Store, manifest: Manifest) -> None:
    """Remove what runs that were killed have left: whatever the manifest does not tell of."""
    for folder in (DATA, OVERLAYS):
        for name in store.names(folder):
            number = name.removeprefix("part-").removesuffix(".parquet")
            if not (number.isdecimal() and int(number) < manifest.parts and manifest.is_done(int(number))):
                store.remove(f"{folder}/{name}")
