"""Real pretrained models and photos: exported, and explained as the source answers."""

from __future__ import annotations

import csv
import json

import numpy as np
import onnxruntime as ort
import pytest

import camrt
from camrt.errors import ExportError
from camrt.image import preprocess_photo
from camrt.preprocess import from_description, squash
from exporters import compile_bundle, export, layers

pytestmark = pytest.mark.real

MODELS = {"mobilenet_v2_tv": 0.70, "squeezenet11_gluon": 0.60, "googlenet_caffe": 0.70, "mobilenet_v2_int8_qdq": 0.40}


@pytest.fixture(scope="module", params=MODELS)
def exported(request, real, tmp_path_factory):
    """A real model's name, its explainer, and its source session."""
    name = request.param
    source = real / "models" / f"{name}.onnx"
    described = real / "models" / f"{name}.json"
    how = {"preprocess": described} if described.exists() else {"preset": "imagenet"}
    folder = tmp_path_factory.mktemp("real") / name
    export(source, folder, labels=real / "imagenet_classes.txt", **how)
    session = ort.InferenceSession(str(source), providers=["CPUExecutionProvider"])
    return name, camrt.load(folder, providers=["cpu"]), session


def rows(real, file: str) -> list[dict[str, str]]:
    with (real / "photos" / file).open() as lines:
        return list(csv.DictReader(lines))


def test_top1_through_the_bundle_is_the_sources_on_every_photo(exported, real):
    name, explainer, session = exported
    image = session.get_inputs()[0].name
    labelled = rows(real, "labels.csv")
    right = 0
    for row in labelled:
        photo = camrt.load_photo(real / "photos" / row["file"])
        x, _ = preprocess_photo(photo.pixels, explainer.manifest.preprocess)
        expected = int(session.run(None, {image: x[None]})[0].argmax())
        explanation = explainer.explain(photo, clusters=1)
        assert explanation.targets[0].index == expected, row["file"]
        right += expected == int(row["class_index"])
    assert len(labelled) == 120
    assert right / len(labelled) >= MODELS[name]  # a wrong colour order or mean costs more than this leaves


@pytest.mark.parametrize("method", ["cluster-cam", "hires-cam"])
def test_explanations_point_into_the_objects_box(exported, real, method):
    name, explainer, _ = exported
    boxes: dict[str, list[list[float]]] = {}
    for row in rows(real, "boxes.csv"):
        boxes.setdefault(row["file"], []).append([float(row[k]) for k in ("x0", "y0", "x1", "y1")])
    hits = []
    for file in sorted(boxes)[:24]:
        target = next(int(r["class_index"]) for r in rows(real, "labels.csv") if r["file"] == file)
        explanation = explainer.explain(real / "photos" / file, method=method)
        if explanation.targets[0].index == target:
            row, column = np.unravel_index(explanation.heatmap[0].argmax(), explanation.heatmap.shape[1:])
            hits.append(any(x0 - 15 <= column <= x1 + 15 and y0 - 15 <= row <= y1 + 15 for x0, y0, x1, y1 in boxes[file]))
    assert len(hits) >= 8
    assert np.mean(hits) >= 0.75


def test_gradients_are_proved_but_for_the_staircase_of_int8(exported):
    name, explainer, _ = exported
    assert explainer.manifest.gradient_missing is None
    if name == "mobilenet_v2_int8_qdq":
        assert explainer.manifest.gradient_error is None
    else:
        assert explainer.manifest.gradient_error < 1e-3


def test_every_photo_is_explained_or_typed(exported, real):
    _, explainer, _ = exported
    for path in sorted((real / "photos" / "coco").glob("*.jpg"))[:4] + sorted((real / "photos" / "cam_demo").glob("*"))[:4]:
        explanation = explainer.explain(path, top=3, clusters=4)
        assert np.isfinite(explanation.heatmap).all()
        for target, heatmap in zip(explanation.targets, explanation.heatmap, strict=True):
            assert heatmap.any() == (target.outcome is camrt.Outcome.OK)


def test_the_automatic_cut_is_the_last_map_before_classifier_and_pooling(real):
    choices = {name: layers(real / "models" / f"{name}.onnx")[0].tensor for name in MODELS}
    assert choices == {
        "mobilenet_v2_tv": "hardtanh_34",
        "squeezenet11_gluon": "/features/features.12/Concat_output_0",
        "googlenet_caffe": "inception_5b/output",
        "mobilenet_v2_int8_qdq": "hardtanh_34_DequantizeLinear_Output",
    }


def test_the_int8_model_is_reproduced_within_one_output_step(exported):
    name, explainer, _ = exported
    split = explainer.manifest.split
    if name == "mobilenet_v2_int8_qdq":
        assert split.bound.startswith("one output step of the quantised model")
    assert split.error <= split.tolerance * max(1.0, split.largest_logit)


def test_the_description_of_a_model_collection_is_read(real):
    described = json.loads((real / "models" / "googlenet_caffe.json").read_text())["preprocess"]
    preprocess = from_description(squash((224, 224)), described, "googlenet_caffe.json", ExportError)
    assert described["channels"] == "BGR"
    assert (preprocess.color, preprocess.mean, preprocess.resize) == ("bgr", (104.0, 117.0, 123.0), 256)


@pytest.mark.parametrize("method", ["cluster-cam", "hires-cam"])
def test_a_compiled_file_gives_the_heatmaps_of_real_photos(exported, real, tmp_path, method):
    name, explainer, _ = exported
    photos = [real / "photos" / row["file"] for row in rows(real, "labels.csv")[:6]]
    found = compile_bundle(explainer.engine.bundle.folder, tmp_path / "x.onnx", method=method, pixels="uint8", photos=photos)
    agreement = found.built.agreement
    assert agreement.images == 14
    assert agreement.logits == 0
    assert agreement.clusters in (None, 14)
    assert agreement.on_rounding == 0
    assert agreement.heatmap <= (0.05 if "int8" in name else 5e-5)
    assert found.size <= 1.01 * found.built.network_size + 64_000
