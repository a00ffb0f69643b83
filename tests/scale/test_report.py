from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from camrt.cli import camrt
from camrt.errors import BatchError
from camrt.image import preprocess_photo
from camrt.preprocess import Preprocess
from camrt.scale.asked import ask
from camrt.scale.manifest import FINISHED, Manifest
from camrt.scale.report import open_dataset, page, summarise, survey, to_json
from camrt.scale.report.extremes import Least
from camrt.scale.report.finding import cautions, headline
from camrt.scale.report.pictures import geometry_of, picture
from camrt.scale.schema import GEOMETRY, Row, crashed
from camrt.scale.shard import ShardWriter, data_file
from camrt.scale.store import open_store

from .conftest import run

SIDE = 6
HOSTILE = "<img src=x onerror=alert(1)>\x1b[31m\u202e\"'&"
WIDTHS = "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"


# --- datasets by hand -----------------------------------------------------------------------------------------------------
def found(target: int, heatmap: np.ndarray | None, *, rank=0, probability=0.9, label=None, outcome="ok", where=(224,) * 8) -> Row:
    """A row of the class `target`."""
    values = {
        "rank": rank, "target": target, "label": label or f"class-{target}", "probability": probability,
        "outcome": outcome if heatmap is not None or outcome != "ok" else "flat_map", **dict(zip(GEOMETRY, where, strict=True)),
    }  # fmt: skip
    return Row(values, None if heatmap is None else heatmap.astype(np.float16))


def unreadable(message: str) -> Row:
    return Row({"outcome": "unreadable", "error": message}, None)


def write(folder, shards: list[list], *, state=FINISHED, parts=None, **asked) -> str:
    """Write a dataset: shards of photos, each its rows, or (id, source, rows)."""
    store = open_store(str(folder))
    asked = {"bundle": {"name": "toy", "sha256": "0" * 64}, "method": "cluster-cam", "classes": 1, "simulate": False, **asked}
    manifest = Manifest.begin(store, asked)
    manifest.listed(parts or len(shards), sum(map(len, shards)))
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


def summary_of(folder):
    dataset = open_dataset(str(folder))
    return summarise(dataset, survey(dataset))


def report(*arguments):
    return CliRunner().invoke(camrt, ["report", *map(str, arguments)])


def error_of(result) -> str:
    """Return the one line that the command ends with."""
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    return line


@pytest.fixture
def random():
    return np.random.default_rng(0)


@pytest.fixture
def cornered(tmp_path, random) -> str:
    """Five classes that follow their subjects, and class 3, which lies at the bottom right in each of 20 photos."""
    photos = [[found(target, wandering(random))] for target in range(5) for _ in range(40) if target != 3]
    photos += [[found(3, spot(5, 5) + 0.1 * random.random((SIDE, SIDE)))] for _ in range(20)]
    order = random.permutation(len(photos))
    return write(tmp_path / "cornered", [[photos[i] for i in order[k::3]] for k in range(3)])


# --- shortcuts ------------------------------------------------------------------------------------------------------------
def test_a_class_that_always_looks_at_one_corner_is_named_first(cornered):
    summary = summary_of(cornered)
    assert [one.index for one in summary.suspects] == [3]
    assert summary.classes[0].index == 3
    assert (summary.classes[0].peak.words, summary.classes[0].peak.distance) == ("bottom right", 1)
    assert headline(summary).startswith("“class-3” looks like a shortcut: in photo after photo the model looks at the bottom right")
    assert summary.classes[0].agreement > 0.9
    assert all(one.agreement < 0.3 for one in summary.classes[1:])


def test_where_most_classes_are_shortcuts_all_of_them_are_found(tmp_path, random):
    corners = [(0, 0), (0, 5), (5, 0)]
    photos = [[found(i, spot(*corner))] for i, corner in enumerate(corners) for _ in range(12)]
    photos += [[found(9, wandering(random))] for _ in range(12)]
    summary = summary_of(write(tmp_path / "out", [photos]))
    assert {one.index for one in summary.suspects} == {0, 1, 2}
    assert headline(summary).startswith("3 classes look like shortcuts")
    for place in ("top left", "top right", "bottom left"):
        assert place in headline(summary)


