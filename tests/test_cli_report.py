from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("pyarrow")

from camrt.cli import camrt
from camrt.scale.store import open_store

from .scale.report.datasets import found, spot, unreadable, wandering, write, write_cornered, write_hostile


@pytest.fixture
def random():
    return np.random.default_rng(0)


@pytest.fixture
def cornered(tmp_path, random) -> str:
    return write_cornered(tmp_path / "cornered", random)


def report(*arguments):
    return CliRunner().invoke(camrt, ["report", *map(str, arguments)])


def error_of(result) -> str:
    """Return the one line that the command ends with."""
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    return line


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


def test_invented_results_are_called_so(tmp_path, random):
    output = write(tmp_path / "out", [[[found(0, wandering(random))]]], simulate=True)
    assert "invented" in report(output).stdout
    assert "invented" in (tmp_path / "out" / "report.html").read_text()


def test_the_page_is_written_where_it_is_asked_for(cornered, tmp_path):
    result = report(cornered, "-o", tmp_path / "sub" / "page.html")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1] == f"→ {tmp_path}/sub/page.html"
    assert (tmp_path / "sub" / "page.html").read_text().startswith("<!doctype html>")
    assert not Path(cornered, "report.html").exists()


def test_a_page_that_cannot_be_written_is_an_error_that_names_a_way_out(cornered, tmp_path):
    (tmp_path / "file").touch()
    assert "--page FILE" in error_of(report(cornered, "-o", tmp_path / "file" / "page.html"))


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


def test_a_missing_extra_is_named():
    code = "import sys; sys.modules['pyarrow'] = None; from camrt.cli import camrt; camrt(['report', 'x'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert "pip install 'camrt[batch]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_damaged_shard_is_named_and_no_page_written(cornered):
    Path(cornered, "data", "part-000001.parquet").unlink()
    assert "part-000001.parquet is missing or damaged" in error_of(report(cornered))
    assert not Path(cornered, "report.html").exists()


def test_what_is_no_dataset_is_refused(tmp_path):
    assert "has no manifest.json" in error_of(report(tmp_path / "nowhere"))
    assert "nowhere" in error_of(report("nowhere://bucket/x"))


def test_texts_of_the_dataset_reach_no_terminal_as_they_are(tmp_path, random):
    result = report(write_hostile(tmp_path / "out", random))
    assert result.exit_code == 0
    assert "\x1b" not in result.output
