from __future__ import annotations

import pytest

from camrt.errors import BatchError
from camrt.scale.report import cautions, open_dataset

from .datasets import found, summary_of, wandering, write


def test_only_shards_that_the_manifest_notes_count(tmp_path, random):
    output = write(tmp_path / "out", [[[found(0, wandering(random))] for _ in range(5)]], parts=2, state="stopped")
    (tmp_path / "out" / "data" / "part-000001.parquet").write_bytes(b"half of a shard")
    summary = summary_of(output)
    assert summary.classes[0].photos == 5
    assert "1 of 2 shards are done" in cautions(summary)[0]
    assert "stopped" in cautions(summary)[0]


def test_what_is_no_dataset_is_refused(tmp_path):
    with pytest.raises(BatchError, match=r"has no manifest\.json"):
        open_dataset(str(tmp_path / "nowhere"))
    (tmp_path / "manifest.json").write_text('{"kind": "x"}')
    with pytest.raises(BatchError, match="damaged"):
        open_dataset(str(tmp_path))
    with pytest.raises(BatchError, match="cannot be read"):
        open_dataset(str(tmp_path / "manifest.json"))
    with pytest.raises(BatchError, match="nowhere"):
        open_dataset("nowhere://bucket/x")
