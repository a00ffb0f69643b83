"""A dataset as it is read: the shards that its manifest notes, batch by batch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa

from camrt.errors import BatchError, one_line
from camrt.scale.manifest import FINISHED, Manifest
from camrt.scale.rows import DAMAGED, parquet
from camrt.scale.schema import SCHEMA
from camrt.scale.shard import data_file
from camrt.scale.store import Store, open_store

AT_ONCE = 4096  # rows in memory


class RowPlace(NamedTuple):
    """Where a row stands: the number of its part, and its own in the part's shard."""

    part: int
    row: int


@dataclass(frozen=True)
class Dataset:
    """A dataset that is there.

    Attributes
    ----------
    store : Store
    manifest : Manifest
    """

    store: Store
    manifest: Manifest

    @property
    def shards(self) -> list[int]:
        """Return the parts that are done, in order."""
        return [part for part in range(self.manifest.parts) if self.manifest.is_done(part)]

    @property
    def finished(self) -> bool:
        """Tell whether everything that was asked is done."""
        return self.manifest.state == FINISHED and self.manifest.done == self.manifest.parts

    @property
    def simulated(self) -> bool:
        """Tell whether the results are invented."""
        return bool(self.manifest.asked.get("simulate"))

    @property
    def by_name(self) -> bool:
        """Tell whether classes were asked for by name, the same for every photo, and not the most probable ones."""
        return isinstance(self.manifest.asked.get("classes"), list)

    @property
    def bundle(self) -> str:
        """Return the bundle's name."""
        bundle = self.manifest.asked.get("bundle")
        return str(bundle.get("name")) if isinstance(bundle, dict) else "unknown"

    @property
    def begun(self) -> str:
        """Return when it was begun, in UTC: "2026-11-28 18:33"."""
        return self.manifest.begun[:16].replace("T", " ") + " UTC"

    def batches(self, part: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield some columns of a shard's rows.

        Raises
        ------
        BatchError
            The shard is missing, damaged, or of another form.
        """
        name = data_file(part)
        try:
            with parquet(f"{self.store.location}/{name}") as file:
                found = file.schema_arrow
                other = [c for c in columns if c not in found.names or found.field(c).type != SCHEMA.field(c).type]
                if other:
                    raise BatchError(f"{self.store}/{name} is no shard of this camrt; its columns {', '.join(other)} differ.")
                yield from file.iter_batches(AT_ONCE, columns=list(columns))
        except DAMAGED as error:
            raise BatchError(
                f"{self.store}/{name} is missing or damaged ({one_line(error)}). The camrt batch that wrote it, given again "
                "with --verify, makes it anew."
            ) from None

    def rows(self, places: Iterable[RowPlace], columns: Sequence[str]) -> dict[RowPlace, dict[str, Any]]:
        """Return some rows by their places; of a shard that holds fewer, what is there."""
        wanted = defaultdict[int, list[int]](list)
        for place in sorted(set(places)):
            wanted[place.part].append(place.row)
        found = {}
        for part, rows in wanted.items():
            first = 0
            for batch in self.batches(part, columns):
                for row in rows:
                    if first <= row < first + len(batch):
                        found[RowPlace(part, row)] = batch.slice(row - first, 1).to_pylist()[0]
                first += len(batch)
                if first > rows[-1]:
                    break
        return found


def open_dataset(location: str) -> Dataset:
    """Return the dataset in a folder or behind a URL.

    Raises
    ------
    BatchError
        There is none, or it is damaged.
    """
    store = open_store(location)
    try:
        return Dataset(store, Manifest.open(store))
    except OSError as error:
        raise BatchError(f"{store} cannot be read ({one_line(error)}).") from None
