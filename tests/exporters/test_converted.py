"""Files that Keras, tf2onnx and TFLite really write, exported and judged by what Keras and the TFLite interpreter answer.

`converted/make_fixtures.py` made them and says what is in each.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, ValueInfoProto

import camrt
from camrt.bundle import Bundle, open_bundle
from camrt.case import probabilities
from camrt.heatmap import Outcome
from camrt.image import preprocess_photo
from exporters import compile_bundle, export
from tests import graphs
from tests.exporters.helpers import split

FOLDER = Path(__file__).parent / "converted"
PIXELS, UNIT, SIGNED = (1.0, 0.0), (1 / 255, 0.0), (1 / 127.5, -1.0)  # gain and offset: the file's input from 0…255
OWN = ("images", "outputs", "features")  # what the makers' runtimes were given, and what they answered


@dataclass(frozen=True)
class Expected:
    """What a file must become.

    Attributes
    ----------
    layer : str
        How the name of the tensor that is cut begins.
    operator : str
    takes : (float, float)
        Gain and offset from pixels to what the file takes.
    mean, std : float
        Of the bundle's preprocessing, for pixels of 0…255: (pixel − mean) / std.
    options : dict
        Of the export.
    features, outputs : float
        How far they may be from the makers' answers: the features relative to the largest, the outputs in probability.
    """

    layer: str
    operator: str
    takes: tuple[float, float]
    mean: float
    std: float
    options: dict[str, Any]
    kind: str = "logits"
    features: float = 1e-6
    outputs: float = 1e-5


SCALED = {"overrides": {"scale": 1 / 255}}
SQUASHED = {"overrides": {"resize": "20x16"}}  # and whatever else the file says itself
KERAS = "StatefulPartitionedCall/sequential_1"
FILES = {
    "keras_residual": Expected("functional_1/last_map_1/Relu", "Relu", PIXELS, 127.5, 127.5, SQUASHED),
    "keras_flatten": Expected(f"{KERAS}/last_map_1/Relu", "Relu", UNIT, 0, 255, SCALED),
    "keras_flatten_nchw": Expected(f"{KERAS}/last_map_1/Relu", "Relu", UNIT, 0, 255, SCALED),
    "keras_binary": Expected(f"{KERAS}_1/last_map_1/Relu", "Relu", PIXELS, 0, 255, SQUASHED, kind="sigmoid"),
    # int8 against float32 Keras: six steps of 255; and eight of the interpreter's 255 steps of probability
    "tflite_int8": Expected(
        "functional_9_1/last_map_1/Relu", "DequantizeLinear", PIXELS, 0, 1, SQUASHED,
        features=6 / 255, outputs=8 / 255,
    ),
    "tflite_excite": Expected(
        "functional_12_1/last_map_1/mul", "HardSwish", SIGNED, 127.5, 127.5, {"overrides": {"scale": 1 / 127.5, "mean": [1.0] * 3}}
    ),
    "tflite_late": Expected(
        "functional_15_1/last_map_1/mul", "HardSwish", SIGNED, 127.5, 127.5, {"overrides": {"scale": 1 / 127.5, "mean": [1.0] * 3}}
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Converted:
    """A file, its bundle, and the makers' answers."""

    name: str
    folder: Path

    @property
    def expected(self) -> Expected:
        return FILES[self.name]

    @cached_property
    def source(self) -> ModelProto:
        return onnx.load(FOLDER / f"{self.name}.onnx")

    @cached_property
    def bundle(self) -> Bundle:
        return open_bundle(self.folder)

    @cached_property
    def answers(self) -> dict[str, np.ndarray]:
        """`images` as the file takes them, `outputs` in probability, `features`."""
        with np.load(FOLDER / f"{self.name}.npz") as found:
            answers = {key: found[key] for key in OWN}
        if answers["outputs"].dtype == np.uint8:
            answers["outputs"] = answers["outputs"] / np.float32(255)
        return answers

    @property
    def photos(self) -> list[np.ndarray]:
        """The images as photos of the network's size, (H, W, 3) uint8."""
        images = self.answers["images"].astype(np.float32)
        images = images if images.shape[-1] == 3 else images.transpose(0, 2, 3, 1)
        gain, offset = self.expected.takes
        return list(np.rint((images - offset) / gain).astype(np.uint8))

    @property
    def x(self) -> np.ndarray:
        """The photos, prepared as bundle.json says, (N, 3, H, W)."""
        return np.stack([preprocess_photo(photo, self.bundle.manifest.preprocess)[0] for photo in self.photos])


@pytest.fixture(scope="module", params=FILES)
def converted(request, tmp_path_factory) -> Converted:
    folder = tmp_path_factory.mktemp("converted") / request.param
    export(FOLDER / f"{request.param}.onnx", folder, **FILES[request.param].options)
    return Converted(request.param, folder)


def test_every_file_is_tried_and_has_its_answers():
    assert {path.stem for path in FOLDER.glob("*.onnx")} == {path.stem for path in FOLDER.glob("*.npz")} == FILES.keys()


