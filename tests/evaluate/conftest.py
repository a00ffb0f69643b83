"""A small evaluation that several files look at."""

from __future__ import annotations

import csv
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from camrt.evaluate import GROUPS, Asked, Evaluation, describe, find_photos, read_variants, summarise
from camrt.metrics import PROTOCOLS

from ..conftest import SAMPLES

HOSTILE = "a<img src=x onerror=alert(1)>\x1b[2J\u202e.png"
GONE = "gone.png"
METHODS = ["cluster-cam:clusters=4", "grad-cam", "eigen-cam", "cam"]


def evaluation_of(explainer, photos, methods=METHODS, groups=("faithfulness",), *, controls=True, target="top", **files):
    """Return an evaluation with curves of five points; `files` are those of `describe`."""
    asked = Asked(replace(PROTOCOLS["rise"], points=5), groups)
    subjects = describe(find_photos([photos]), explainer.manifest, **files)
    return Evaluation(explainer, subjects, read_variants(methods, controls=controls), asked, target)


@pytest.fixture(scope="session", autouse=True)
def few_photos_decide():
    """Let two photos decide a difference, as these tests have no more."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("camrt.evaluate.summary.FEWEST", 2)
        yield


@pytest.fixture
def folder(tmp_path):
    """Three photos: a.png, sub/b.jpg and sub/c.png, 20 x 10 pixels, and a text."""
    (tmp_path / "photos" / "sub").mkdir(parents=True)
    for name in ("a.png", "sub/b.jpg", "sub/c.png"):
        cv2.imwrite(str(tmp_path / "photos" / name), np.full((10, 20, 3), 90, np.uint8))
    (tmp_path / "photos" / "notes.txt").write_text("no photo")
    return tmp_path


@pytest.fixture(scope="session")
def scenes(tmp_path_factory) -> Path:
    """Four scenes, one with a name that is markup, and a file that is no photo; labels.csv and masks lie beside them."""
    folder = tmp_path_factory.mktemp("scenes")
    (folder / "photos").mkdir()
    (folder / "masks").mkdir()
    names = [HOSTILE, "b.png", "c.png", GONE]
    for source, name in zip(sorted(SAMPLES.glob("*.png")), names, strict=False):
        shutil.copy(source, folder / "photos" / name)
        mask = np.zeros(cv2.imread(str(source)).shape[:2], np.uint8)
        mask[: len(mask) // 2] = 255
        (folder / "masks" / name).write_bytes(cv2.imencode(".png", mask)[1].tobytes())
    (folder / "photos" / "none.png").write_bytes(b"<script>no photo</script>")
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file", "class_index"), *((name, 0) for name in names)])
    return folder


@pytest.fixture(scope="session")
def summary(shapes, scenes, tmp_path_factory):
    """Every figure but one, which takes long, of three methods and the controls, and of one that cannot run; a photo has vanished since."""
    photos = shutil.copytree(scenes / "photos", tmp_path_factory.mktemp("summary") / "photos")
    evaluation = evaluation_of(
        shapes, photos, groups=[g for g in GROUPS if g != "randomisation"], labels=scenes / "labels.csv", masks=scenes / "masks"
    )
    records = evaluation.run(tmp_path_factory.mktemp("report"))
    (photos / GONE).unlink()
    return summarise(evaluation, records)
