"""A bundle's sessions: when they open, what is refused, what their failures become."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import Mock

import numpy as np
import onnx
import pytest

import camrt
import exporters
from camrt import sessions
from camrt.errors import BundleError, DeviceMemoryError
from camrt.files import sha256_of
from camrt.manifest import MANIFEST
from tests import graphs

LATE = {"tail": "recipro-cam", "gradient": "hires-cam"}  # the graphs that open on first use, and methods that use them


@pytest.fixture
def opened(monkeypatch) -> list[str]:
    """The graphs that were opened, in order."""
    names: list[str] = []
    real = sessions.open_graph
    monkeypatch.setattr(sessions, "open_graph", lambda b, name, *rest, **how: names.append(name) or real(b, name, *rest, **how))
    return names


@pytest.mark.parametrize("graph", LATE)
def test_a_session_is_opened_on_first_use_and_once_for_all_threads(tiny_bundle, pixels, opened, graph):
    explainer = camrt.load(tiny_bundle, ["cpu"])
    assert opened == ["score"]
    explainer.explain(pixels, masking="image")
    assert opened == ["score"]  # as published, Cluster-CAM needs no more: the weights are in memory once
    engine = explainer.engine
    features, cotangents = np.ones((2, 12, 8, 8), np.float32), np.ones((2, 2, 5), np.float32)
    use = {"tail": lambda: engine.logits(features), "gradient": lambda: engine.gradients(features, cotangents).values}[graph]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: use(), range(16)))
    assert opened[1:] == [graph]
    assert all(np.array_equal(found[0], other) for other in found)


def test_all_sessions_can_be_opened_before_they_are_used(tiny_bundle, opened):
    camrt.load(tiny_bundle, ["cpu"]).engine.sessions.open_all()
    assert sorted(opened) == ["gradient", "score", "tail"]


# --- what was replaced or does not fit -----------------------------------------------------------------------------------
@pytest.mark.parametrize("method", LATE.values())
def test_a_bundle_replaced_since_it_was_loaded_is_noticed(tiny_bundle, tmp_path, pixels, method):
    folder = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    explainer = camrt.load(folder)
    values = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(values | {"name": "another"}))
    with pytest.raises(BundleError, match="was replaced since it was loaded. Load it again"):
        explainer.explain(pixels, method=method)


@pytest.mark.parametrize(("graph", "method"), LATE.items())
def test_a_graph_replaced_since_it_was_loaded_is_refused(tiny_bundle, tmp_path, pixels, graph, method):
    folder = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    explainer = camrt.load(folder)
    other = onnx.load(folder / f"{graph}.onnx", load_external_data=False)
    other.producer_version = "of somebody else"
    onnx.save(other, folder / f"{graph}.onnx")
    with pytest.raises(BundleError, match=rf"{graph}\.onnx is not the file that bundle\.json describes"):
        explainer.explain(pixels, method=method)


def test_weights_replaced_since_they_were_loaded_are_refused(tiny_bundle, tmp_path, pixels):
    folder = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    explainer = camrt.load(folder)
    weights = bytearray((folder / "weights.bin").read_bytes())
    weights[-1] ^= 1
    (folder / "weights.bin").write_bytes(weights)
    with pytest.raises(BundleError, match=r"weights\.bin is not the file"):
        explainer.explain(pixels, method="hires-cam")


def swap(tiny_bundle, folder, graph: str) -> None:
    """Put the head in a graph's place, and its hash into bundle.json."""
    shutil.copytree(tiny_bundle, folder)
    shutil.copy(tiny_bundle / "head.onnx", folder / f"{graph}.onnx")
    values = json.loads((folder / MANIFEST).read_text())
    values["files"][f"{graph}.onnx"] = sha256_of(folder / f"{graph}.onnx")
    (folder / MANIFEST).write_text(json.dumps(values))


def test_graphs_that_do_not_fit_bundle_json_are_refused_though_their_hashes_do(tiny_bundle, tmp_path):
    swap(tiny_bundle, tmp_path / "swapped", "score")
    with pytest.raises(
        BundleError, match=r"score\.onnx has the inputs \[image \(N, 3, 32, 32\)\]; .*camrt runs it with \[.*up_rows"
    ):
        camrt.load(tmp_path / "swapped")


@pytest.mark.parametrize(("graph", "method"), LATE.items())
def test_graphs_opened_late_that_do_not_fit_bundle_json_are_refused_too(tiny_bundle, tmp_path, pixels, graph, method):
    swap(tiny_bundle, tmp_path / "swapped", graph)
    explainer = camrt.load(tmp_path / "swapped")
    with pytest.raises(
        BundleError, match=rf"{graph}\.onnx has the inputs \[image \(N, 3, 32, 32\)\]; .*camrt runs it with \[features"
    ):
        explainer.explain(pixels, method=method)


# --- memory ---------------------------------------------------------------------------------------------------------------
def test_an_image_that_does_not_fit_is_an_error_with_advice(tiny_bundle, monkeypatch):
    full = Mock(**{"run_with_iobinding.side_effect": RuntimeError("Failed to allocate memory for requested buffer of size 1")})
    engine = camrt.load(tiny_bundle, ["cpu"]).engine
    monkeypatch.setattr(engine.sessions, "open", lambda graph: full)
    with pytest.raises(DeviceMemoryError, match=r"cpu has no memory left: .* Explain fewer images at once, or free"):
        engine.whole(engine.black(1))


def test_the_gradients_linear_layers_stay_in_the_file(tmp_path):
    body = """
        c = Conv <kernel_shape = [1, 1]> (x, w)  r = Relu (c)  f = Flatten (r)
        h = Gemm <transB = 1> (f, big)  k = Relu (h)  scores = MatMul (k, fc)
        """
    built = graphs.parse(body, image="N,3,16,16", w=(8, 3, 1, 1), big=(2000, 2048), fc=(2000, 5))
    bundle = tmp_path / "bundle"
    exporters.export(graphs.save(built, tmp_path / "wide.onnx"), bundle, overrides={"scale": 1 / 255})
    program = (
        "import sys, camrt, numpy as np\n"
        "anonymous = lambda: next(int(line.split()[1]) for line in open('/proc/self/status') if line.startswith('RssAnon'))\n"
        f"explainer = camrt.load({str(bundle)!r}, ['cpu'], cache=False)\n"
        "photo = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)\n"
        "explainer.explain(photo, method='eigen-cam')\n"
        "before = anonymous()\n"
        "explainer.explain(photo, method='grad-cam')\n"
        "print(anonymous() - before)"
    )
    weights = 2048 * 2000 * 4 / 1024  # kB
    assert int(subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout) < weights / 4
