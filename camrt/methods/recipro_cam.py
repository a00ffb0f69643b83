"""Recipro-CAM: what the tail says to each place of the features alone.

S.-Y. Byun, W. Lee, "Recipro-CAM: Fast gradient-free visual explanations for convolutional neural networks", 2022 (arXiv
2209.14074; CVPR workshops 2024 as ReciproCAM).  Only the tail runs, once per cell.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from camrt.methods.registry import SCORE, TAIL, Parameter, method

if TYPE_CHECKING:
    from camrt.case import Case

GAUSSIAN = np.outer([1, 2, 1], [1, 2, 1]) / 16  # as in the authors' code: 1/4 in the middle, 1/8 beside it, 1/16 at the corners


def only_cells(features: np.ndarray, start: int, stop: int, mask: str = "one-hot") -> np.ndarray:
    """Return features in which nothing is left but a cell, (N, C, h, w) → (N, stop − start, C, h, w).

    Parameters
    ----------
    start, stop : int
        The cells, row by row.
    mask : {"one-hot", "gaussian"}
        The cell alone, or a 3 × 3 Gaussian round it.
    """
    images, channels, height, width = features.shape
    kernel = GAUSSIAN if mask == "gaussian" else np.ones((1, 1))
    rows, columns = np.divmod(np.arange(start, stop), width)
    left = np.zeros((images, stop - start, channels, height, width), np.float32)
    for (down, right), weight in np.ndenumerate(kernel):  # a few cells are written, which is faster than to multiply them all
        i, j = rows + down - len(kernel) // 2, columns + right - len(kernel) // 2
        inside = np.flatnonzero((i >= 0) & (i < height) & (j >= 0) & (j < width))
        i, j = i[inside], j[inside]
        left[:, inside, :, i, j] = features[:, :, i, j].transpose(2, 0, 1) * np.float32(weight)
    return left


@method(
    "recipro-cam",
    needs=(TAIL,),
    passes="1 + h·w of the tail",
    citation="Byun, Lee, 2022 (arXiv 2209.14074)",
    parameters={
        "mask": Parameter(
            "one-hot", "what is kept of the features: a cell, or a 3 x 3 Gaussian round it", ("one-hot", "gaussian")
        ),
        "score": SCORE,
    },
)
def run(case: Case, *, mask: str, score: str) -> np.ndarray:
    """Return the maps (N, T, h, w) of a case: s_c of the tail on the features times each cell's mask."""
    height, width = case.features.shape[2:]

    def edited(start: int, stop: int) -> np.ndarray:
        return only_cells(case.features, start, stop, mask)

    scores = case.edited_scores(edited, height * width, score=score)
    return scores.transpose(0, 2, 1).reshape(len(case.x), -1, height, width)
