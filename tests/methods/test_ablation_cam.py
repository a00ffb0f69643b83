"""Ablation-CAM: w_i = (z_c − z_c with A_i := 0) / z_c; ReLU(Σ w_i A_i); against another class / |z_c − z_d|."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from tests.methods.judge import Judge, check, of_channels


@cache
def without_each(judge: Judge, x: Tensor) -> Tensor:
    """z (C, L), row i without channel i."""
    kept = 1 - torch.eye(len(judge.features(x)), dtype=x.dtype)
    return torch.cat([judge.edited(x, row[:, None, None]) for row in kept])


def reference(judge: Judge, x: Tensor, classes: Tensor) -> Tensor:
    whole = judge.logits(x)[0] @ classes
    size = whole.abs() if (classes < 0).any() else whole
    return of_channels((whole - without_each(judge, x) @ classes) / size, judge.features(x))


def test_the_map_equals_the_formula(judge):
    check(judge, "ablation-cam", reference)
