"""Score-CAM: weight each channel by what the network says to the image masked with it.

H. Wang et al., "Score-CAM: Score-weighted visual explanations for convolutional neural networks", CVPR workshops 2020
(arXiv 1910.01279).  Three computations go by that name; they differ in the weights of ReLU(Σ_i α_i A_i):

    paper             α = softmax_i(p_c(x ⊙ m_i) − p_c(0)), m_i = N(up(A_i))
    pytorch-grad-cam  α = softmax_i(z_c(x ⊙ m_i)), up with aligned corners
    torchcam          α = softmax_i(z_c(x ⊙ m_i) − z_c(x)), m_i = up(N(A_i))

What is subtracted from all channels alike leaves the softmax as it is, and is not computed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from camrt.image import scaled, upsampling_matrix
from camrt.methods.registry import MASKED_IMAGES, Parameter, method
from camrt.methods.weighting import weighted_sum

if TYPE_CHECKING:
    from camrt.case import Case

VARIANTS = ("paper", "pytorch-grad-cam", "torchcam")


def score_cam(features: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return ReLU(Σ_i α_i A_i), α = softmax over the channels of their scores.  (N, C, h, w), (N, C, T) → (N, T, h, w)."""
    exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
    weights = exponentials / exponentials.sum(axis=1, keepdims=True)
    return weighted_sum(weights.transpose(0, 2, 1), features)


@method(
    "score-cam",
    needs=(MASKED_IMAGES,),
    passes="1 + C",
    citation="Wang et al., CVPR workshops 2020 (arXiv 1910.01279)",
    parameters={"variant": Parameter("paper", "which of the computations that go by the name", VARIANTS)},
)
def run(case: Case, *, variant: str) -> np.ndarray:
    """Return the maps (N, T, h, w) of a case."""
    features = case.features
    maps = scaled(features) if variant == "torchcam" else features
    rows, columns = (
        upsampling_matrix(n, out, aligned=variant == "pytorch-grad-cam")
        for n, out in zip(features.shape[2:], case.size, strict=True)
    )
    scores, _ = case.masked_scores(
        lambda start, stop: maps[:, start:stop], features.shape[1], baseline="black",
        score="probability" if variant == "paper" else "logit", normalise=variant != "torchcam",
        upsampling=lambda start, stop: (rows[None], columns.T[None]),
    )  # fmt: skip
    return score_cam(features, scores)
