from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from camrt.errors import BatchError
from camrt.image import upsample
from camrt.scale import keeper
from camrt.scale.asked import ask
from camrt.scale.local import local

from .conftest import ENDLESS, POISON, Kept, make_photos, mark, rows_of, run


def same_but_for_place(found, expected):
    """Tell whether rows are the same, whatever the folder of their photos."""
    return found.drop_columns("source").equals(expected.drop_columns("source"))


def files_below(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def test_every_photo_has_the_heatmaps_that_explain_gives(tiny, photos, undisturbed):
    frame = undisturbed.to_pandas()
    assert list(frame.id) == [f"{i:02d}.png" for i in range(22)]
    for name, rows in list(frame.groupby("id"))[:6]:
        explanation = tiny.explain(photos / name)
        (row,) = rows.itertuples()
        target = explanation.targets[0]
        assert (row.rank, row.target, row.label, row.outcome) == (0, target.index, target.label, target.outcome.word)
        assert row.probability == pytest.approx(target.probability, abs=1e-6)
        seen = np.maximum(upsample(np.stack(row.heatmap).astype(np.float32), (32, 32)), 0)
        np.testing.assert_allclose(seen, explanation.network_heatmap[0], atol=1e-3)
        where = explanation.geometry
        assert (row.photo_height, row.photo_width) == where.photo == (40, 48)
        assert (row.resized_height, row.resized_width, row.top, row.left) == (*where.resized, where.top, where.left)
        assert (row.method, row.provider, row.bundle) == ("cluster-cam", "cpu", explanation.run.bundle_sha256)


def test_the_dataset_is_read_in_one_line(tiny_bundle, photos, tmp_path):
    import duckdb

    run(ask(tiny_bundle, [str(photos)], str(tmp_path / "out"), shard_size=5, top=2))
    frame = pd.read_parquet(tmp_path / "out" / "data")
    assert len(frame) == 44
    assert frame.groupby("id")["rank"].apply(list).map(sorted).map(tuple).unique().tolist() == [(0, 1)]
    (count, middle), = duckdb.sql(f"select count(*), max(heatmap[4][4]) from '{tmp_path}/out/**/*.parquet'").fetchall()
    assert (count, middle) == (44, pytest.approx(max(np.stack(h)[3, 3] for h in frame.heatmap if h is not None)))


def test_the_manifest_tells_the_counts_and_a_checksum_for_every_shard(tiny_bundle, photos, tmp_path):
    manifest = run(ask(tiny_bundle, [str(photos)], str(tmp_path), shard_size=5))
    told = json.loads((tmp_path / "manifest.json").read_text())
    assert told["state"] == "finished"
    assert (manifest.parts, manifest.photos, manifest.rows) == (5, 22, 22)
    assert told["done"] == {"shards": 5, "photos": 22, "rows": 22, "outcomes": manifest.outcomes}
    lines = [json.loads(line) for line in (tmp_path / "manifest" / "00000.jsonl").read_text().splitlines()]
    assert [line["part"] for line in lines] == [0, 1, 2, 3, 4]
    for line in lines:
        data = (tmp_path / line["file"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (line["bytes"], line["sha256"])


def test_nothing_else_is_left_in_the_folder(tiny_bundle, photos, tmp_path):
    run(ask(tiny_bundle, [str(photos)], str(tmp_path), shard_size=10))
    shards = {f"data/part-00000{i}.parquet" for i in range(3)}
    assert files_below(tmp_path) == shards | {
        ".lock", "manifest.json", "manifest/00000.jsonl", "listing/index.jsonl", "listing/00000.jsonl.gz",
    }  # fmt: skip


def test_a_second_run_over_finished_work_does_nothing(tiny_bundle, photos, tmp_path):
    asked = ask(tiny_bundle, [str(photos)], str(tmp_path), shard_size=5)
    run(asked)
    before = {name: (tmp_path / name).stat().st_mtime_ns for name in files_below(tmp_path) - {".lock"}}

    def no_worker(setup, jobs, tick):
        assert list(jobs) == []
        yield from ()

    run(asked, no_worker)
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in files_below(tmp_path) - {".lock"}} == before


@pytest.mark.parametrize("harm", ["removed", "truncated"])
def test_a_shard_that_is_gone_is_made_again(tiny_bundle, photos, undisturbed, tmp_path, harm):
    asked = ask(tiny_bundle, [str(photos)], str(tmp_path), shard_size=5)
    run(asked)
    shard = tmp_path / "data" / "part-000002.parquet"
    shard.unlink() if harm == "removed" else os.truncate(shard, 100)
    watch = Kept()
    asked.run(local, watch)
    assert (watch.lost, watch.shards) == (1, [2])
    assert rows_of(tmp_path).equals(undisturbed)


def test_verify_finds_a_shard_whose_bytes_were_changed(tiny_bundle, photos, tmp_path):
    run(ask(tiny_bundle, [str(photos)], str(tmp_path), shard_size=11))
    shard = tmp_path / "data" / "part-000001.parquet"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    watch = Kept()
    ask(tiny_bundle, [str(photos)], str(tmp_path), shard_size=11, verify=True).run(local, watch)
    assert watch.shards == [1]


def test_files_that_come_later_are_not_explained_and_those_that_vanish_are_told(tiny_bundle, tmp_path):
    photos, output = make_photos(tmp_path / "photos", 6), tmp_path / "out"
    asked = ask(tiny_bundle, [str(photos)], str(output), shard_size=2)
    with pytest.raises(KeyboardInterrupt):
        asked.run(local, Stopping(after=1))
    shutil.copy(photos / "00.png", photos / "00b.png")
    (photos / "04.png").unlink()
    run(asked)
    frame = rows_of(output).to_pandas()
    assert list(frame.id) == [f"0{i}.png" for i in range(6)]
    assert frame.outcome[4] == "unreadable"
    assert frame.error[4] == f"{photos}/04.png: there is no such file."


class Stopping(Kept):
    """Stops a run after so many shards."""

    def __init__(self, after):
        super().__init__()
        self.after = after

    def shard(self, shard):
        super().shard(shard)
        if len(self.shards) == self.after:
            raise KeyboardInterrupt


@pytest.mark.parametrize("after", [1, 3])
def test_a_run_that_was_stopped_goes_on_and_ends_with_the_same_rows(tiny_bundle, photos, undisturbed, tmp_path, after):
    asked = ask(tiny_bundle, [str(photos)], str(tmp_path), shard_size=5)
    with pytest.raises(KeyboardInterrupt):
        asked.run(local, Stopping(after))
    assert json.loads((tmp_path / "manifest.json").read_text())["state"] == "stopped"
    assert len(list((tmp_path / "data").iterdir())) == after
    watch = Kept()
    asked.run(local, watch)
    assert watch.shards == list(range(after, 5))
    assert rows_of(tmp_path).equals(undisturbed)


def test_a_dataset_of_another_question_is_refused_with_advice(tiny_bundle, photos, tmp_path):
    run(ask(tiny_bundle, [str(photos)], str(tmp_path), shard_size=11))
    for change in ({"top": 2}, {"parameters": {"clusters": 3}}, {"method": "grad-cam"}, {"shard_size": 5}):
        with pytest.raises(BatchError, match="holds a dataset of another question: .* was .*, is .*choose another"):
            run(ask(tiny_bundle, [str(photos)], str(tmp_path), **{"shard_size": 11, **change}))
    with pytest.raises(BatchError, match=r"question: parameters.clusters was 10, is 3\. Ask the same"):
        run(ask(tiny_bundle, [str(photos)], str(tmp_path), shard_size=11, parameters={"clusters": 3}))
    with pytest.raises(BatchError, match="bundle.name was .*another folder"):
        run(ask("shapes", [str(photos)], str(tmp_path), shard_size=11))


def test_an_input_that_was_mistyped_can_be_named_again(tiny_bundle, photos, tmp_path):
    with pytest.raises(BatchError, match="photoss: there is no such file"):
        run(ask(tiny_bundle, [f"{photos}s"], str(tmp_path), shard_size=11))
    assert run(ask(tiny_bundle, [str(photos)], str(tmp_path), shard_size=11)).photos == 22


def test_a_listing_of_another_input_is_never_gone_on_with(tiny_bundle, photos, tmp_path):
    """As after a kill -9 between the listing's last byte and the manifest's."""
    other = make_photos(tmp_path / "other", 3)
    run(ask(tiny_bundle, [str(other)], str(tmp_path / "out"), shard_size=11))
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    (tmp_path / "out" / "manifest.json").write_text(json.dumps({**manifest, "state": "listing", "parts": 0}))
    shutil.rmtree(tmp_path / "out" / "manifest")
    assert run(ask(tiny_bundle, [str(photos)], str(tmp_path / "out"), shard_size=11)).photos == 22


def test_a_listing_that_is_gone_is_told(tiny_bundle, photos, tmp_path):
    asked = ask(tiny_bundle, [str(photos)], str(tmp_path), shard_size=11)
    run(asked)
    (tmp_path / "listing" / "index.jsonl").unlink()
    with pytest.raises(BatchError, match="listing is gone, or of another run"):
        run(asked)


def test_a_folder_of_something_else_is_refused(tiny_bundle, photos, tmp_path):
    (tmp_path / "thesis.tex").write_text("important")
    with pytest.raises(BatchError, match=r"holds other files \(thesis.tex\)"):
        run(ask(tiny_bundle, [str(photos)], str(tmp_path)))
    assert files_below(tmp_path) - {".lock"} == {"thesis.tex"}


def test_files_of_the_user_are_never_removed(tiny_bundle, photos, tmp_path):
    asked = ask(tiny_bundle, [str(photos)], str(tmp_path), shard_size=11, overlays=True)
    run(asked)
    mine = [tmp_path / name for name in ("data/notes.txt", "data/sub/thesis.tex", "overlays/me.jpg", "notes.tmp", "data/part-0.txt")]
    for file in mine:
        file.parent.mkdir(exist_ok=True)
        file.write_text("important")
    run(asked)
    assert all(file.read_text() == "important" for file in mine)
    (tmp_path / "data" / "my.parquet").write_text("important")
    with pytest.raises(BatchError, match="data holds my.parquet, which camrt batch did not write. Move it elsewhere"):
        run(asked)
    assert (tmp_path / "data" / "my.parquet").exists()


def test_what_a_killed_run_was_writing_is_removed_and_never_in_the_way(tiny_bundle, photos, tmp_path):
    left = [tmp_path / n for n in ("manifest.json.0123abcd.tmp", "manifest/00000.jsonl.0123abcd.tmp", "data/.part-000000.0123abcd.tmp")]
    (tmp_path / left[0].name).write_text("{")
    asked = ask(tiny_bundle, [str(photos)], str(tmp_path), shard_size=11)
    run(asked)
    for file in left:
        file.write_text("torn")
    run(asked)
    assert not any(file.exists() for file in left)


def test_two_runs_at_once_are_refused(tiny_bundle, photos, tmp_path):
    asked = ask(tiny_bundle, [str(photos)], str(tmp_path), shard_size=11)

    class Second(Kept):
        def begin(self, manifest, listing, lost):
            with pytest.raises(BatchError, match="another run writes there"):
                run(asked)

    asked.run(local, Second())


def test_bad_photos_are_rows_that_say_why(tiny_bundle, tmp_path):
    photos = make_photos(tmp_path / "photos", 7)
    (photos / "01.png").write_bytes(b"")
    (photos / "02.png").write_bytes((photos / "02.png").read_bytes()[:60])
    (photos / "03.png").write_text("no picture")
    (photos / "05.jpg").symlink_to("nowhere")
    manifest = run(ask(tiny_bundle, [str(photos)], str(tmp_path / "out"), shard_size=4, max_pixels=40 * 48))
    frame = rows_of(tmp_path / "out").to_pandas().set_index("id")
    assert manifest.outcomes["unreadable"] == 4
    assert "empty" in frame.error["01.png"]
    assert "cut short" in frame.error["02.png"]
    assert "not a supported image" in frame.error["03.png"]
    assert "no such file" in frame.error["05.jpg"]
    assert frame.heatmap[["01.png", "02.png", "03.png", "05.jpg"]].isna().all()


def test_a_photo_that_kills_its_worker_is_found_and_recorded(tiny_bundle, photos, undisturbed, tmp_path, decoder):
    mine = shutil.copytree(photos, tmp_path / "photos")
    mark(mine / "07.png", POISON)
    mark(mine / "21.png", POISON)
    manifest = run(ask(tiny_bundle, [str(mine)], str(tmp_path / "out"), shard_size=5))
    frame, before = rows_of(tmp_path / "out").to_pandas(), undisturbed.to_pandas()
    assert manifest.outcomes["crashed"] == 2
    assert list(frame.id[frame.outcome == "crashed"]) == ["07.png", "21.png"]
    assert set(frame.error.dropna()) == {"The photo killed its worker: signal SIGSEGV."}
    for mine_row, row in zip(frame.itertuples(), before.itertuples(), strict=True):
        if mine_row.outcome != "crashed":
            np.testing.assert_allclose(np.stack(mine_row.heatmap), np.stack(row.heatmap), atol=2e-3)


def test_a_photo_that_never_ends_is_found_and_recorded(tiny_bundle, tmp_path, decoder):
    photos = make_photos(tmp_path / "photos", 6)
    mark(photos / "03.png", ENDLESS)
    run(ask(tiny_bundle, [str(photos)], str(tmp_path / "out"), shard_size=4, stall=1.5))
    frame = rows_of(tmp_path / "out").to_pandas().set_index("id")
    assert list(frame.index[frame.outcome == "crashed"]) == ["03.png"]
    assert frame.error["03.png"] == "The photo killed its worker: nothing was done for 1.5 s."


def test_many_photos_that_kill_are_no_stop_where_others_do_not(tiny_bundle, tmp_path, decoder, monkeypatch):
    monkeypatch.setattr(keeper, "MOST_KILLERS", 3)
    photos = make_photos(tmp_path / "photos", 8)
    for i in range(2, 7):
        mark(photos / f"{i:02d}.png", POISON)
    manifest = run(ask(tiny_bundle, [str(photos)], str(tmp_path / "out")))
    assert (manifest.photos, manifest.outcomes["crashed"]) == (8, 5)


def test_photos_that_all_kill_are_not_the_photos_fault(tiny_bundle, tmp_path, decoder, monkeypatch):
    monkeypatch.setattr(keeper, "MOST_KILLERS", 3)
    photos = make_photos(tmp_path / "photos", 5)
    for photo in photos.iterdir():
        mark(photo, POISON)
    with pytest.raises(BatchError, match=r"The first 3 photos of part 0 all kill the worker \(signal SIGSEGV\)\. It is not the photos"):
        run(ask(tiny_bundle, [str(photos)], str(tmp_path / "out")))


def test_overlays_are_written_on_request(tiny_bundle, photos, tmp_path):
    import cv2

    run(ask(tiny_bundle, [str(photos)], str(tmp_path), shard_size=11, top=2, overlays=True))
    frame = rows_of(tmp_path).to_pandas()
    assert len({*frame.overlay}) == 44
    assert frame.overlay[2].startswith("overlays/part-000000/000001.0.")
    for name in frame.overlay:
        assert cv2.imread(str(tmp_path / name)).shape == (40, 48, 3)


def test_a_full_disk_ends_the_run_with_what_is_done(tiny_bundle, photos, undisturbed, tmp_path, monkeypatch):
    """A writer that refuses the third shard stands in for the disk."""
    folder = tmp_path / "custom"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        "import errno, pyarrow.parquet as pq\nmake = pq.ParquetWriter.__init__\ncount = [0]\n"
        "def init(self, *a, **k):\n    count[0] += 1\n"
        "    if count[0] == 3: raise OSError(errno.ENOSPC, 'No space left on device', 'part')\n    make(self, *a, **k)\n"
        "pq.ParquetWriter.__init__ = init\n"
    )
    output = tmp_path / "out"
    asked = ask(tiny_bundle, [str(photos)], str(output), shard_size=5)
    with monkeypatch.context() as patch:
        patch.syspath_prepend(folder)
        with pytest.raises(BatchError, match="No space left on device"):
            run(asked)
    names = sorted(p.name for p in (output / "data").iterdir())
    assert names == [f"part-00000{i}.parquet" for i in range(len(names))]
    run(asked)
    assert rows_of(output).equals(undisturbed)


def command(bundle: Path, photos: Path, output: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "camrt", "batch", str(bundle), str(photos), "-o", str(output), "--shard-size", "5", "--json", *more]


def workers(environment: str = "") -> set[int]:
    """The workers of this machine that have something in their environment."""
    found = set()
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdecimal() and b"camrt.scale.worker" in (entry / "cmdline").read_bytes():
                found |= {int(entry.name)} if environment.encode() in (entry / "environ").read_bytes() else set()
        except OSError:
            continue
    return found


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def children_of(pid: int) -> set[int]:
    return {worker for worker in workers() if parent_of(worker) == pid}


def until(condition, seconds: float = 30.0):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found


def test_a_photo_is_not_blamed_for_workers_that_others_kill(tiny_bundle, slow_photos, undisturbed, tmp_path, decoder):
    done = threading.Event()

    def kill_now_and_then():
        for pause in (1.5, 0.9):  # under way, and again while it is looked for what killed it
            if done.wait(pause):
                return
            for pid in children_of(os.getpid()):
                os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill_now_and_then)
    killer.start()
    manifest = run(ask(tiny_bundle, [str(slow_photos)], str(tmp_path / "out"), shard_size=5))
    done.set()
    killer.join()
    assert "crashed" not in manifest.outcomes
    assert same_but_for_place(rows_of(tmp_path / "out"), undisturbed)


