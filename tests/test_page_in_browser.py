"""The page of `camrt compile --web` in a real browser, served by a static host."""

from __future__ import annotations

import base64
import functools
import http.server
import json
import shutil
import subprocess
import threading
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest

from camrt.image import geometry, preprocess_photo
from camrt.preprocess import Preprocess
from camrt.render import encode_png
from exporters.page import FETCH, write_page

from .conftest import SAMPLES

FOUND = """(() => ({
    size: [explanation.photo.height, explanation.photo.width],
    pixels: Array.from(explanation.pixels),
    targets: explanation.targets.map((t) => ({...t, heatmap: Array.from(t.heatmap)})),
}))()"""
DROP = """([data, name]) => {
    const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
    const transfer = new DataTransfer();
    transfer.items.add(new File([bytes], name, {type: "image/png"}));
    document.getElementById("drop").dispatchEvent(new DragEvent("drop", {dataTransfer: transfer, bubbles: true, cancelable: true}));
}"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The page of the built-in bundle, with ONNX Runtime fetched by the command that the page itself tells."""
    if not shutil.which("npm"):
        pytest.skip("npm, which fetches onnxruntime-web, is not installed")
    folder = tmp_path_factory.mktemp("page") / "web"
    write_page("shapes", folder)
    done = subprocess.run(FETCH, shell=True, cwd=folder, capture_output=True, text=True, timeout=300)
    if done.returncode != 0:
        pytest.skip(f"onnxruntime-web cannot be fetched: {done.stderr[-300:]}")
    return folder


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def open_page(browser):
    """Return what serves a folder and opens its page; nothing may be asked of another host."""
    servers, pages, foreign = [], [], []

    def open_page(folder: Path):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        page = browser.new_page()
        pages.append(page)
        home = f"http://127.0.0.1:{server.server_port}/"
        page.on("request", lambda r: None if r.url.startswith((home, "data:", "blob:")) else foreign.append(r.url))
        page.goto(home)
        return page

    yield open_page
    for page in pages:
        page.close()
    for server in servers:
        server.shutdown()
        server.server_close()
    assert foreign == []


@pytest.fixture
def page(open_page, folder):
    page = open_page(folder)
    page.wait_for_selector("#file:enabled", state="attached", timeout=60_000)
    return page


def shown(page) -> dict:
    page.wait_for_selector("#result:not([hidden]) button[aria-pressed=true]", timeout=60_000)
    return page.evaluate(FOUND)


def test_a_photo_is_explained_as_python_explains_it(page, folder):
    page.set_input_files("#file", SAMPLES / "heart.png")
    found = shown(page)
    session = onnxruntime.InferenceSession(str(folder / "model.explain.onnx"), providers=["CPUExecutionProvider"])
    pixels = np.array(found["pixels"], np.uint8).reshape(1, 96, 96, 3)
    targets, p, heatmaps = session.run(
        ["targets", "probabilities", "heatmap"], {"image": pixels, "target": np.array([[-1, -2, -3]])}
    )
    assert [t["index"] for t in found["targets"]] == targets[0].tolist()
    assert [t["probability"] for t in found["targets"]] == pytest.approx(p[0], abs=1e-5)
    theirs = np.array([t["heatmap"] for t in found["targets"]]).reshape(heatmaps[0].shape)
    np.testing.assert_allclose(theirs, heatmaps[0], rtol=0, atol=1e-4)
    assert found["targets"][0]["label"] == "heart"


def test_a_photo_is_resized_and_explained_as_camrt_does_it(page, shapes):
    page.set_input_files("#file", SAMPLES / "heart.png")
    target = shown(page)["targets"][0]
    ours = shapes.explain(SAMPLES / "heart.png")
    assert target["label"] == ours.targets[0].label
    assert target["probability"] == pytest.approx(ours.targets[0].probability, abs=2e-3)
    np.testing.assert_allclose(target["heatmap"], ours.network_heatmap[0].ravel(), rtol=0, atol=0.01)


@pytest.mark.parametrize("interpolation", ["area", "linear", "cubic"])
def test_every_interpolation_is_opencvs_to_one_grey_level(open_page, folder, tmp_path, interpolation):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    about = json.loads((copy / "about.json").read_text())
    about["preprocess"] |= {"interpolation": interpolation, "resize": 107}
    (copy / "about.json").write_text(json.dumps(about))
    page = open_page(copy)
    page.wait_for_selector("#file:enabled", state="attached", timeout=60_000)
    rng = np.random.default_rng(0)
    for height, width in ((160, 201), (50, 70)):  # shrinks, grows
        photo = cv2.resize(rng.integers(0, 256, (9, 9, 3), np.uint8), (width, height))
        (tmp_path / "photo.png").write_bytes(encode_png(photo))
        page.set_input_files("#file", tmp_path / "photo.png")
        page.wait_for_selector(f"#picture[data-size='{width}x{height}']", timeout=60_000)
        plain = Preprocess((96, 96), 107, interpolation=interpolation, scale=1.0)
        ours = preprocess_photo(photo, plain)[0].transpose(1, 2, 0)
        theirs = np.array(page.evaluate("Array.from(explanation.pixels)")).reshape(96, 96, 3)
        assert np.abs(theirs - ours).max() <= 1


