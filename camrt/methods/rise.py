"""RISE: the mean of random masks, weighted by what the network says to the images they leave.

V. Petsiuk, A. Das, K. Saenko, "RISE: Randomized input sampling for explanation of black-box models", BMVC 2018, eq. 6 and
section 3.2 (arXiv 1806.07421).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from camrt.image import upsampling_matrix
from camrt.methods.registry import MASKED_IMAGES, SCORE, SEED, Parameter, method

if TYPE_CHECKING:
    from camrt.case import Case
    from camrt.engine import Upsampling

BLOCK = 64  # masks at once


class RandomMasks:
    """Masks (H, W) in [0, 1]: grids of zeros and ones, upsampled to a cell more than the image, shifted by less than a cell.

    Parameters
    ----------
    count : int
    size : (int, int)
        H and W.
    grid : int
        Cells a side.
    p : float
        Chance of a one.
    seed : int
    """

    def __init__(self, count: int, size: tuple[int, int], grid: int, p: float, seed: int):
        rng = np.random.default_rng(seed)
        cells = [-(-side // grid) for side in size]
        self.grids = (rng.random((count, grid, grid), np.float32) < p).astype(np.float32)
        self.shifts = rng.integers(0, cells, (count, 2))
        self.windows = []  # for rows and columns, the matrices (shifts, side, grid) of upsampling and cropping at every shift
        for side, cell in zip(size, cells, strict=True):
            whole = upsampling_matrix(grid, (grid + 1) * cell)
            self.windows.append(np.stack([whole[shift : shift + side] for shift in range(cell)]))

    def upsampling(self, start: int, stop: int) -> Upsampling:
        """Return the matrices (stop − start, H, grid) and (stop − start, grid, W) of masks start…stop."""
        rows, columns = (window[shift] for window, shift in zip(self.windows, self.shifts[start:stop].T, strict=True))
        return rows, columns.transpose(0, 2, 1)

    def part(self, start: int, stop: int) -> np.ndarray:
        """Return masks start…stop, (stop − start, H, W) float32."""
        rows, columns = self.upsampling(start, stop)
        return np.asarray(rows @ self.grids[start:stop] @ columns)


@method(
    "rise",
    needs=(MASKED_IMAGES,),
    passes="1 + masks",
    citation="Petsiuk et al., BMVC 2018 (arXiv 1806.07421)",
    parameters={
        "masks": Parameter(4000, "how many random masks", least=1, most=100_000),
        "grid": Parameter(7, "cells a side of a mask", least=1, most=32),
        "p": Parameter(0.5, "chance that a cell is shown", least=0.01, most=1),
        "score": SCORE,
        "seed": SEED,
    },
)
def run(case: Case, *, masks: int, grid: int, p: float, score: str, seed: int) -> np.ndarray:
    """Return the maps (N, T, H, W) of a case: Σ_i s_c(x ⊙ m_i) m_i / (masks · p)."""
    random = RandomMasks(masks, case.size, grid, p, seed)

    def for_all_images(start: int, stop: int) -> np.ndarray:
        grids = random.grids[start:stop]
        return np.broadcast_to(grids, (len(case.x), *grids.shape))

    scores, _ = case.masked_scores(
        for_all_images, masks, baseline="black", score=score, normalise=False, upsampling=random.upsampling
    )
    total = np.zeros((*case.targets.shape, *case.size), np.float64)
    for start in range(0, masks, BLOCK):
        part = random.part(start, min(start + BLOCK, masks))
        total += np.einsum("nkt,khw->nthw", scores[:, start : start + BLOCK], part)
    return (total / (masks * p)).astype(np.float32)
