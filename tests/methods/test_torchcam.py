"""torchcam, another implementation, as a second judge where it computes the same."""

from __future__ import annotations

import pytest
from torch import Tensor
from torchcam.methods import GradCAM, LayerCAM, ScoreCAM, XGradCAM

from tests.methods.judge import Judge, check


@pytest.mark.parametrize(("method", "parameters", "extractor"), [
    ("grad-cam", {}, GradCAM),
    ("xgrad-cam", {}, XGradCAM),
    ("layer-cam", {}, LayerCAM),
    ("score-cam", {"variant": "torchcam"}, ScoreCAM),
])  # fmt: skip
def test_the_map_equals_torchcams(judge, method, parameters, extractor):
    def reference(judge: Judge, x: Tensor, classes: Tensor) -> Tensor:
        with extractor(judge.network, judge.layer) as extract:
            scores = judge.network(x)
            (found,) = extract(scores=scores, normalized=False, targets=lambda logits: (logits * classes).sum())
        return found[0]

    check(judge, method, reference, **parameters)