@pytest.mark.parametrize("resize", ["letterbox", 107, [101, 111], [96, 96]])
def test_the_page_looks_at_the_part_of_a_photo_that_camrt_looks_at(open_page, folder, tmp_path, resize):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    about = json.loads((copy / "about.json").read_text())
    about["preprocess"]["resize"] = resize
    (copy / "about.json").write_text(json.dumps(about))
    page = open_page(copy)
    page.wait_for_selector("#file:enabled", state="attached", timeout=60_000)
    preprocess = Preprocess((96, 96), tuple(resize) if isinstance(resize, list) else resize)
    for height, width in ((60, 97), (333, 500), (501, 333), (96, 96)):
        (tmp_path / "photo.png").write_bytes(encode_png(np.full((height, width, 3), 128, np.uint8)))
        page.set_input_files("#file", tmp_path / "photo.png")
        page.wait_for_selector(f"#picture[data-size='{width}x{height}']", timeout=60_000)
        where, ours = page.evaluate("explanation.where"), geometry((height, width), preprocess)
        assert (tuple(where["resized"]), where["top"], where["left"]) == (ours.resized, ours.top, ours.left)


def test_a_dropped_photo_is_taken(page):
    data = base64.b64encode((SAMPLES / "star.png").read_bytes()).decode()
    page.evaluate(DROP, [data, "star.png"])
    assert shown(page)["targets"][0]["label"] == "star"


def test_the_classes_can_be_chosen_and_the_picture_changes(page):
    page.set_input_files("#file", SAMPLES / "heart.png")
    shown(page)
    first = page.locator("#picture").screenshot()
    page.locator("#classes button").nth(2).click()
    assert page.locator("#classes button").nth(2).get_attribute("aria-pressed") == "true"
    assert page.locator("#picture").screenshot() != first


def test_what_is_no_image_is_refused_by_name(page, tmp_path):
    (tmp_path / "notes.png").write_text("no image")
    page.set_input_files("#file", tmp_path / "notes.png")
    page.wait_for_selector("#status.error")
    assert "notes.png is no image" in page.inner_text("#status")


def test_a_label_is_text_and_never_markup(open_page, folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    about = json.loads((copy / "about.json").read_text())
    about["labels"] = ["<img src=x onerror=document.title='bad'>"] * about["classes"]
    (copy / "about.json").write_text(json.dumps(about))
    page = open_page(copy)
    page.wait_for_selector("#file:enabled", state="attached", timeout=60_000)
    page.set_input_files("#file", SAMPLES / "heart.png")
    shown(page)
    assert page.locator("#classes img").count() == 0
    assert page.inner_text("#classes button >> nth=0").startswith("<img src=x")


def test_a_page_without_the_runtime_says_how_to_fetch_it(open_page, folder, tmp_path):
    copy = tmp_path / "bare"
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("ort*"))
    page = open_page(copy)
    page.wait_for_selector("#status.error")
    assert "npm pack --silent onnxruntime-web" in page.inner_text("#status")


def test_a_page_opened_as_a_file_says_that_it_needs_a_web_server(browser, folder):
    page = browser.new_page()
    page.goto((folder / "index.html").as_uri())
    assert "python3 -m http.server" in page.inner_text("#status")
    page.close()


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("about.json", "about.json is missing in this folder"),
        ("model.explain.onnx", "model.explain.onnx is missing in this folder"),
        ("ort-wasm-simd-threaded.wasm", "npm pack"),
    ],
)
def test_a_file_that_is_missing_is_named(open_page, folder, tmp_path, name, told):
    copy = tmp_path / "part"
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns(name))
    page = open_page(copy)
    page.wait_for_selector("#status.error")
    assert told in page.inner_text("#status")


def test_a_model_that_is_cut_short_is_named(open_page, folder, tmp_path):
    copy = tmp_path / "short"
    shutil.copytree(folder, copy)
    (copy / "model.explain.onnx").write_bytes((folder / "model.explain.onnx").read_bytes()[:1000])
    page = open_page(copy)
    page.wait_for_selector("#status.error", timeout=60_000)
    assert "model.explain.onnx cannot be opened" in page.inner_text("#status")
