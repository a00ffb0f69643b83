"""What float16 changes is measured, and refused where it is too much."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from camrt.errors import ExportError
from camrt.kmeans import kmeans
from camrt.precision import Difference, Precision
from camrt.preprocess import Preprocess
from exporters import export, fidelity
from exporters.fidelity import measure, open_network, patterns, why_no_gradient
from tests import graphs

Change = Callable[[np.ndarray], np.ndarray]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A bundle of a tiny network with four classes."""
    folder = tmp_path_factory.mktemp("fidelity")
    export(graphs.save(graphs.residual(), folder / "model.onnx"), folder / "bundle", overrides={"scale": 1 / 255})
    return folder / "bundle"


class Changed:
    """A session of which one output is changed."""

    def __init__(self, session: object, change: Change):
        self.session, self.change = session, change

    def run(self, names, feeds):
        return [self.change(np.asarray(found)) for found in self.session.run(names, feeds)]


def measured(folder: Path, **changes: Change) -> Precision:
    """Return the difference between a network and itself with changed outputs."""
    exact = open_network(folder)
    other = exact | {name: Changed(exact[name], change) for name, change in changes.items()}
    images = {"pattern": np.random.default_rng(0).uniform(0, 1, (3, 3, 32, 32)).astype(np.float32)}
    images["black"] = np.zeros((1, 3, 32, 32), np.float32)
    return measure(exact, other, images, "pattern", "logits")


def test_a_network_is_itself(folder):
    found = measured(folder)
    assert (found.logits, found.images, found.same_top) == (0, 4, 4)
    assert set(found.heatmaps) == {"cluster-cam", "cluster-cam clustered anew", "hires-cam"}
    assert set(found.heatmaps.values()) == {Difference(0, 1)}


def test_the_largest_change_of_a_logit_counts(folder):
    def answers(*rows: list[float]) -> Changed:
        left = itertools.cycle(rows)
        return Changed(exact["tail"], lambda z: np.float32([next(left)]))

    exact = open_network(folder)
    images = {"pattern": np.ones((2, 3, 32, 32), np.float32)}
    pair = [{**exact, "tail": answers(*rows)} for rows in ([[1, 0, 0, 0], [8, -10, 0, 0]], [[1.2, 0, 0, 0], [8.3, -10, 0, 0]])]
    assert measure(*pair, images, "pattern", "logits").logits == pytest.approx(0.03)


def test_another_class_first_is_counted(folder):
    exact = open_network(folder)
    close, other = (
        exact | {"tail": Changed(exact["tail"], lambda z, best=best: np.float32([[0, 0.5, 0.5, 0]]) + best)}
        for best in (np.float32([[0, 0.01, 0, 0]]), np.float32([[0, 0, 0.01, 0]]))
    )
    images = {"pattern": np.ones((2, 3, 32, 32), np.float32)}
    assert [measure(close, network, images, "pattern", "logits").same_top for network in (close, other)] == [2, 0]


@pytest.mark.parametrize("change", [lambda z: z * 1.06, lambda z: z + np.nan, lambda z: z * np.inf], ids=["far", "nan", "inf"])
def test_logits_too_far_are_refused(change, folder):
    with pytest.raises(
        ExportError, match=r"Float16 changes the logits by .* of the largest on '\w+' images; allowed is 0.05. Export"
    ):
        measured(folder, tail=lambda z: change(z + 10))


def test_heatmaps_that_rest_on_rounding_alone_are_not_compared(folder):
    exact = open_network(folder)
    same = exact | {"score": Changed(exact["score"], lambda z: z * 1e-4), "tail": Changed(exact["tail"], lambda z: z * 1e-4)}
    images = {"pattern": np.random.default_rng(0).uniform(0, 1, (3, 3, 32, 32)).astype(np.float32)}
    assert set(measure(same, same, images, "pattern", "logits").heatmaps) == {"hires-cam"}


def test_heatmaps_too_far_are_refused(folder):
    with pytest.raises(ExportError, match=r"cluster-cam's heatmaps by .* correlation of .*--precision fp32"):
        measured(folder, score=lambda z: -9 * z)


def test_clusters_that_fall_otherwise_are_told_of_and_allowed(folder, monkeypatch):
    counts = itertools.cycle([10, 2])  # clusters of the float32 network, and of the other
    monkeypatch.setattr(fidelity, "kmeans", lambda points, _: kmeans(points, next(counts)))
    found = measured(folder).heatmaps
    assert found["cluster-cam"] == Difference(0, 1)
    assert found["cluster-cam clustered anew"].mean > 0


def test_gradients_too_far_are_told_of_and_left_out(folder):
    found = measured(folder, gradient=lambda g: g[:, ::-1])
    assert why_no_gradient(found).startswith("float16 changes hires-cam's heatmaps by ")
    assert why_no_gradient(measured(folder)) is None


def test_an_empty_heatmap_is_no_likeness(folder):
    assert measured(folder, gradient=lambda g: g * 0).heatmaps["hires-cam"].correlation == 0


def test_a_network_without_gradients_is_compared_without(folder):
    exact = {name: session for name, session in open_network(folder).items() if name != "gradient"}
    found = measure(exact, exact, {"pattern": np.ones((1, 3, 32, 32), np.float32)}, "pattern", "logits")
    assert "hires-cam" not in found.heatmaps


def test_patterns_are_pixels_as_the_network_takes_them_and_smooth():
    preprocess = Preprocess(size=(48, 64), resize=(64, 48), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    found = patterns(preprocess)
    pixels = (found * 0.25 + 0.5) * 255
    assert found.shape == (8, 3, 48, 64)
    assert pixels.min() > -1e-3
    assert pixels.max() < 255.001
    assert pixels.std() > 30
    assert np.abs(np.diff(pixels, axis=3)).mean() < 0.25 * pixels.std()
    np.testing.assert_array_equal(found, patterns(preprocess))


def test_an_export_that_float16_changes_too_much_is_refused(tmp_path, monkeypatch):
    half = importlib.import_module("exporters.half")
    real = half.to_float16

    def broken(*given):
        model = real(*given)
        for tensor in model.graph.initializer:
            if tensor.name == "w2":
                tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float16(1.3), tensor.name))
        onnx.checker.check_model(model)
        return model

    monkeypatch.setattr(half, "to_float16", broken)
    source = graphs.save(graphs.classifier(), tmp_path / "model.onnx")
    with pytest.raises(ExportError, match="Float16 changes the logits by"):
        export(source, tmp_path / "bundle", overrides={"scale": 1 / 255}, precision="fp16")
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_a_gradient_that_float16_spoils_is_left_out_with_the_reason(cut, monkeypatch):
    monkeypatch.setattr(fidelity, "CORRELATION_ALLOWED", 1.0)
    monkeypatch.setattr(fidelity, "_check", lambda *given: None)
    manifest = cut(graphs.classifier(), precision="fp16").manifest
    assert manifest.gradient_missing.startswith("float16 changes hires-cam's heatmaps")
    assert all("gradient" not in weight.graphs for weight in manifest.weights)
