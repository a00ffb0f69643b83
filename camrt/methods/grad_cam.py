"""Grad-CAM: weight each channel by its mean gradient.

R. R. Selvaraju et al., "Grad-CAM: Visual explanations from deep networks via gradient-based localization", ICCV 2017,
eq. 1-2 (arXiv 1610.02391).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from camrt.methods.registry import GRADIENTS, method
from camrt.methods.weighting import weighted_sum

if TYPE_CHECKING:
    from camrt.case import Case


def grad_cam(features: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    """Return ReLU(Σ_i w_i A_i), w_i = mean_hw g_i.  (N, C, h, w), (N, T, C, h, w) → (N, T, h, w)."""
    return weighted_sum(gradients.mean(axis=(3, 4)), features)


@method("grad-cam", needs=(GRADIENTS,), passes="1 + T backward", citation="Selvaraju et al., ICCV 2017 (arXiv 1610.02391)")
def run(case: Case) -> np.ndarray:
    """Return the maps (N, T, h, w) of a case."""
    return grad_cam(case.features, case.gradients())
