"""The nine third-party graphs that the onnx package carries, whole: with seeded weights exact, and as found.

Opset 9, IR version 3, weights as ConstantOfShape and initializers listed as inputs, batch 1 in Reshape, Softmax at the end.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, ValueInfoProto

from camrt.bundle import Bundle, open_bundle
from exporters import export
from exporters.proof import run_score
from tests import graphs
from tests.exporters.helpers import images, split
from tests.light import LIGHT, light, logits_of

IMAGES = 5
SMALL = ("shufflenet", "squeezenet")
TOLERANCE = 1e-4  # of the largest logit, or of 1


@pytest.fixture
def folder(tmp_path) -> Iterator[Path]:
    """A folder that is removed at once: the bundles of the large networks would fill the disk."""
    yield tmp_path / "bundle"
    shutil.rmtree(tmp_path)


def source_logits(model: ModelProto, x: np.ndarray) -> np.ndarray:
    """Return the source's logits, one image after the other, as its batch is fixed."""
    logits = logits_of(model)
    asked = ModelProto()
    asked.CopyFrom(model)
    if logits != model.graph.output[0].name:
        asked.graph.output.append(ValueInfoProto(name=logits))
    session = graphs.session(asked)
    weights = {tensor.name for tensor in model.graph.initializer}
    (image,) = (value.name for value in model.graph.input if value.name not in weights)
    return np.concatenate([session.run([logits], {image: one[None]})[0].reshape(1, -1) for one in x])


def scored(bundle: Bundle, x: np.ndarray) -> np.ndarray:
    """Return the logits (N, L) of the score graph under masks that show the images themselves."""
    maps = np.ones((len(x), 1, 2, 2), np.float32)
    return run_score(graphs.session(bundle.path("score")), x, maps, normalise=False)[:, 0]


@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name in SMALL else pytest.mark.slow) for name in LIGHT])
def test_with_weights_the_split_is_exact_and_a_batch_equals_its_images(name, folder, tmp_path):
    model = light(name)
    export(graphs.save(model, tmp_path / "light.onnx"), folder, preset="imagenet")
    bundle = open_bundle(folder)
    x = images(bundle, IMAGES)
    expected = source_logits(model, x)
    assert expected.std(axis=0).max() > 1e-3  # the logits depend on the image
    allowed = TOLERANCE * max(1, np.abs(expected).max())
    for logits in (split, scored):
        together = logits(bundle, x)
        alone = np.concatenate([logits(bundle, one[None]) for one in x])
        np.testing.assert_allclose(together, expected, rtol=0, atol=allowed)
        np.testing.assert_allclose(alone, together, rtol=0, atol=allowed)
    assert bundle.manifest.gradient_missing is None
