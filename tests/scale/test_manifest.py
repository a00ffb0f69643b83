from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camrt.errors import BatchError
from camrt.scale.job import Shard
from camrt.scale.manifest import LINES, Manifest
from camrt.scale.store import Store


def shard(part: int, size: int = 3) -> Shard:
    return Shard(part, "", None, f"{part:064x}", size, 2, 4, {"ok": 3, "flat_map": 1}, 0.5)


def begun(folder, parts: int, done: list[int] = ()) -> Manifest:
    store = Store(str(folder))
    manifest = Manifest.begin(store, {"method": "cam"})
    manifest.set_parts(parts, 2 * parts)
    for part in done:
        store.write(f"data/part-{part:06d}.parquet", b"abc")
        manifest.add(shard(part))
    return manifest


@given(st.sets(st.integers(0, 29)).flatmap(lambda s: st.permutations(sorted(s))))
@settings(max_examples=20, deadline=None)
def test_what_was_noted_is_there_when_it_is_opened_again(tmp_path_factory, order):
    folder = tmp_path_factory.mktemp("manifest")
    begun(folder, 30, order)
    again = Manifest.open(Store(str(folder)))
    assert sorted(again.missing()) == sorted(set(range(30)) - set(order))
    assert (again.done, again.photos, again.rows) == (len(order), 2 * len(order), 4 * len(order))
    assert again.outcomes == ({"ok": 3 * len(order), "flat_map": len(order)} if order else {})


def test_lines_go_on_in_another_file_where_one_is_full(tmp_path):
    begun(tmp_path, LINES + 3, list(range(LINES + 2)))
    assert sorted(p.name for p in (tmp_path / "manifest").iterdir()) == ["00000.jsonl", "00001.jsonl"]
    again = Manifest.begin(Store(str(tmp_path)), {"method": "cam"})
    again.add(shard(LINES + 2))
    assert len((tmp_path / "manifest" / "00001.jsonl").read_text().splitlines()) == 3
    assert list(Manifest.open(Store(str(tmp_path))).missing()) == []


def test_shards_that_are_lost_are_forgotten_for_good(tmp_path):
    begun(tmp_path, 4, [0, 1, 2])
    (tmp_path / "data" / "part-000001.parquet").unlink()
    manifest = Manifest.open(Store(str(tmp_path)))
    assert manifest.forget_lost() == 1
    for found in (manifest, Manifest.open(Store(str(tmp_path)))):
        assert (list(found.missing()), found.photos) == ([1, 3], 4)
    manifest.add(shard(1))
    assert list(Manifest.open(Store(str(tmp_path))).missing()) == [3]


@pytest.mark.parametrize("text", [
    "", "[]", "{", '{"kind": "camrt-batch"}', '{"kind": "other", "version": 1}', '{"kind": "camrt-batch", "version": 2}',
    '{"kind": "camrt-batch", "version": 1, "asked": {}, "begun": "", "state": "", "listed": 1, "parts": -1}',
    '{"kind": "camrt-batch", "version": 1, "asked": {}, "begun": "", "state": "", "listed": 1, "parts": "many"}',
    '{"kind": "camrt-batch", "version": 1, "asked": {}, "begun": "", "state": "", "listed": 1, "parts": 1000000000000000000}',
    '{"kind": "camrt-batch", "version": 1, "asked": {}, "begun": 7, "state": "", "listed": 1, "parts": 1}',
    "[" * 100_000,
])  # fmt: skip
def test_a_manifest_that_is_damaged_is_told(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(BatchError, match=r"manifest.json.* is damaged .*another folder"):
        Manifest.open(Store(str(tmp_path)))


@pytest.mark.parametrize("line", ["{", "[]", "{}", '{"part": 9, "bytes": 1, "photos": 1, "rows": 1, "outcomes": {}}', '{"part": "0"}', '{"part": -1, "bytes": 1, "photos": 1, "rows": 1, "outcomes": {}}', '{"part": 0, "bytes": 1e23, "photos": 1, "rows": 1, "outcomes": {}}'])
def test_a_line_that_is_damaged_is_told(tmp_path, line):
    begun(tmp_path, 4, [0])
    (tmp_path / "manifest" / "00000.jsonl").write_text(line + "\n")
    with pytest.raises(BatchError, match="is damaged"):
        Manifest.open(Store(str(tmp_path)))


def test_a_folder_without_a_manifest_is_no_dataset(tmp_path):
    with pytest.raises(BatchError, match="so it is no dataset that camrt batch wrote"):
        Manifest.open(Store(str(tmp_path)))


def test_the_state_and_the_counts_can_be_read_by_people(tmp_path):
    begun(tmp_path, 3, [2, 0]).write("stopped")
    told = json.loads((tmp_path / "manifest.json").read_text())
    assert (told["state"], told["parts"], told["listed"]) == ("stopped", 3, 6)
    assert told["done"] == {"shards": 2, "photos": 4, "rows": 8, "outcomes": {"ok": 6, "flat_map": 2}}


def test_a_shard_that_is_noted_is_never_tidied_away_when_the_run_is_stopped_there(tmp_path, monkeypatch):
    from camrt.scale.batch import tidy

    manifest, store = begun(tmp_path, 2), Store(str(tmp_path))
    store.write("data/part-000000.parquet", b"abc")
    write = manifest._write_lines

    def stopped(*arguments):
        write(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(manifest, "_write_lines", stopped)
    with pytest.raises(KeyboardInterrupt):
        manifest.add(shard(0))
    tidy(store, manifest)
    again = Manifest.open(store)
    assert (again.done, again.forget_lost()) == (1, 0)
