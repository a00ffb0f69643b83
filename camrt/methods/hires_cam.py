"""HiResCAM: every feature times its own gradient; behind one linear layer it shows only places that the network used.

R. L. Draelos, L. Carin, "Use HiResCAM instead of Grad-CAM for faithful explanations of convolutional neural networks",
2020 (arXiv 2011.08891).

Where the tail is pooling or flattening and one linear layer, Σ_hw R + bias_c = z_c exactly, and with global average pooling
HiResCAM, Grad-CAM and CAM are the same up to scale.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from camrt.methods.registry import GRADIENTS, Parameter, method

if TYPE_CHECKING:
    from camrt.case import Case


def hires_cam(features: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    """Return the signed map R = Σ_i g_i ⊙ A_i.  (N, C, h, w), (N, T, C, h, w) → (N, T, h, w)."""
    return np.asarray(np.einsum("ntchw,nchw->nthw", gradients, features))


@method(
    "hires-cam",
    needs=(GRADIENTS,),
    passes="1 + T backward",
    citation="Draelos, Carin, 2020 (arXiv 2011.08891)",
    parameters={"raw": Parameter(False, "give R itself, signed, instead of ReLU(R)")},
)
def run(case: Case, *, raw: bool) -> np.ndarray:
    """Return the maps (N, T, h, w) of a case."""
    signed = hires_cam(case.features, case.gradients())
    return signed if raw else np.maximum(signed, 0)
