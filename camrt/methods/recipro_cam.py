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


def cell_masks(height: int, width: int, mask: str, start: int = 0, stop: int | None = None) -> np.ndarray:
    """Return the masks (stop − start, h, w), float32, of cells start…stop: the cell alone, or a 3 × 3 Gaussian round it."""
    kernel = GAUSSIAN if mask == "gaussian" else np.ones((1, 1))
    reach = len(kernel) // 2
    cells = np.arange(start, height * width if stop is None else stop)
    masks = np.zeros((len(cells), height + 2 * reach, width + 2 * reach), np.float32)
    for mask_of_cell, i, j in zip(masks, cells // width, cells % width, strict=True):
        mask_of_cell[i : i + len(kernel), j : j + len(kernel)] = kernel
    return masks[:, reach : reach + height, reach : reach + width]


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

    def factors(start: int, stop: int) -> np.ndarray:
        return cell_masks(height, width, mask, start, stop)[None, :, None]

    scores = case.edited_scores(factors, height * width, score=score)
    return scores.transpose(0, 2, 1).reshape(len(case.x), -1, height, width)