def test_photos_that_are_all_centred_are_no_shortcut_of_a_class_but_are_told_of(tmp_path, random):
    photos = [[found(i % 4, spot(*(2.5 + random.normal(0, 0.3, 2))))] for i in range(80)]
    summary = summary_of(write(tmp_path / "out", [photos]))
    assert summary.agreement > 0.8
    assert not summary.suspects
    assert headline(summary).startswith("No class looks like a shortcut")
    (caution,) = cautions(summary)
    assert "agree whatever the class" in caution
    assert "the centre" in caution


@pytest.mark.parametrize(("count", "suspected"), [(9, False), (10, True)])
def test_few_photos_are_never_suspicious(tmp_path, random, count, suspected):
    photos = [[found(0, spot(0, 0))] for _ in range(count)] + [[found(1, wandering(random))] for _ in range(30)]
    summary = summary_of(write(tmp_path / "out", [photos]))
    assert [one.index for one in summary.suspects] == ([0] if suspected else [])


def test_one_class_alone_cannot_be_compared(tmp_path):
    summary = summary_of(write(tmp_path / "out", [[[found(4, spot(0, 0))] for _ in range(20)]]))
    assert (summary.classes[0].agreement, summary.classes[0].others) == (pytest.approx(1, abs=1e-5), None)
    assert not summary.suspects
    assert "cannot be compared" in headline(summary)
    assert "with others" in page(summary)


def test_without_ten_photos_of_any_class_nothing_is_said(tmp_path, random):
    summary = summary_of(write(tmp_path / "out", [[[found(i, wandering(random))] for i in range(9)]]))
    assert headline(summary).startswith("Whether the model takes shortcuts cannot be said")
    assert cautions(summary) == []


# --- figures --------------------------------------------------------------------------------------------------------------
def test_the_figures_are_those_of_numpy(tmp_path, random):
    shards, maps = [], {i: [] for i in range(4)}
    for _ in range(3):
        photos = []
        for i in range(30):
            target = int(random.integers(0, 4))
            heatmap = (random.random((5, 7)) - 0.2).astype(np.float16)
            if i % 10 == 0:
                photos.append([found(target, None, probability=0.25)])
                maps[target].append((None, 0.25))
            else:
                photos.append([found(target, heatmap, probability=0.5), found(5, heatmap[::-1], rank=1)])
                maps[target].append((np.maximum(heatmap.astype(np.float64), 0), 0.5))
        shards.append(photos)
    summary = summary_of(write(tmp_path / "out", shards))
    flat = {target: np.array([m.ravel() for m, _ in of if m is not None]) for target, of in maps.items()}
    for one in summary.classes:
        mine, rest = flat[one.index], np.concatenate([flat[i] for i in flat if i != one.index])
        pairs, n = np.corrcoef(mine, rest), len(mine)
        own = pairs[:n, :n][~np.eye(n, dtype=bool)]
        assert (one.photos, one.failed, one.maps) == (len(maps[one.index]), len(maps[one.index]) - n, n)
        assert one.probability == pytest.approx(np.mean([p for _, p in maps[one.index]]))
        assert one.agreement == pytest.approx(own.mean(), abs=1e-5)
        assert one.others == pytest.approx(pairs[:n, n:].mean(), abs=1e-5)
        np.testing.assert_allclose(one.heatmap, mine.mean(axis=0).reshape(5, 7), atol=1e-6)
    everything = np.corrcoef(np.concatenate(list(flat.values())))
    assert summary.agreement == pytest.approx(everything[~np.eye(len(everything), dtype=bool)].mean(), abs=1e-5)
    shortfalls = sorted(
        (row.sum() - 1) / (n - 1) - (pairs.sum() - n) / (n * (n - 1))
        for pairs, n in ((np.corrcoef(of), len(of)) for of in flat.values()) for row in pairs
    )  # fmt: skip
    assert [value for value, _ in summary.survey.strangest] == pytest.approx(shortfalls[:24], abs=1e-5)
    assert summary.survey.histogram[5] == 9
    assert summary.survey.histogram[10] == 81
    assert [one.index for one in summary.classes] == sorted(flat, key=lambda i: (-len(maps[i]), i))


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