def test_a_worker_that_is_killed_costs_nothing_but_time(tiny_bundle, photos, undisturbed, tmp_path):
    class Killing(Kept):
        def shard(self, shard):
            super().shard(shard)
            if len(self.shards) in (1, 3):
                for pid in children_of(os.getpid()):
                    os.kill(pid, signal.SIGKILL)

    asked = ask(tiny_bundle, [str(photos)], str(tmp_path), shard_size=5)
    watch = Killing()
    asked.run(local, watch)
    assert watch.shards == [0, 1, 2, 3, 4]
    assert rows_of(tmp_path).equals(undisturbed)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_killed_goes_on_with_the_same_command(tiny_bundle, slow_photos, undisturbed, tmp_path, decoder, how):
    output = tmp_path / "out"
    process = subprocess.Popen(command(tiny_bundle, slow_photos, output), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    until((output / "manifest" / "00000.jsonl").exists)
    mine = children_of(process.pid)
    assert mine
    process.send_signal(how)
    _, error = process.communicate(timeout=30)
    assert process.returncode == {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}[how]
    until(lambda: not mine & workers(), 5)
    if how != signal.SIGKILL:
        assert "of 5 shards are done and kept" in error.decode()
    done = subprocess.run(command(tiny_bundle, slow_photos, output), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    first, *_, last = map(json.loads, done.stdout.splitlines())
    assert first["event"] == "progress"
    assert 0 < first["photos"] < 22
    assert (last["event"], last["photos"]) == ("summary", 22)
    assert same_but_for_place(rows_of(output), undisturbed)
    assert files_below(output / "data") == {f"part-00000{i}.parquet" for i in range(5)}


def test_a_reader_of_progress_who_leaves_ends_the_run(tiny_bundle, slow_photos, undisturbed, tmp_path, decoder):
    output = tmp_path / "out"
    process = subprocess.Popen(command(tiny_bundle, slow_photos, output), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.readline()
    process.stdout.close()
    with process.stderr:
        assert b"Traceback" not in process.stderr.read()
    assert process.wait(timeout=30) == 1
    until(lambda: not children_of(process.pid), 5)
    subprocess.run(command(tiny_bundle, slow_photos, output), check=True, capture_output=True, timeout=60)
    assert same_but_for_place(rows_of(output), undisturbed)


def test_a_simulated_run_writes_what_it_would_and_says_that_it_is_none(tiny_bundle, tmp_path):
    (tmp_path / "0.jpg").touch()
    (tmp_path / "list.txt").write_text("".join(f"{i}.jpg\n" for i in range(2500)))
    manifest = run(ask(tiny_bundle, [str(tmp_path / "list.txt")], str(tmp_path / "out"), simulate=True))
    assert (manifest.parts, manifest.photos, manifest.outcomes) == (3, 2500, {"ok": 2500})
    table = pq.read_table(tmp_path / "out" / "data")
    assert table["id"].to_pylist() == [f"{i}.jpg" for i in range(2500)]
    about = json.loads(pq.read_schema(tmp_path / "out" / "data" / "part-000000.parquet").metadata[b"camrt"])
    assert about["simulated"] is True
    assert manifest.asked["simulate"] is True
