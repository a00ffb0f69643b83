from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

import exporters.page
from camrt import __version__
from camrt.bundle import open_bundle
from camrt.errors import ExportError, ParameterError
from camrt.methods import METHODS
from camrt.render import colors
from exporters import export, write_page
from exporters.page import ABOUT, FETCH, MODEL, PAGE, RUNTIME, SERVE
from tests import graphs

QUICK = {"method": "grad-cam"}


@pytest.fixture(scope="module")
def page(tiny_bundle, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("page") / "site"
    write_page(tiny_bundle, folder, clusters=3)
    return folder


def about(folder: Path) -> dict:
    return json.loads((folder / ABOUT).read_text(encoding="utf-8"))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# --- what is written --------------------------------------------------------------------------------------------------------
def test_the_folder_holds_the_page_the_model_and_what_is_to_be_known_of_it(page):
    assert contents(page).keys() == {MODEL, ABOUT, *PAGE}
    assert all(contents(page).values())
    shipped = Path(exporters.page.__file__).parent / "web"
    assert all((page / name).read_bytes() == (shipped / name).read_bytes() for name in PAGE)


def test_the_model_takes_pixels_and_needs_a_target(page):
    model = onnx.load(page / MODEL)
    onnx.checker.check_model(model)
    assert model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert "target" not in {tensor.name for tensor in model.graph.initializer}


def test_the_page_asks_for_files_that_are_there(page):
    text = (page / "index.html").read_text(encoding="utf-8") + (page / "explain.js").read_text(encoding="utf-8")
    assert all(name in text for name in ("explain.css", "explain.js", MODEL, ABOUT))
    assert "ort.wasm.bundle.min.mjs" in text


def test_the_runtime_is_fetched_in_one_version():
    assert FETCH.count(RUNTIME) == 3


def test_what_the_page_must_know(page, tiny_bundle):
    manifest = open_bundle(tiny_bundle).manifest
    found = about(page)
    assert found["name"] == manifest.name
    assert found["classes"] == 5
    assert found["labels"] == list(manifest.labels)
    assert found["size"] == [32, 32]
    assert found["preprocess"] == manifest.preprocess.to_json()
    assert found["preprocess"]["resize"] == "32x32"
    assert found["outcomes"] == ["ok", "flat_map", "no_positive_evidence", "not_finite"]
    assert found["method"] == "cluster-cam"
    assert found["citation"] == METHODS["cluster-cam"].citation
    assert found["version"] == __version__
    assert found["fetch"] == FETCH


def test_the_colours_are_those_of_rendered_heatmaps(page):
    table = np.array(about(page)["colormap"])
    assert table.shape == (256, 3)
    assert (table == colors(np.arange(256, dtype=np.float32)[None] / 255)[0]).all()
    assert 0 <= table.min() < table.max() <= 255


def test_labels_keep_their_letters(tmp_path):
    source = graphs.save(graphs.classifier(2), tmp_path / "model.onnx")
    export(source, tmp_path / "bundle", labels=["größe", "猫, </script>"], overrides={"scale": 1 / 255})
    write_page(tmp_path / "bundle", tmp_path / "site", **QUICK)
    assert about(tmp_path / "site")["labels"] == ["größe", "猫, </script>"]
    assert "größe".encode() in (tmp_path / "site" / ABOUT).read_bytes()


@pytest.mark.parametrize(("overrides", "padding"), [
    ({"scale": 1 / 255, "mean": [0.0, 0.2, 1.0]}, [0, 51, 255]),
    ({"scale": 1 / 255, "mean": [0.0, 0.2, 1.0], "color": "bgr"}, [255, 51, 0]),
    ({"scale": 1.0, "mean": [103.939, 116.779, 123.68], "color": "bgr"}, [124, 117, 104]),
    ({"scale": 1 / 127.5, "mean": [1.0, -1.0, 3.0]}, [128, 0, 255]),
])  # fmt: skip
def test_the_padding_is_the_mean_colour_in_rgb(tmp_path, overrides, padding):
    source = graphs.save(graphs.classifier(), tmp_path / "model.onnx")
    export(source, tmp_path / "bundle", overrides={"resize": "letterbox", **overrides})
    write_page(tmp_path / "bundle", tmp_path / "site", **QUICK)
    assert about(tmp_path / "site")["padding"] == padding
    assert about(tmp_path / "site")["preprocess"]["resize"] == "letterbox"


def test_the_padding_of_one_channel_is_gray(tmp_path):
    source = graphs.save(graphs.classifier(image=("N", 1, 32, 32)), tmp_path / "model.onnx")
    export(source, tmp_path / "bundle", overrides={"scale": 1 / 255, "mean": [0.6], "std": [1.0]})
    write_page(tmp_path / "bundle", tmp_path / "site", **QUICK)
    assert about(tmp_path / "site")["padding"] == [153, 153, 153]


# --- what is refused --------------------------------------------------------------------------------------------------------
def test_a_page_that_is_there_is_kept(tiny_bundle, tmp_path):
    write_page(tiny_bundle, tmp_path, **QUICK)
    before = contents(tmp_path)
    with pytest.raises(ExportError, match="index.html exists"):
        write_page(tiny_bundle, tmp_path, clusters=2)
    assert contents(tmp_path) == before


def test_force_replaces_the_page_and_leaves_what_else_is_there(tiny_bundle, tmp_path):
    write_page(tiny_bundle, tmp_path, **QUICK)
    (tmp_path / "ort.wasm.bundle.min.mjs").write_text("theirs")
    (tmp_path / "index.html").write_text("old")
    write_page(tiny_bundle, tmp_path, force=True, clusters=2)
    assert about(tmp_path)["method"] == "cluster-cam"
    assert (tmp_path / "index.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert (tmp_path / "ort.wasm.bundle.min.mjs").read_text() == "theirs"
    assert len(contents(tmp_path)) == 7


def test_a_file_is_no_folder_for_a_page(tiny_bundle, tmp_path):
    (tmp_path / "site").write_text("mine")
    with pytest.raises(ExportError, match="is a file, and the page needs a folder of its own. Choose another with --web"):
        write_page(tiny_bundle, tmp_path / "site", force=True)
    assert (tmp_path / "site").read_text() == "mine"


def test_the_page_opened_as_a_file_tells_how_to_serve_it():
    assert SERVE in (Path(exporters.page.__file__).parent / "web" / "index.html").read_text()


def test_a_bundle_is_no_folder_for_a_page(tiny_bundle):
    with pytest.raises(ExportError, match="is a bundle, and the page needs a folder of its own"):
        write_page(tiny_bundle, tiny_bundle, force=True)
    assert not (tiny_bundle / "index.html").exists()


@pytest.mark.parametrize("name", ["index.html", "explain.js", "about.json"])
def test_what_lies_in_the_folder_is_not_replaced_unasked(tiny_bundle, tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(ExportError, match=f"{name} exists"):
        write_page(tiny_bundle, tmp_path)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [(name, "mine")]


def test_a_page_that_cannot_be_compiled_leaves_nothing(tiny_bundle, tmp_path):
    with pytest.raises(ParameterError):
        write_page(tiny_bundle, tmp_path / "site", method="rise")
    assert not (tmp_path / "site").exists()


@pytest.mark.parametrize("name", [MODEL, ABOUT, "index.html"])
def test_a_folder_in_the_way_of_one_file_keeps_all_others_from_being_written(tiny_bundle, tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(ExportError, match="is a folder"):
        write_page(tiny_bundle, tmp_path, force=True, **QUICK)
    assert [path.name for path in tmp_path.iterdir()] == [name]