def test_the_least_of_many_rows_are_the_least(random):
    values = random.permutation(1000) / 1000
    values[::100] = np.nan
    least = Least(7)
    for part in range(10):
        least.add(values[part * 100 : part * 100 + 100], part, np.arange(100))
    expected = np.argsort(np.where(np.isnan(values), np.inf, values))[:7]
    assert [place.part * 100 + place.row for _, place in least] == expected.tolist()


def test_the_least_probable_and_the_strangest_are_shown_first(tmp_path, random):
    photos = [(f"usual-{i}", "", [found(0, spot(1, 1) + 0.1 * random.random((SIDE, SIDE)))]) for i in range(30)]
    photos.insert(7, ("unsure", "", [found(0, spot(1, 1), probability=0.2)]))
    photos.insert(9, ("strange", "", [found(0, spot(5, 5))]))
    summary = summary_of(write(tmp_path / "out", [photos[:8], photos[8:]]))
    html = page(summary)
    assert re.search(r'<section id="unsure">.*?<b title="unsure">', html)
    assert '<b title="usual-' not in re.search(r'<section id="unsure">.*?<b title="unsure">', html)[0]
    assert '<b title="usual-' not in re.search(r'<section id="strange">.*?<b title="strange">', html)[0]


# --- what went wrong ------------------------------------------------------------------------------------------------------
def test_alike_messages_are_counted_together_and_some_photos_named(tmp_path, random):
    photos = [(f"p{i}", f"/a/p{i}.jpg", [unreadable(f"/a/p{i}.jpg: cut short ({i} bytes).")]) for i in range(30)]
    photos += [("q", "/a/q.jpg", [crashed("the worker died (SIGSEGV)")]), ("r", "/a/r.jpg", [found(0, None)])]
    summary = summary_of(write(tmp_path / "out", [photos]))
    assert summary.survey.outcomes.counts == {"unreadable": 30, "crashed": 1, "flat_map": 1}
    first, *others = summary.survey.outcomes.groups
    assert (first.message, first.count, first.named) == ("cut short (0 bytes).", 30, [f"p{i}" for i in range(20)])
    assert {group.outcome for group in others} == {"crashed", "flat_map"}
    html = page(summary)
    assert "and 10 more" in html
    assert "the worker died (SIGSEGV)" in html
    assert "32 of 32 rows have no heatmap" in html


def test_a_dataset_without_a_single_heatmap_has_a_page(tmp_path):
    output = write(tmp_path / "out", [[[unreadable("x: no")] for _ in range(3)]])
    result = report(output)
    assert result.exit_code == 0
    assert "None of the 3 photos has a heatmap." in result.stdout
    html = (tmp_path / "out" / "report.html").read_text()
    assert 'id="classes"' not in html
    assert 'id="outcomes"' in html


def test_a_dataset_in_which_nothing_is_done_has_a_page(tmp_path):
    output = write(tmp_path / "out", [], parts=4, state="running")
    result = report(output)
    assert result.exit_code == 0
    assert "No photo is explained yet." in result.stdout
    assert "0 of 4 shards are done" in result.stdout


def test_only_shards_that_the_manifest_notes_count(tmp_path, random):
    output = write(tmp_path / "out", [[[found(0, wandering(random))] for _ in range(5)]], parts=2, state="stopped")
    (tmp_path / "out" / "data" / "part-000001.parquet").write_bytes(b"half of a shard")
    summary = summary_of(output)
    assert summary.classes[0].photos == 5
    assert "1 of 2 shards are done" in cautions(summary)[0]
    assert "stopped" in cautions(summary)[0]


def test_invented_results_are_called_so(tmp_path, random):
    output = write(tmp_path / "out", [[[found(0, wandering(random))]]], simulate=True)
    assert "invented" in report(output).stdout
    assert "invented" in (tmp_path / "out" / "report.html").read_text()


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
    assert text in error_of(report(output))
    assert not (tmp_path / "out" / "report.html").exists()


def test_what_is_no_dataset_is_refused(tmp_path):
    assert "has no manifest.json" in error_of(report(tmp_path / "nowhere"))
    (tmp_path / "manifest.json").write_text('{"kind": "x"}')
    assert "damaged" in error_of(report(tmp_path))
    error_of(report(tmp_path / "manifest.json"))
    assert "nowhere" in error_of(report("nowhere://bucket/x"))


