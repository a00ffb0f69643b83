"""Results that are invented, to see whether a run of millions would go through: everything but the explaining happens."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa

from camrt.scale.job import Job, Shard
from camrt.scale.part import Item
from camrt.scale.schema import GEOMETRY, OK, SCHEMA, STAGES
from camrt.scale.shard import ROWS_AT_ONCE, ShardWriter
from camrt.scale.store import Store

SIDE = 7  # of the invented heatmaps
CLASSES = 1000


def simulate(store: Store, job: Job, items: Iterable[Item], about: Mapping[str, Any]) -> Shard:
    """Return a part's shard with invented rows; the same whenever it is made."""
    random = np.random.default_rng(job.number)
    shard = ShardWriter(store, job.number, about)
    source = iter(items)
    while some := list(islice(source, ROWS_AT_ONCE)):
        shard.add_table(_invented(some, random), len(some), {OK: len(some)})
    return shard.close()


def _invented(items: list[Item], random: np.random.Generator) -> pa.Table:
    count = len(items)
    target = random.integers(0, CLASSES, count).astype(np.int32)
    maps = random.random((count, SIDE, SIDE), np.float32).astype(np.float16)
    lines = pa.FixedSizeListArray.from_arrays(pa.array(maps.ravel()), SIDE).cast(pa.list_(pa.float16()))
    columns: dict[str, Any] = {
        "id": [item.id for item in items], "source": [item.source for item in items], "rank": np.zeros(count, np.int16),
        "target": target, "label": [f"class {index}" for index in target], "probability": random.random(count, np.float32),
        "outcome": pa.array([OK]).take(pa.array(np.zeros(count, np.int32))),
        "heatmap": pa.ListArray.from_arrays(np.arange(0, count * SIDE + 1, SIDE, dtype=np.int32), lines),
        "method": ["simulated"] * count,
        **{name: np.full(count, 224, np.int32) for name in GEOMETRY},
        "timings": pa.StructArray.from_arrays([pa.nulls(count, pa.float32())] * len(STAGES), STAGES),
    }  # fmt: skip
    arrays = [pa.array(columns[f.name], f.type) if f.name in columns else pa.nulls(count, f.type) for f in SCHEMA]
    return pa.table(arrays, schema=SCHEMA)
