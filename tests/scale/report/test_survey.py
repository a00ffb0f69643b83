from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from camrt.errors import BatchError
from camrt.scale.report import open_dataset, page, survey, to_json

from .datasets import SIDE, found, spot, summary_of, wandering, write


def test_only_the_class_that_the_network_names_is_looked_at(tmp_path, random):
    photos = [[found(0, wandering(random)), found(1, spot(0, 0), rank=1, probability=0.01)] for _ in range(20)]
    summary = summary_of(write(tmp_path / "out", [photos], classes=2))
    assert [one.index for one in summary.classes] == [0]
    assert to_json(summary)["rows"] == 40
    assert all(value == pytest.approx(0.9) for value, _ in summary.survey.least_probable)


def test_classes_asked_for_by_name_are_looked_at_in_every_photo(tmp_path, random):
    photos = [[found(0, wandering(random)), found(1, spot(0, 0), rank=1, probability=0.01)] for _ in range(20)]
    summary = summary_of(write(tmp_path / "out", [photos], classes=[0, 1]))
    assert [(one.index, one.photos) for one in summary.classes] == [(1, 20), (0, 20)]
    assert summary.classes[0].suspicious
    assert "asked for" in page(summary)


def test_large_heatmaps_are_summed_up_smaller_and_found_the_same(tmp_path, random):
    photos = [[found(i % 3, spot(50, 5, 56) if i % 3 == 0 else wandering(random, 56))] for i in range(60)]
    summary = summary_of(write(tmp_path / "out", [photos], method="rise"))
    assert summary.survey.size == (28, 28)
    assert [(one.index, one.peak.words) for one in summary.suspects] == [(0, "bottom left")]


def test_a_heatmap_that_is_the_same_everywhere_points_nowhere(tmp_path, random):
    photos = [[found(0, np.ones((SIDE, SIDE)))] for _ in range(3)] + [[found(0, spot(0, 0))] for _ in range(2)]
    (one,) = summary_of(write(tmp_path / "out", [photos])).classes
    assert (one.photos, one.failed, one.maps) == (5, 0, 2)
    assert one.agreement == pytest.approx(1, abs=1e-5)


# --- damage -----------------------------------------------------------------------------------------------------------------
def spoil_missing(shard: Path) -> None:
    shard.unlink()


def spoil_cut(shard: Path) -> None:
    shard.write_bytes(shard.read_bytes()[:-40])


def spoil_garbage(shard: Path) -> None:
    data = bytearray(shard.read_bytes())
    data[4:600] = bytes(596)
    shard.write_bytes(bytes(data))


def spoil_columns(shard: Path) -> None:
    pq.write_table(pq.read_table(shard).drop_columns(["heatmap"]), shard)


def spoil_types(shard: Path) -> None:
    table = pq.read_table(shard)
    pq.write_table(table.set_column(table.schema.get_field_index("target"), "target", pa.array(["x"] * len(table))), shard)


def heatmaps_become(values) -> object:
    def spoil(shard: Path) -> None:
        table = pq.read_table(shard)
        column = pa.array([values(i) for i in range(len(table))], table.schema.field("heatmap").type)
        pq.write_table(table.set_column(table.schema.get_field_index("heatmap"), "heatmap", column), shard)

    return spoil


@pytest.mark.parametrize(("spoil", "text"), [
    (spoil_missing, "part-000001.parquet is missing or damaged"),
    (spoil_cut, "part-000001.parquet is missing or damaged"),
    (spoil_garbage, "part-000001.parquet is missing or damaged"),
    (spoil_columns, "its columns heatmap differ"),
    (spoil_types, "its columns target differ"),
    (heatmaps_become(lambda i: np.ones((2 + i % 2, 4), np.float16).tolist()), "shard 1 is damaged: the heatmaps differ in shape"),
    (heatmaps_become(lambda i: np.ones((3, 3), np.float16).tolist()), "shard 1 is damaged: the heatmaps differ in shape"),
    (heatmaps_become(lambda i: np.full((SIDE, SIDE), np.nan, np.float16).tolist()), "shard 1 is damaged: values of heatmaps"),
    (heatmaps_become(lambda i: [None] * SIDE), "shard 1 is damaged"),
    (heatmaps_become(lambda i: []), "shard 1 is damaged"),
])  # fmt: skip
def test_a_damaged_shard_is_named(tmp_path, random, spoil, text):
    output = write(tmp_path / "out", [[[found(0, wandering(random))] for _ in range(40)] for _ in range(2)])
    spoil(tmp_path / "out" / "data" / "part-000001.parquet")
    with pytest.raises(BatchError, match=re.escape(text)):
        survey(open_dataset(output))
