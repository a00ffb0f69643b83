"""RISE: Σ_i p_c(x ⊙ m_i) m_i / (masks · p), from grids upsampled to a cell more than the image and shifted."""

from __future__ import annotations

import math
from functools import cache, partial

import numpy as np
import pytest
import torch
from torch import Tensor

from camrt.methods import METHODS, RandomMasks
from tests.methods.judge import SIZE, Judge, check, masked, photos, up

FEW = {"masks": 100, "grid": 5, "p": 0.4, "seed": 3}


def masks_of(random: RandomMasks, grid: int) -> Tensor:
    """(masks, H, W) from the grids and shifts that were drawn."""
    cell = [math.ceil(side / grid) for side in SIZE]
    large = up(torch.tensor(random.grids, dtype=torch.float64), ((grid + 1) * cell[0], (grid + 1) * cell[1]))
    cut = [m[i : i + SIZE[0], j : j + SIZE[1]] for m, (i, j) in zip(large, random.shifts.tolist(), strict=True)]
    return torch.stack(cut)


@cache
def asked(judge: Judge, x: Tensor) -> tuple[Tensor, Tensor]:
    """The masks and z (masks, L)."""
    masks = masks_of(RandomMasks(100, SIZE, 5, 0.4, 3), 5)
    return masks, judge.logits(masked(x, masks))


def reference(judge: Judge, x: Tensor, classes: Tensor, score: str = "probability") -> Tensor:
    masks, logits = asked(judge, x)
    scores = judge.probabilities(logits) if score == "probability" else logits
    return torch.einsum("k,khw->hw", scores @ classes, masks) / (100 * 0.4)


@pytest.mark.parametrize("score", ["probability", "logit"])
def test_the_map_equals_the_formula(judge, score):
    check(judge, "rise", partial(reference, score=score), **FEW, score=score)


def test_the_maps_are_as_large_as_the_image(late):
    assert late.explainer.explain(photos()[0], top=3, method="rise", **FEW).maps.shape == (3, *SIZE)


def test_by_default_4000_masks_of_7_cells_a_side_show_half():
    assert METHODS["rise"].settings({}) == {"masks": 4000, "grid": 7, "p": 0.5, "score": "probability", "seed": 0}


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_the_masks_are_p_on_average_at_every_pixel(p):
    masks = RandomMasks(4000, SIZE, 7, p, 0).part(0, 4000)
    assert masks.shape == (4000, *SIZE)
    assert (masks.min(), masks.max()) == pytest.approx((0, 1), abs=1e-6)
    assert masks.mean(axis=0) == pytest.approx(np.full(SIZE, p), abs=0.04)
    assert masks.mean() == pytest.approx(p, abs=0.01)


def test_the_masks_are_the_same_however_they_are_parted():
    random = RandomMasks(70, SIZE, 7, 0.5, 0)
    parts = np.concatenate([random.part(0, 1), random.part(1, 64), random.part(64, 70)])
    assert np.array_equal(parts, random.part(0, 70))


def test_the_shifts_cover_a_cell_and_no_more():
    shifts = RandomMasks(4000, SIZE, 7, 0.5, 0).shifts
    assert (shifts.min(axis=0).tolist(), shifts.max(axis=0).tolist()) == ([0, 0], [6, 8])  # cells of 7 x 9 pixels


def test_the_same_seed_gives_the_same_bits_and_another_another_map(late):
    one, again, other = (
        late.explainer.explain(photos()[0], target=0, method="rise", **{**FEW, "seed": seed}).maps for seed in (3, 3, 4)
    )
    assert np.array_equal(one, again)
    assert np.abs(one - other).max() > 1e-2 * one.max()


def test_the_maps_of_two_seeds_approach_each_other_as_masks_are_added(late):
    def distance(count: int) -> float:
        maps = [late.explainer.explain(photos()[0], target=0, method="rise", masks=count, seed=s).maps for s in (0, 1)]
        return float(np.abs(maps[0] - maps[1]).mean())

    assert distance(640) < 0.5 * distance(40)  # by √16 on average
