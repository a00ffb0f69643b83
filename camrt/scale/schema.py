"""The rows of a dataset: one for every photo and target, as Arrow's columns.

`heatmap` is (M − low) / (high − low) of the signed map M at feature resolution, low and high being the least and greatest value
of ReLU(up(M)): upsampled bilinearly to the network's input and cut off below 0 it is `Explanation.network_heatmap`, to 1e-3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import pyarrow as pa

from camrt.errors import CamrtError, DeviceMemoryError
from camrt.explanation import Explanation
from camrt.heatmap import Outcome
from camrt.image import upsampled_range

VERSION = 1  # of the columns
STAGES = ("decode", "preprocess", "forward", "cluster", "group", "masked", "tail", "gradient", "merge", "wait", "total")
UNREADABLE, OUT_OF_MEMORY, CRASHED = "unreadable", "out_of_memory", "crashed"  # photos without an explanation
OK = Outcome.OK.word
OUTCOMES = (*(outcome.word for outcome in Outcome), UNREADABLE, OUT_OF_MEMORY, CRASHED)
GEOMETRY = (
    "photo_height", "photo_width", "resized_height", "resized_width", "top", "left", "network_height", "network_width",
)  # fmt: skip

SCHEMA = pa.schema([
    ("id", pa.string()),
    ("source", pa.string()),
    ("rank", pa.int16()),
    ("target", pa.int32()),
    ("label", pa.string()),
    ("probability", pa.float32()),
    ("outcome", pa.string()),
    ("heatmap", pa.list_(pa.list_(pa.float16()))),
    *((name, pa.int32()) for name in GEOMETRY),
    ("notes", pa.list_(pa.string())),
    ("error", pa.string()),
    ("overlay", pa.string()),
    ("method", pa.string()),
    ("provider", pa.string()),
    ("bundle", pa.string()),
    ("timings", pa.struct([(stage, pa.float32()) for stage in STAGES])),
])  # fmt: skip
TEXTS = ["source", "label", "outcome", "error", "overlay", "method", "provider", "bundle"]  # that repeat


class Row(NamedTuple):
    """What is found for a target of a photo, or why there is nothing; by the names of the columns.

    Attributes
    ----------
    values : dict
        What is missing is null.
    heatmap : ndarray of shape (h, w), float16, or None
    """

    values: dict[str, Any]
    heatmap: np.ndarray | None


def explained(explanation: Explanation, small: tuple[int, int]) -> list[Row]:
    """Return the rows of an explanation, without the photo's id.

    Parameters
    ----------
    explanation : Explanation
    small : (int, int)
        h and w of the features; larger maps are shrunk to it.
    """
    where, run = explanation.geometry, explanation.run
    shared = {
        **dict(zip(GEOMETRY, (*where.photo, *where.resized, where.top, where.left, *where.network), strict=True)),
        "notes": list(explanation.notes), "method": run.method, "provider": run.provider, "bundle": run.bundle_sha256,
        "timings": dict(run.timings),
    }  # fmt: skip
    heatmaps = _small(explanation.maps, small, where.network)
    return [
        Row(
            {
                "rank": rank, "target": target.index, "label": target.label,
                "probability": None if np.isnan(target.probability) else target.probability,
                "outcome": target.outcome.word, **shared,
            },
            heatmap if target.outcome is Outcome.OK else None,
        )
        for rank, (target, heatmap) in enumerate(zip(explanation.targets, heatmaps, strict=True))
    ]  # fmt: skip


def _small(maps: np.ndarray, small: tuple[int, int], network: tuple[int, int]) -> np.ndarray:
    """Return maps (T, h, w) as float16, scaled so that what is seen of them, upsampled, spans [0, 1]."""
    if maps.shape[1:] != small:  # RISE's are as large as the network's input
        maps = np.stack([cv2.resize(one, small[::-1], interpolation=cv2.INTER_AREA) for one in maps])
    low, high = upsampled_range(maps, network)
    low = np.maximum(low, 0)
    with np.errstate(all="ignore"):
        return np.asarray((maps - low) / np.where(high > low, high - low, 1), np.float16)


def failed(error: CamrtError) -> Row:
    """Return the row of a photo that could not be explained."""
    return Row({"outcome": OUT_OF_MEMORY if isinstance(error, DeviceMemoryError) else UNREADABLE, "error": str(error)}, None)


def crashed(how: str) -> Row:
    """Return the row of a photo that killed its worker."""
    return Row({"outcome": CRASHED, "error": how}, None)


def table(rows: Sequence[Row]) -> pa.Table:
    """Return rows as a table of `SCHEMA`."""
    columns: dict[str, Any] = {}
    for field in SCHEMA:
        if field.name != "heatmap":
            columns[field.name] = pa.array([row.values.get(field.name) for row in rows], field.type)
    columns["heatmap"] = heatmaps([row.heatmap for row in rows])
    return pa.table([columns[name] for name in SCHEMA.names], schema=SCHEMA)


def heatmaps(maps: Sequence[np.ndarray | None]) -> pa.Array:
    """Return maps as an array of lists of lists; None becomes null."""
    there = [one for one in maps if one is not None]
    values = np.concatenate([one.ravel() for one in there]) if there else np.zeros(0, np.float16)
    widths = np.concatenate([[0], *(np.full(one.shape[0], one.shape[1]) for one in there)])
    heights = np.concatenate([[0], [0 if one is None else one.shape[0] for one in maps]])
    lines = pa.ListArray.from_arrays(pa.array(np.cumsum(widths), pa.int32()), pa.array(values, pa.float16()))
    missing = pa.array([one is None for one in maps], pa.bool_())
    return pa.ListArray.from_arrays(pa.array(np.cumsum(heights), pa.int32()), lines, mask=missing)
