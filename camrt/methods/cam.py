"""CAM: the weights of the last linear layer on the features before global average pooling.

B. Zhou, A. Khosla, A. Lapedriza, A. Oliva, A. Torralba, "Learning deep features for discriminative localization", CVPR 2016,
eq. 2 (arXiv 1512.04150).  The ReLU is not the paper's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from camrt.errors import MethodUnavailable
from camrt.methods.registry import TAIL, method
from camrt.methods.weighting import weighted_sum

if TYPE_CHECKING:
    from camrt.case import Case

TOLERANCE = 1e-3  # of the largest logit: how exactly W · mean A + b must give the logits


def cam(features: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return ReLU(Σ_i W_ci A_i).  (N, C, h, w), (N, T, C) → (N, T, h, w)."""
    return weighted_sum(weights, features)


@method("cam", needs=(TAIL,), passes="1, once C + 1 of the tail", citation="Zhou et al., CVPR 2016 (arXiv 1512.04150)")
def run(case: Case) -> np.ndarray:
    """Return the maps (N, T, h, w) of a case; the C + 1 passes of the tail run once per explainer and are not counted.

    Raises
    ------
    MethodUnavailable
        The tail is not global average pooling and one linear layer.
    """
    weights, bias = case.linear_tail()
    expected, found = (
        z[case.finite] for z in (case.logits, np.einsum("nc,lc->nl", case.features.mean(axis=(2, 3)), weights) + bias)
    )
    if not np.abs(found - expected).max(initial=0) <= TOLERANCE * max(1.0, np.abs(expected).max(initial=0)):
        raise MethodUnavailable(
            "cam needs a tail of global average pooling and one linear layer; the tail of "
            f"{case.engine.bundle.manifest.name!r} is another. Take hires-cam, whose heatmap is the same where both run, "
            "or another method."
        )
    per_class = np.broadcast_to(weights.T, (len(case.x), *weights.T.shape))  # (N, C, L)
    return cam(case.features, case.of_targets(per_class).transpose(0, 2, 1))
