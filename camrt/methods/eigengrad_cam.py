"""EigenGrad-CAM: the main component of the features times their gradients, which makes Eigen-CAM speak of a class.

M. B. Muhammad, M. Yeasin, "Eigen-CAM: Class activation map using principal components", IJCNN 2020 (arXiv 2008.00299), on
g ⊙ A as the library pytorch-grad-cam has it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from camrt.methods.eigen_cam import eigen_cam
from camrt.methods.registry import GRADIENTS, method

if TYPE_CHECKING:
    from camrt.case import Case


def eigengrad_cam(features: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    """Return Eigen-CAM's map of g ⊙ A.  (N, C, h, w), (N, T, C, h, w) → (N, T, h, w)."""
    return eigen_cam(gradients * features[:, None])


@method(
    "eigengrad-cam", needs=(GRADIENTS,), passes="1 + T backward",
    citation="Muhammad, Yeasin, IJCNN 2020 (arXiv 2008.00299), on g ⊙ A",
)  # fmt: skip
def run(case: Case) -> np.ndarray:
    """Return the maps (N, T, h, w) of a case."""
    return eigengrad_cam(case.features, case.gradients())
