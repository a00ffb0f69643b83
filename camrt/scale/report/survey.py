"""Read a dataset twice: first sum up every class, then find the maps that are unlike those of their class."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from camrt.errors import BatchError
from camrt.scale.report import outcomes
from camrt.scale.report.agreement import agreement, agreement_of_each, unit_maps
from camrt.scale.report.classes import Classes
from camrt.scale.report.dataset import Dataset
from camrt.scale.report.extremes import Least
from camrt.scale.report.heatmaps import read_heatmaps, reduced
from camrt.scale.report.outcomes import Outcomes

PASSES = 2
COLUMNS = ("rank", "target", "label", "probability", "heatmap")
BINS = 20  # of the histogram of probabilities
SHOWN = 24  # rows of each kind that are worth a look
ENOUGH = 5  # maps of a class, of which one can be called strange


@dataclass
class Survey:
    """What is known of a dataset after its rows went by.

    Only rows of the class that the network names are looked at; where classes were asked for by name, all rows.

    Attributes
    ----------
    classes : Classes
    outcomes : Outcomes
        Of all rows.
    histogram : ndarray of shape (BINS,), int64
        Of the probabilities.
    least_probable : Least
        By the probability.
    strangest : Least
        By the map's agreement with the others of its class, minus the agreement of the class.
    size : (int, int) or None
        h and w of the heatmaps, as they are summed up.
    """

    classes: Classes = field(default_factory=Classes)
    outcomes: Outcomes = field(default_factory=Outcomes)
    histogram: np.ndarray = field(default_factory=lambda: np.zeros(BINS, np.int64))
    least_probable: Least = field(default_factory=lambda: Least(SHOWN))
    strangest: Least = field(default_factory=lambda: Least(SHOWN))
    size: tuple[int, int] | None = None


@dataclass(frozen=True)
class Looked:
    """The rows of a batch that are looked at.

    Attributes
    ----------
    numbers, targets : ndarray of shape (n,), int64
        Their numbers in the shard, and their classes.
    has_map : ndarray of shape (n,), bool
    maps : ndarray of shape (m, p), float32
        Of the rows that have one.
    looked_at : ndarray of shape (N,), bool
        Which of the batch they are.
    size : (int, int)
        h and w of the maps.
    """

    numbers: np.ndarray
    targets: np.ndarray
    has_map: np.ndarray
    maps: np.ndarray
    looked_at: np.ndarray
    size: tuple[int, int]


def survey(dataset: Dataset, step: Callable[[int], object] = lambda shards: None) -> Survey:
    """Return what a dataset holds.

    Parameters
    ----------
    dataset : Dataset
    step : function
        Called with 1 for every shard that was read; every shard is read `PASSES` times.

    Raises
    ------
    BatchError
        A shard is missing, damaged or of another form.
    """
    found = Survey()
    for part in dataset.shards:
        _sum_up(dataset, part, found)
        step(1)
    agreeing = agreement(found.classes.unit, found.classes.maps)
    for part in dataset.shards:
        if (found.classes.maps >= ENOUGH).any():
            _find_strange(dataset, part, found, agreeing)
        step(1)
    return found


def _sum_up(dataset: Dataset, part: int, found: Survey) -> None:
    columns = dict.fromkeys((*COLUMNS, *outcomes.COLUMNS))
    for batch, rows in _read(dataset, part, tuple(columns), found):
        found.outcomes.add(batch)
        probability = batch.column("probability").to_numpy(zero_copy_only=False)[rows.looked_at].astype(np.float64)
        slots = found.classes.slots(rows.targets, batch.column("label").filter(pa.array(rows.looked_at)))
        found.classes.count(slots, ~rows.has_map, probability)
        found.classes.add(slots[rows.has_map], rows.maps, unit_maps(rows.maps))
        found.classes.keep(slots[rows.has_map], part, rows.numbers[rows.has_map])
        found.histogram += np.histogram(probability, BINS, (0, 1))[0]
        found.least_probable.add(probability, part, rows.numbers)


def _find_strange(dataset: Dataset, part: int, found: Survey, agreeing: np.ndarray) -> None:
    classes = found.classes
    for batch, rows in _read(dataset, part, COLUMNS, found):
        slots = classes.slots(rows.targets, batch.column("label").filter(pa.array(rows.looked_at)))[rows.has_map]
        units = unit_maps(rows.maps)
        known = (classes.maps[slots] >= ENOUGH) & units.any(axis=1)
        slots, units, numbers = slots[known], units[known], rows.numbers[rows.has_map][known]
        of_each = agreement_of_each(units, classes.unit[slots], classes.maps[slots])
        found.strangest.add(of_each - agreeing[slots], part, numbers)


def _read(dataset: Dataset, part: int, columns: tuple[str, ...], found: Survey) -> Iterator[tuple[pa.RecordBatch, Looked]]:
    """Yield the batches of a shard with the rows of them that are looked at."""
    first = 0
    for batch in dataset.batches(part, columns):
        try:
            rows = _looked_at(batch, first, dataset.by_name)
            if len(rows.maps):
                found.size = found.size or rows.size
                if found.size != rows.size:
                    raise ValueError("the heatmaps differ in shape")
        except ValueError as error:
            raise BatchError(f"{dataset.store}: shard {part} is damaged: {error}.") from None
        yield batch, rows
        first += len(batch)


def _looked_at(batch: pa.RecordBatch, first: int, every_rank: bool) -> Looked:
    target = batch.column("target")
    looked_at = np.asarray(target.is_valid())
    if not every_rank:
        looked_at &= np.asarray(pc.fill_null(pc.equal(batch.column("rank"), 0), False))
    maps, there = read_heatmaps(batch.column("heatmap"))
    maps = reduced(maps[looked_at[there]])
    count, *size = maps.shape
    return Looked(
        numbers=first + np.flatnonzero(looked_at),
        targets=np.asarray(pc.fill_null(target, 0))[looked_at].astype(np.int64),
        has_map=there[looked_at], maps=maps.reshape(count, size[0] * size[1]), looked_at=looked_at, size=(size[0], size[1]),
    )  # fmt: skip
