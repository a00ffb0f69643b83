"""Fixtures shared by all tests: a tiny bundle, the built-in one, the real models and photos."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import camrt
from tests import graphs

ROOT = Path(__file__).parent.parent
SAMPLES = ROOT / "models" / "shapes" / "samples"
CHROMIUM = shutil.which("chromium")
OPTIONS = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
LABELS = ["ant", "bee, honeybee", "crane", "dog", "crane, hoist"]


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory) -> Path:
    """A bundle of `graphs.classifier()`: 5 classes with labels, features (12, 8, 8), input 32 x 32 squashed, RGB / 255."""
    from exporters import export

    folder = tmp_path_factory.mktemp("tiny")
    source = graphs.save(graphs.classifier(), folder / "tiny.onnx")
    export(source, folder / "bundle", labels=LABELS, overrides={"scale": 1 / 255})
    return folder / "bundle"


@pytest.fixture(scope="session")
def tiny(tiny_bundle) -> camrt.Explainer:
    return camrt.load(tiny_bundle, providers=["cpu"])


@pytest.fixture(scope="session")
def shapes() -> camrt.Explainer:
    return camrt.load("shapes", providers=["cpu"])


@pytest.fixture
def pixels() -> np.ndarray:
    """An RGB photo of 40 x 60 pixels, smooth and coloured."""
    y, x = np.mgrid[:40, :60]
    return np.stack([x * 4, y * 6, 255 - x * 2], axis=-1).astype(np.uint8)


@pytest.fixture(scope="session")
def real() -> Path:
    """The folder of real models and photos."""
    if "CAMRT_REAL" not in os.environ:
        pytest.skip("CAMRT_REAL does not name the folder of real models and photos")
    return Path(os.environ["CAMRT_REAL"])


@pytest.fixture(scope="module")
def browser():
    """The system's Chromium, driven by playwright."""
    if not CHROMIUM:
        pytest.skip("chromium is not installed")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as p:
        chromium = p.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        yield chromium
        chromium.close()
