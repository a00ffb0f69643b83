"""Eigen-CAM: the main component of the features, whatever the class.

M. B. Muhammad, M. Yeasin, "Eigen-CAM: Class activation map using principal components", IJCNN 2020 (arXiv 2008.00299).
Centred as in the library pytorch-grad-cam; the sign, which a singular vector leaves open, is camrt's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from camrt.methods.registry import method

if TYPE_CHECKING:
    from camrt.case import Case


def eigen_cam(features: np.ndarray) -> np.ndarray:
    """Return the projection of A (hw × C), centred per channel, on its first right singular vector, (…, C, h, w) → (…, h, w).

    The sign is the one with which the map correlates with the mean of A over the channels.  NaN where A is not finite.
    """
    maps = np.full((*features.shape[:-3], *features.shape[-2:]), np.nan, np.float32)
    for i in np.ndindex(features.shape[:-3]):
        if np.isfinite(features[i]).all():
            flat = features[i].reshape(len(features[i]), -1).astype(np.float64)
            maps[i] = _projection(flat - flat.mean(axis=1, keepdims=True)).reshape(features.shape[-2:])
    return maps


def _projection(centred: np.ndarray) -> np.ndarray:
    """Return the projection (hw,) of centred maps (C, hw), from the eigenvectors of their products along the shorter side.

    einsum instead of a matrix product, whose threads would go on spinning and take the cores from the network's.
    """
    fewer_places = centred.shape[1] < centred.shape[0]
    rows = np.ascontiguousarray(centred.T) if fewer_places else centred
    _, vectors = np.linalg.eigh(np.einsum("ik,jk->ij", rows, rows))
    across = np.einsum("ik,i->k", rows, vectors[:, -1])  # the other side's vector times the singular value
    projection = vectors[:, -1] * np.linalg.norm(across) if fewer_places else across
    return np.asarray(-projection if projection @ centred.mean(axis=0) < 0 else projection)


@method("eigen-cam", passes="1", citation="Muhammad, Yeasin, IJCNN 2020 (arXiv 2008.00299)")
def run(case: Case) -> np.ndarray:
    """Return the maps (N, T, h, w) of a case, the same for every target."""
    return np.repeat(eigen_cam(case.features)[:, None], case.targets.shape[1], axis=1)