# --- pictures -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("resize", ["letterbox", 96, (96, 96)])
@pytest.mark.parametrize("shape", [(300, 500), (500, 300), (80, 80)])
def test_a_heatmap_lies_over_its_photo_as_the_network_saw_it(tmp_path, shape, resize):
    photo = np.full((*shape, 3), 128, np.uint8)
    preprocess = Preprocess(size=(96, 96), resize=resize)
    _, where = preprocess_photo(photo, preprocess)
    cv2.imwrite(str(tmp_path / "photo.png"), photo)
    centre = shape[0] / 2, shape[1] / 2  # of the photo, that is, of the window
    numbers = (*where.photo, *where.resized, where.top, where.left, *where.network)
    row = found(0, spot(2, 4, 7), where=numbers)
    values = {**row.values, "source": str(tmp_path / "photo.png"), "heatmap": row.heatmap.tolist()}
    drawn = picture(values)
    assert drawn.missing is None
    ratio = 192 / max(shape)
    assert drawn.pixels.shape == (round(shape[0] * ratio), round(shape[1] * ratio), 3)
    small = geometry_of(values, drawn.pixels.shape[:2])
    np.testing.assert_array_equal((drawn.pixels == 128).all(axis=2), ~small.seen())
    redness = drawn.pixels[..., 0].astype(int) - drawn.pixels[..., 2]
    found_at = np.argwhere(redness == redness.max()).mean(axis=0) / ratio
    scale = where.resized[0] / where.photo[0], where.resized[1] / where.photo[1]
    expected = [c + 96 / 7 * step / s for c, s, step in zip(centre, scale, (-1, 1), strict=True)]
    assert found_at == pytest.approx(expected, abs=0.06 * max(shape))


@pytest.mark.parametrize(("change", "text"), [
    ({"source": "nowhere.png"}, "there is no such file"),
    ({"source": None}, "names no path"),
    ({"source": "nowhere://bucket/a.png"}, "nowhere"),
    ({"photo_height": 41}, "size has changed"),
    ({"network_height": None}, "does not tell"),
    ({"network_height": 2**31 - 1}, "does not tell"),
    ({"resized_width": 0}, "does not tell"),
    ({"top": 10_000}, "does not tell"),
])  # fmt: skip
def test_where_the_photo_cannot_be_shown_the_heatmap_stands_alone(tmp_path, change, text):
    cv2.imwrite(str(tmp_path / "photo.png"), np.full((40, 60, 3), 90, np.uint8))
    row = found(0, spot(0, 0), where=(40, 60, 32, 32, 0, 0, 32, 32))
    values = {**row.values, "source": str(tmp_path / "photo.png"), "heatmap": row.heatmap.tolist()}
    assert picture(values).missing is None
    drawn = picture({**values, **change})
    assert text in drawn.missing
    assert drawn.pixels.shape == (192, 192, 3)


def test_photos_are_left_out_where_they_are_not_wanted(tmp_path):
    cv2.imwrite(str(tmp_path / "photo.png"), np.full((40, 60, 3), 90, np.uint8))
    row = found(0, spot(0, 0), where=(40, 60, 32, 32, 0, 0, 32, 32))
    output = write(tmp_path / "out", [[("a", str(tmp_path / "photo.png"), [row])]])
    assert report(output).exit_code == 0
    shown = (tmp_path / "out" / "report.html").read_text()
    assert "Heatmap over a" in shown
    assert report(output, "--no-photos").exit_code == 0
    hidden = (tmp_path / "out" / "report.html").read_text()
    assert "Heatmap, without the photo, of a" in hidden
    assert "could not be read" not in hidden


# --- the page -------------------------------------------------------------------------------------------------------------
def test_texts_of_the_dataset_are_never_markup(tmp_path, random):
    photos = [(f"{HOSTILE}{i}", HOSTILE, [found(0, wandering(random), label=HOSTILE)]) for i in range(12)]
    photos += [(HOSTILE, "", [unreadable(HOSTILE)]), (HOSTILE, "", [Row({"outcome": HOSTILE, "error": HOSTILE}, None)])]
    photos = [(name, source, rows) for name, source, rows in photos]
    output = write(tmp_path / "out", [photos], bundle={"name": HOSTILE}, method=HOSTILE, versus=HOSTILE)
    result = report(output)
    assert result.exit_code == 0
    assert "\x1b" not in result.output
    html = (tmp_path / "out" / "report.html").read_text()
    assert "<img src=x" not in html
    assert html.count("&lt;img src=x onerror=alert(1)&gt;") > 20
    assert "\x1b" not in html
    assert "\u202e" not in html


