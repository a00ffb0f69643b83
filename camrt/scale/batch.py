"""Explain what a dataset was asked for, go on where it was left, and bring each shard into its place."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Any

from camrt.errors import BatchError
from camrt.scale.inputs import Inputs
from camrt.scale.job import Job, Setup, Shard
from camrt.scale.keeper import Tick
from camrt.scale.listing import FOLDER as LISTING_FOLDER
from camrt.scale.listing import Listing, open_listing, write_listing
from camrt.scale.local import local
from camrt.scale.manifest import FINISHED, LISTING, RUNNING, STOPPED, Manifest
from camrt.scale.manifest import FOLDER as LINES_FOLDER
from camrt.scale.shard import DATA, OVERLAYS, data_file, overlay_folder, part_of
from camrt.scale.store import Store, is_temporary, open_store

Engine = Callable[[Setup, Iterable[Job], Tick], Generator[Shard, None, None]]


class Watch:
    """Is told how a run goes on, and says nothing."""

    def listing(self, photos: int) -> None:
        """Hear that so many more photos were found."""

    def begin(self, manifest: Manifest, listing: Listing, lost: int) -> None:
        """Hear that the run begins, and how many shards that were done are not what they were."""

    def tick(self, photos: int) -> None:
        """Hear how many photos of shards under way are done."""

    def shard(self, shard: Shard) -> None:
        """Hear of a shard that is in its place."""


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

    def run(self, engine: Engine = local, watch: Watch | None = None) -> Manifest:
        """Explain what is not done yet, and return what the dataset consists of.

        Parameters
        ----------
        engine : callable
            `local`, or a `Cluster`.
        watch : Watch, optional
            Is told how it goes on.

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
                return self._run(store, engine, watch or Watch())
        except BrokenPipeError:  # of who is told how it goes on
            raise
        except OSError as error:
            raise BatchError(
                f"{store} cannot be written ({error.strerror or error}). Free space, or choose another folder; what is "
                "done so far is kept, and the same command goes on with it."
            ) from None

    def _run(self, store: Store, engine: Engine, watch: Watch) -> Manifest:
        manifest = Manifest.begin(store, self.asked)
        _refuse_others(store)
        listing = self._listing(store, manifest, watch)
        lost = manifest.forget_lost(verify=self.verify)
        tidy(store, manifest)
        watch.begin(manifest, listing, lost)
        if manifest.done != manifest.parts and manifest.state != RUNNING:
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
                tidy(store, manifest)
                manifest.write(STOPPED)
            raise
        tidy(store, manifest)  # of workers that were lost
        if manifest.done < manifest.parts:
            raise BatchError(f"{manifest.parts - manifest.done} parts were not done. The same command tries them again.")
        if manifest.state != FINISHED:
            manifest.write(FINISHED)
        return manifest

    def _listing(self, store: Store, manifest: Manifest, watch: Watch) -> Listing:
        """Return what is to be explained: what the dataset was begun with, or what is found now."""
        if manifest.state == LISTING:
            listing = write_listing(store, self.inputs.parts(), watch.listing)
            manifest.set_parts(len(listing), listing.total)
            return listing
        kept = open_listing(store)
        if kept is None or len(kept) != manifest.parts:
            raise BatchError(f"{store}/listing is gone, or of another run. Begin again in another folder.")
        return kept


def _place(store: Store, shard: Shard) -> None:
    """Bring what a worker wrote beside into its place."""
    if shard.overlays is not None:
        store.move(shard.overlays, overlay_folder(shard.part))
    store.move(shard.file, data_file(shard.part))


def tidy(store: Store, manifest: Manifest) -> None:
    """Remove what runs that were killed have left: shards that are not noted, and what was being written."""
    for folder in ("", LINES_FOLDER, LISTING_FOLDER, DATA, OVERLAYS):
        for name in store.names(folder):
            part = part_of(name) if folder in (DATA, OVERLAYS) else None
            unnoted = part is not None and not (part < manifest.parts and manifest.is_done(part))
            if unnoted or is_temporary(name):
                store.remove(f"{folder}/{name}" if folder else name)


def _refuse_others(store: Store) -> None:
    """Refuse Parquet files that are no shards: who reads the dataset would read them, too."""
    others = [name for name in store.names(DATA) if name.endswith(".parquet") and part_of(name) is None]
    if others:
        raise BatchError(f"{store}/{DATA} holds {', '.join(others[:5])}, which camrt batch did not write. Move it elsewhere.")
