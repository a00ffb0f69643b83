"""Cut a tiny model into a bundle."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
from onnx import ModelProto

from camrt.bundle import Bundle, open_bundle
from exporters import export
from tests import graphs

Cut = Callable[..., Bundle]
collect_ignore = ["converted"]  # holds the script that made its files, which needs TensorFlow


@pytest.fixture
def cut(tmp_path) -> Cut:
    """Write a model, export it and return the bundle, opened and verified."""

    def cut(built: ModelProto, **options: object) -> Bundle:
        source = graphs.save(built, tmp_path / "model.onnx")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The model scales its pixels itself")  # which of the models do is theirs to test
            export(source, tmp_path / "bundle", **{"overrides": {"scale": 1 / 255}, **options})
        return open_bundle(tmp_path / "bundle")

    return cut
