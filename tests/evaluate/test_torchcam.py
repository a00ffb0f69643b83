"""torchcam judges average drop and increase: Grad-CAM of the same weights on the same photos."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn
from torchcam.methods import GradCAM
from torchcam.metrics import ClassificationMetric

import camrt
from camrt.evaluate.scorer import Scorer
from camrt.image import preprocess_photo, scaled, upsample
from camrt.metrics import average_drop, increase, masked
from exporters import export
from tests import networks

PHOTOS = 24
TOLERANCE = 1e-3

pytestmark = pytest.mark.real


def with_weights_of(file: Path) -> nn.Module:
    """Return MobileNetV2 with the weights of an ONNX file, whose batch normalisation lies in the convolutions."""
    model = networks.mobilenet_v2().eval()
    graph = onnx.load(str(file)).graph
    named = {w.name: numpy_helper.to_array(w).copy() for w in graph.initializer}
    weights = (named[name] for node in graph.node if node.op_type in ("Conv", "Gemm") for name in node.input[1:])
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                weight = torch.from_numpy(next(weights))
                layer.weight.copy_(weight.T if isinstance(layer, nn.Linear) else weight)
                if layer.bias is not None:
                    layer.bias.copy_(torch.from_numpy(next(weights)))
            elif isinstance(layer, nn.BatchNorm2d):
                layer.eps = 0.0
                layer.running_mean.zero_()
                layer.running_var.fill_(1)
                layer.weight.fill_(1)
                layer.bias.copy_(torch.from_numpy(next(weights)))
    assert not list(weights)
    return model


class OnLogits(GradCAM):
    """Grad-CAM of the logits, as it is published; the metric itself hands over probabilities."""

    logits: torch.Tensor

    def __call__(self, class_idx=None, scores=None, *args, **options):
        return super().__call__(class_idx, self.logits, *args, **options)


@pytest.fixture(scope="module")
def explainer(real, tmp_path_factory):
    model = real / "models" / "mobilenet_v2_tv"
    folder = tmp_path_factory.mktemp("torchcam") / "bundle"
    export(model.with_suffix(".onnx"), folder, preprocess=model.with_suffix(".json"))
    return camrt.load(folder, providers=["cpu"])


def test_average_drop_and_increase_of_grad_cam_are_those_of_torchcam(real, explainer):
    """torchcam stretches a map to [0, 1] before it is upsampled, camrt afterwards; here both do it before."""
    model = with_weights_of(real / "models" / "mobilenet_v2_tv.onnx")
    paths = sorted((real / "photos" / "val").iterdir())[:PHOTOS]
    explanations = explainer.explain(paths, method="grad-cam")
    images = np.stack([preprocess_photo(e.photo.pixels, explainer.manifest.preprocess)[0] for e in explanations])
    targets = np.array([e.targets[0].index for e in explanations])
    whole = np.array([e.targets[0].probability for e in explanations])
    with torch.no_grad():
        p = torch.softmax(model(torch.from_numpy(images)), dim=1).numpy()
    assert np.abs(p[np.arange(PHOTOS), targets] - whole).max() < 1e-5

    with OnLogits(model, target_layer=model[1]) as extractor:
        model.register_forward_hook(lambda _, __, logits: setattr(extractor, "logits", logits))
        metric = ClassificationMetric(extractor, partial(torch.softmax, dim=-1))
        for x, target in zip(images, targets, strict=True):
            metric.update(torch.from_numpy(x[None]).requires_grad_(), class_idx=int(target))
        theirs = metric.summary()
    heatmaps = upsample(scaled(np.stack([np.maximum(e.maps[0], 0) for e in explanations])), explainer.manifest.size)
    left = np.array([
        Scorer(explainer, target)(masked(x, heatmap)[None])[0]
        for x, heatmap, target in zip(images, heatmaps, targets, strict=True)
    ])  # fmt: skip
    assert average_drop(whole, left).mean() == pytest.approx(theirs["avg_drop"], abs=TOLERANCE)
    assert increase(whole, left).mean() == pytest.approx(theirs["conf_increase"], abs=TOLERANCE)
