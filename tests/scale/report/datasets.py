"""Datasets by hand: rows, heatmaps, and shards with their manifest."""

from __future__ import annotations

import numpy as np

from camrt.scale.manifest import FINISHED, Manifest
from camrt.scale.report import Summary, open_dataset, summarise, survey
from camrt.scale.schema import GEOMETRY, OK, Row
from camrt.scale.shard import ShardWriter, data_file
from camrt.scale.store import open_store

SIDE = 6
HOSTILE = "<img src=x onerror=alert(1)>\x1b[31m\u202e\"'&"


def found(target: int, heatmap: np.ndarray | None, *, rank=0, probability=0.9, label=None, outcome=OK, where=(224,) * 8) -> Row:
    """A row of the class `target`."""
    values = {
        "rank": rank, "target": target, "label": label or f"class-{target}", "probability": probability,
        "outcome": outcome if heatmap is not None or outcome != OK else "flat_map", **dict(zip(GEOMETRY, where, strict=True)),
    }  # fmt: skip
    return Row(values, None if heatmap is None else heatmap.astype(np.float16))


def unreadable(message: str) -> Row:
    return Row({"outcome": "unreadable", "error": message}, None)


def write(folder, shards: list[list], *, state=FINISHED, parts=None, **asked) -> str:
    """Write a dataset: shards of photos, each its rows, or (id, source, rows)."""
    store = open_store(str(folder))
    asked = {"bundle": {"name": "toy", "sha256": "0" * 64}, "method": "cluster-cam", "classes": 1, "simulate": False, **asked}
    manifest = Manifest.begin(store, asked)
    manifest.set_parts(parts or len(shards), sum(map(len, shards)))
    for part, photos in enumerate(shards):
        writer = ShardWriter(store, part, {"version": 1})
        for i, photo in enumerate(photos):
            name, source, rows = photo if isinstance(photo, tuple) and len(photo) == 3 else (f"{part}/{i}", "", photo)
            writer.add(name, source, rows)
        shard = writer.close()
        store.move(shard.file, data_file(part))
        manifest.add(shard)
    manifest.write(state)
    return str(folder)


def spot(row: float, column: float, side: int = SIDE) -> np.ndarray:
    """A heatmap that is hot around one cell."""
    y, x = np.mgrid[:side, :side]
    return np.exp(-((y - row) ** 2 + (x - column) ** 2) / 2)


def wandering(random, side: int = SIDE) -> np.ndarray:
    return spot(*random.uniform(0, side - 1, 2), side)


def summary_of(folder) -> Summary:
    dataset = open_dataset(str(folder))
    return summarise(dataset, survey(dataset))


def write_cornered(folder, random) -> str:
    """Write five classes that follow their subjects, but for class 3, which lies at the bottom right in each of 20 photos."""
    photos = [[found(target, wandering(random))] for target in range(5) for _ in range(40) if target != 3]
    photos += [[found(3, spot(5, 5) + 0.1 * random.random((SIDE, SIDE)))] for _ in range(20)]
    order = random.permutation(len(photos))
    return write(folder, [[photos[i] for i in order[k::3]] for k in range(3)])


def write_hostile(folder, random) -> str:
    """Write a dataset of which every text is markup that reorders the text around it."""
    photos = [(f"{HOSTILE}{i}", HOSTILE, [found(0, wandering(random), label=HOSTILE)]) for i in range(12)]
    photos += [(HOSTILE, "", [unreadable(HOSTILE)]), (HOSTILE, "", [Row({"outcome": HOSTILE, "error": HOSTILE}, None)])]
    return write(folder, [photos], bundle={"name": HOSTILE}, method=HOSTILE, versus=HOSTILE)