def test_the_cut_is_at_the_last_map(converted):
    manifest = converted.bundle.manifest
    assert manifest.layer.name.startswith(converted.expected.layer)
    assert manifest.layer.operator == converted.expected.operator
    assert manifest.features.shape == (-1, *converted.answers["features"].shape[1:])
    assert (manifest.size, manifest.classes) == ((16, 20), converted.answers["outputs"].shape[1])
    assert manifest.kind == converted.expected.kind
    assert manifest.gradient_missing is None


def test_the_preprocessing_is_what_the_model_has_inside(converted):
    found = converted.bundle.manifest.preprocess
    mean, std = (np.array(value) / found.scale for value in (found.mean, found.std))
    assert mean == pytest.approx([converted.expected.mean] * 3, abs=1e-4)
    assert std == pytest.approx([converted.expected.std] * 3, rel=1e-6)
    assert found.color == "rgb"


def test_features_are_those_of_keras(converted):
    (found,) = graphs.run(converted.bundle.path("head"), {"image": converted.x})
    expected = converted.answers["features"]
    assert np.abs(found - expected).max() <= converted.expected.features * np.abs(expected).max()


def test_probabilities_are_the_makers(converted):
    found = probabilities(split(converted.bundle, converted.x), converted.bundle.manifest.kind)
    assert np.abs(found - converted.answers["outputs"]).max() <= converted.expected.outputs


def test_a_batch_of_three_equals_three_single_images(converted):
    x = converted.x
    alone = np.concatenate([split(converted.bundle, one[None]) for one in x])
    np.testing.assert_allclose(split(converted.bundle, x), alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("method", ["cluster-cam", "hires-cam", "recipro-cam"])
def test_photos_are_explained_with_the_makers_probabilities(converted, method):
    explainer = camrt.load(converted.folder, providers=["cpu"])
    found = explainer.explain(converted.photos, top=1, method=method)
    for explanation, outputs in zip(found, converted.answers["outputs"], strict=True):
        (target,) = explanation.targets
        assert isinstance(target.outcome, Outcome)
        assert target.probability == pytest.approx(outputs[target.index], abs=converted.expected.outputs)
        assert explanation.heatmap.shape == (1, 16, 20)
        assert explanation.heatmap.any() == (target.outcome is Outcome.OK)
    assert any(explanation.targets[0].outcome is Outcome.OK for explanation in found)


def test_a_wrong_answer_of_the_makers_would_be_noticed(converted):
    found = probabilities(split(converted.bundle, converted.x), converted.bundle.manifest.kind)
    other = np.roll(converted.answers["outputs"], 1, axis=0)
    assert np.abs(found - other).max() > 3 * converted.expected.outputs


# --- what is particular to one --------------------------------------------------------------------------------------------
def exported(name: str, tmp_path: Path) -> Converted:
    export(FOLDER / f"{name}.onnx", tmp_path / "bundle", **FILES[name].options)
    return Converted(name, tmp_path / "bundle")


def test_quantised_features_are_exactly_those_of_the_file(tmp_path):
    converted = exported("tflite_int8", tmp_path)
    tensor = converted.bundle.manifest.layer.name
    source = ModelProto()
    source.CopyFrom(converted.source)
    source.graph.output.append(ValueInfoProto(name=tensor))
    (image,) = source.graph.input
    expected = np.concatenate([graphs.run(source, {image.name: one[None]}, tensor)[0] for one in converted.answers["images"]])
    (found,) = graphs.run(converted.bundle.path("head"), {"image": converted.x})
    np.testing.assert_array_equal(found, expected)


def test_both_layouts_of_one_network_become_the_same(tmp_path):
    last, first = (exported(name, tmp_path / name) for name in ("keras_flatten", "keras_flatten_nchw"))
    np.testing.assert_array_equal(split(last.bundle, last.x), split(first.bundle, first.x))


@pytest.mark.parametrize(("name", "method"), [("keras_binary", "cluster-cam"), ("tflite_int8", "grad-cam")])
def test_a_model_of_uint8_pixels_compiles_to_one_that_takes_them(name, method, tmp_path):
    converted = exported(name, tmp_path)
    compile_bundle(converted.folder, tmp_path / "explain.onnx", pixels="uint8", method=method)
    photos = np.stack(converted.photos)
    np.testing.assert_array_equal(photos, converted.answers["images"])  # the source takes the same bytes
    names = ("probabilities", "heatmap", "outcomes")
    shown, heatmaps, outcomes = graphs.run(tmp_path / "explain.onnx", {"image": photos}, *names)
    expected = camrt.load(converted.folder, providers=["cpu"]).explain(converted.photos, top=1, method=method)
    assert shown[:, 0] == pytest.approx(converted.answers["outputs"].max(axis=1), abs=converted.expected.outputs)
    assert outcomes[:, 0].tolist() == [explanation.targets[0].outcome for explanation in expected]
    np.testing.assert_allclose(heatmaps[:, 0], [explanation.heatmap[0] for explanation in expected], rtol=0, atol=1e-4)
