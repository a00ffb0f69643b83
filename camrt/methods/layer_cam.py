"""LayerCAM: weight each place of each channel by its own positive gradient.

P.-T. Jiang et al., "LayerCAM: Exploring hierarchical class activation maps for localization", IEEE TIP 30, 2021.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from camrt.methods.registry import GRADIENTS, method

if TYPE_CHECKING:
    from camrt.case import Case


def layer_cam(features: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    """Return ReLU(Σ_i ReLU(g_i) ⊙ A_i).  (N, C, h, w), (N, T, C, h, w) → (N, T, h, w)."""
    return np.asarray(np.maximum(np.einsum("ntchw,nchw->nthw", np.maximum(gradients, 0), features), 0))


@method("layer-cam", needs=(GRADIENTS,), passes="1 + T backward", citation="Jiang et al., IEEE TIP 30, 2021")
def run(case: Case) -> np.ndarray:
    """Return the maps (N, T, h, w) of a case."""
    return layer_cam(case.features, case.gradients())
