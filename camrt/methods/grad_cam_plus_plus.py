"""Grad-CAM++: weight each positive gradient by how much of the class it carries.

A. Chattopadhay et al., "Grad-CAM++: Generalized gradient-based visual explanations for deep convolutional networks", WACV
2018, eq. 19 (arXiv 1710.11063), for a score that is the exponential of the logit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from camrt.methods.registry import GRADIENTS, method
from camrt.methods.weighting import weighted_sum

if TYPE_CHECKING:
    from camrt.case import Case


def grad_cam_plus_plus(features: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    """Return ReLU(Σ_i w_i A_i), w_i = Σ_hw α ReLU(g), α = g² / (2 g² + g³ Σ_hw A), 0 where g = 0.

    (N, C, h, w), (N, T, C, h, w) → (N, T, h, w).  Computed as 1 / (2 + g Σ A), as g² of a small gradient underflows.
    """
    below = 2 + gradients * features.sum(axis=(2, 3))[:, None, :, None, None]
    alpha = np.divide(1, below, out=np.zeros_like(below), where=(gradients != 0) & (below != 0))
    return weighted_sum((alpha * np.maximum(gradients, 0)).sum(axis=(3, 4)), features)


@method("grad-cam++", needs=(GRADIENTS,), passes="1 + T backward", citation="Chattopadhay et al., WACV 2018 (arXiv 1710.11063)")
def run(case: Case) -> np.ndarray:
    """Return the maps (N, T, h, w) of a case."""
    return grad_cam_plus_plus(case.features, case.gradients())
