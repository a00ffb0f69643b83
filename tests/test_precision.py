"""What float16 changed, as bundle.json holds it: read key by key, and shown."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from camrt.bundle import open_bundle
from camrt.cli import camrt
from camrt.errors import BundleError
from camrt.manifest import MANIFEST
from camrt.precision import Difference, Precision
from camrt.table import Table

PRECISION = {
    "computes": "float16", "logits": 0.004, "allowed": 0.05, "images": 14, "same_top": 13,
    "heatmaps": {"cluster-cam": {"mean": 0.002, "correlation": 0.9995}},
}  # fmt: skip


@pytest.fixture
def bundle(tiny_bundle, tmp_path) -> Path:
    """A bundle that says how float16 changed it."""
    folder = Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
    edit(folder, precision=json.loads(json.dumps(PRECISION)))
    return folder


def edit(folder: Path, **values: object) -> None:
    found = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(found | values))


def info(folder: Path, *options: str) -> str:
    result = CliRunner().invoke(camrt, ["info", str(folder), *options])
    assert result.exit_code == 0, result.output
    return result.output


def test_it_survives_a_round_trip():
    found = Precision.from_json(Table(PRECISION, MANIFEST, BundleError))
    assert found == Precision("float16", 0.004, 0.05, 14, 13, {"cluster-cam": Difference(0.002, 0.9995)})
    assert found.to_json() == PRECISION


def test_a_bundle_with_it_opens_and_is_written_as_it_was_read(bundle):
    manifest = open_bundle(bundle).manifest
    assert manifest.to_json() == json.loads((bundle / MANIFEST).read_text())


@pytest.mark.parametrize("value", [None, "absent"])
def test_a_bundle_without_it_opens(value, bundle):
    values = json.loads((bundle / MANIFEST).read_text())
    values["precision"] = value
    if value == "absent":
        del values["precision"]
    (bundle / MANIFEST).write_text(json.dumps(values))
    assert open_bundle(bundle).manifest.precision is None


def test_info_tells_what_changed(bundle):
    text = info(bundle)
    assert "reproduces  its source in float16 " in text
    assert (
        "precision   float16; from float32: logits 0.004 of the largest, the same class first on 13 of 14 images; "
        "heatmaps by cluster-cam 0.002 (correlation 0.9995)"
    ) in text
    assert json.loads(info(bundle, "--json"))["precision"] == PRECISION


def test_info_of_a_bundle_as_its_source_does_not_speak_of_it(tiny_bundle):
    assert "precision" not in info(tiny_bundle)
    assert "float16" not in info(tiny_bundle)


@pytest.mark.parametrize(("change", "text"), [
    ({"computes": "float8"}, "'precision.computes' must be one of float16, got 'float8'"),
    ({"logits": "small"}, "'precision.logits' must be a number, got 'small'"),
    ({"logits": -0.1}, "'precision.logits' must be a number from 0 to 1, got -0.1"),
    ({"logits": float("nan")}, "'precision.logits' must be a finite number"),
    ({"logits": None}, "'precision.logits' must be a number, got None"),
    ({"allowed": 2}, "'precision.allowed' must be a number from 0 to 1, got 2"),
    ({"images": 0}, "'precision.images' must be a whole number of at least 1, got 0"),
    ({"images": True}, "'precision.images' must be a whole number, got True"),
    ({"same_top": 15}, "'precision.same_top' must be at most 14, the number of images, got 15"),
    ({"heatmaps": []}, "'precision.heatmaps' must be an object"),
    ({"heatmaps": {"cam": 1}}, "'precision.heatmaps.cam' must be an object, got 1"),
    ({"heatmaps": {"cam": {"mean": 0.1}}}, "'precision.heatmaps.cam.correlation' is missing"),
    ({"heatmaps": {"cam": {"mean": 0.1, "correlation": -1.5}}}, "correlation' must be a number from -1 to 1, got -1.5"),
    ({"heatmaps": {"cam": {"mean": 0.1, "correlation": 1, "rank": 1}}}, "unknown key 'precision.heatmaps.cam.rank'"),
    ({"heatmap": {}}, "unknown key 'precision.heatmap'. Did you mean 'heatmaps'"),
])  # fmt: skip
def test_a_wrong_value_is_named_with_what_it_must_be(change, text, bundle):
    edit(bundle, precision=PRECISION | change)
    with pytest.raises(BundleError, match=text):
        open_bundle(bundle)


@pytest.mark.parametrize("value", [[], "float16", 16])
def test_it_must_be_an_object(value, bundle):
    edit(bundle, precision=value)
    with pytest.raises(BundleError, match="'precision' must be an object"):
        open_bundle(bundle)
