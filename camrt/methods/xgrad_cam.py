"""XGrad-CAM: weight each channel by its gradients, averaged where the channel is active.

R. Fu et al., "Axiom-based Grad-CAM: Towards accurate visualization and explanation of CNNs", BMVC 2020 (arXiv 2008.02312).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from camrt.methods.registry import GRADIENTS, method
from camrt.methods.weighting import weighted_sum

if TYPE_CHECKING:
    from camrt.case import Case

EPSILON = 1e-8  # as in torchcam; the authors' code has 1e-6


def xgrad_cam(features: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    """Return ReLU(Σ_i w_i A_i), w_i = Σ_hw g A / (Σ_hw A + ε).  (N, C, h, w), (N, T, C, h, w) → (N, T, h, w)."""
    total = features.sum(axis=(2, 3))[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):  # a sum of exactly −ε becomes an outcome
        return weighted_sum(np.einsum("ntchw,nchw->ntc", gradients, features) / (total + np.float32(EPSILON)), features)


@method("xgrad-cam", needs=(GRADIENTS,), passes="1 + T backward", citation="Fu et al., BMVC 2020 (arXiv 2008.02312)")
def run(case: Case) -> np.ndarray:
    """Return the maps (N, T, h, w) of a case."""
    return xgrad_cam(case.features, case.gradients())