def test_the_page_needs_nothing_beside_it_and_runs_nothing(cornered):
    html = page(summary_of(cornered))
    assert "default-src &#x27;none&#x27;" in html
    assert "<script" not in html
    assert not re.search(r'(src|href)="(?!data:image/jpeg;base64,|#)', html)


def test_classes_beyond_two_hundred_are_counted(tmp_path, random):
    photos = [[found(i, wandering(random, 3))] for i in range(205)] + [[found(204, wandering(random, 3))]]
    html = page(summary_of(write(tmp_path / "out", [photos])))
    assert html.count('alt="Mean heatmap of class-') == 200
    assert "5 classes more" in html
    assert 'alt="Mean heatmap of class-204"' in html


def test_the_page_is_written_where_it_is_asked_for(cornered, tmp_path):
    result = report(cornered, "-o", tmp_path / "sub" / "page.html")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1] == f"→ {tmp_path}/sub/page.html"
    assert (tmp_path / "sub" / "page.html").read_text().startswith("<!doctype html>")
    assert not Path(cornered, "report.html").exists()


def test_a_page_that_cannot_be_written_is_an_error_that_names_a_way_out(cornered, tmp_path):
    (tmp_path / "file").touch()
    assert "--page FILE" in error_of(report(cornered, "-o", tmp_path / "file" / "page.html"))


def test_json_tells_the_figures(cornered):
    result = report(cornered, "--json")
    told = json.loads(result.stdout)
    assert (told["photos"], told["rows"], told["state"], told["classes"]) == (180, 180, "finished", 5)
    assert told["outcomes"] == {"ok": 180}
    assert told["page"] == f"{cornered}/report.html"
    (one,) = told["suspicious"]
    assert (one["class"], one["label"], one["photos"]) == (3, "class-3", 20)
    assert one["peak"] == {"where": "bottom right", "from_centre": 1.0}


def test_a_dataset_behind_a_url_has_its_page_beside_it(random):
    output = write("memory://report/out", [[[found(0, wandering(random))] for _ in range(3)]])
    result = report(output)
    assert result.exit_code == 0
    assert open_store(output).read("report.html").startswith(b"<!doctype html>")


def test_what_batch_wrote_is_reported_with_its_photos(tiny_bundle, photos, tmp_path):
    run(ask(tiny_bundle, [str(photos)], str(tmp_path / "out"), shard_size=5, top=2))
    result = report(tmp_path / "out")
    assert result.exit_code == 0
    html = (tmp_path / "out" / "report.html").read_text()
    assert "Heatmap over 00.png" in html
    assert "Heatmap, without the photo" not in html


def test_a_missing_extra_is_named():
    code = "import sys; sys.modules['pyarrow'] = None; from camrt.cli import camrt; camrt(['report', 'x'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert "pip install 'camrt[batch]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_shard_that_goes_while_it_is_read_is_an_error(cornered):
    dataset = open_dataset(cornered)
    known = survey(dataset)
    for shard in Path(cornered, "data").iterdir():
        shard.unlink()
    with pytest.raises(BatchError, match="missing or damaged"):
        summarise(dataset, known)


# --- in a browser ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("width", [375, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_never_scrolls_sideways_and_asks_for_nothing(browser, cornered, tmp_path, width, scheme):
    path = tmp_path / "report.html"
    path.write_text(page(summary_of(cornered)))
    opened = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    asked, complaints = [], []
    opened.on("request", lambda request: None if request.url.startswith("data:") else asked.append(request.url))
    opened.on("console", lambda message: complaints.append(message.text))
    opened.goto(path.as_uri())
    assert opened.evaluate(WIDTHS) == [width, width]
    ground, text = opened.evaluate("(({backgroundColor, color}) => [backgroundColor, color])(getComputedStyle(document.body))")
    assert (ground == "rgb(255, 255, 255)") == (scheme == "light")
    assert ground != text
    assert (asked, complaints) == ([path.as_uri()], [])
    opened.close()
