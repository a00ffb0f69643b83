"""A compiled file in a C++ program that has ONNX Runtime and nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest

from exporters import compile_bundle

from .conftest import ROOT, SAMPLES

SOURCE = ROOT / "tests" / "onnx_host"
CLASSES = ["-1", "-2", "3"]


@pytest.fixture(scope="module")
def program(tmp_path_factory) -> Path:
    include = os.environ.get("ONNXRUNTIME_INCLUDE")
    if not include:
        pytest.skip("ONNXRUNTIME_INCLUDE does not name the folder of ONNX Runtime's C++ headers")
    for tool in ("cmake", "c++"):
        if not shutil.which(tool):
            pytest.skip(f"{tool} is not installed")
    build = tmp_path_factory.mktemp("onnx_host")
    for command in (["-S", SOURCE, "-B", build, f"-DONNXRUNTIME_INCLUDE={include}"], ["--build", build]):
        done = subprocess.run(["cmake", *command], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    return build / "explain"


@pytest.fixture(scope="module")
def library() -> Path:
    return next((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so*"))


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return compile_bundle("shapes", tmp_path_factory.mktemp("compiled") / "shapes.explain.onnx", pixels="uint8").path


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    photo = cv2.imread(str(SAMPLES / "star.png"), cv2.IMREAD_COLOR_RGB)
    return cv2.resize(photo, (96, 96), interpolation=cv2.INTER_AREA)


@pytest.fixture(scope="module")
def photo(tmp_path_factory, pixels) -> Path:
    path = tmp_path_factory.mktemp("photo") / "star.ppm"
    cv2.imwrite(str(path), pixels[..., ::-1])
    return path


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(a) for a in arguments], capture_output=True, text=True, timeout=120)


def test_the_program_is_shorter_than_150_lines():
    assert len((SOURCE / "explain.cpp").read_text().splitlines()) < 150


def test_four_threads_explain_as_python_does(program, library, model, photo, pixels, tmp_path):
    done = run(program, library, model, photo, tmp_path / "heatmap", 4, *CLASSES)
    assert done.returncode == 0, done.stderr
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    target = np.array([[int(c) for c in CLASSES]])
    names = ["targets", "probabilities", "outcomes", "heatmap"]
    targets, probabilities, outcomes, heatmaps = session.run(names, {"image": pixels[None], "target": target})
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert [int(row[0]) for row in rows] == targets[0].tolist()
    assert rows[0][1] == "star"
    assert [float(row[2]) for row in rows] == pytest.approx(probabilities[0], abs=1e-6)
    assert [int(row[3]) for row in rows] == outcomes[0].tolist()
    for index, heatmap in zip(targets[0], heatmaps[0], strict=True):
        written = np.fromfile(tmp_path / f"heatmap.{index}.f32", np.float32).reshape(heatmap.shape)
        np.testing.assert_allclose(written, heatmap, rtol=0, atol=1e-6)
        picture = cv2.imread(str(tmp_path / f"heatmap.{index}.pgm"), cv2.IMREAD_GRAYSCALE)
        np.testing.assert_allclose(picture, written * 255, atol=1)


def test_without_a_class_the_most_probable_one_is_explained(program, library, model, photo, tmp_path):
    done = run(program, library, model, photo, tmp_path / "heatmap")
    assert done.stdout.split("\t")[1] == "star"


def test_a_class_that_the_network_lacks_is_named_with_what_is_allowed(program, library, model, photo, tmp_path):
    done = run(program, library, model, photo, tmp_path / "heatmap", 1, 99)
    assert done.returncode == 1
    assert "target: a class index" in done.stderr
    assert "idx=99 must be within the inclusive range [-8,7]" in done.stderr


@pytest.mark.parametrize(
    ("position", "what", "told"),
    [(1, "nothing.so", "nothing.so"), (2, "nothing.onnx", "nothing.onnx"), (3, "nothing.ppm", "nothing.ppm cannot be opened")],
)
def test_what_is_missing_is_named(program, library, model, photo, tmp_path, position, what, told):
    arguments = [program, library, model, photo, tmp_path / "heatmap"]
    arguments[position] = what
    done = run(*arguments)
    assert done.returncode == 1
    assert told in done.stderr


def test_a_photo_of_another_size_is_told_the_size(program, library, model, tmp_path):
    cv2.imwrite(str(tmp_path / "large.ppm"), np.zeros((60, 90, 3), np.uint8))
    done = run(program, library, model, tmp_path / "large.ppm", tmp_path / "heatmap")
    assert done.returncode == 1
    assert "large.ppm must be resized to 96 x 96" in done.stderr


def test_a_file_for_preprocessed_images_is_told_how_to_be_compiled(program, library, photo, tmp_path):
    other = compile_bundle("shapes", tmp_path / "float.onnx", method="grad-cam").path
    done = run(program, library, other, photo, tmp_path / "heatmap")
    assert done.returncode == 1
    assert "--input uint8" in done.stderr
