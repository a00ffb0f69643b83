"""Ablation-CAM: weight each channel by how far the logit falls when the channel is taken away.

S. Desai, H. G. Ramaswamy, "Ablation-CAM: Visual explanations for deep convolutional network via gradient-free localization",
WACV 2020.  Only the tail runs, once per channel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from camrt.methods.registry import TAIL, method
from camrt.methods.weighting import weighted_sum

if TYPE_CHECKING:
    from camrt.case import Case


def ablation_cam(features: np.ndarray, falls: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Return ReLU(Σ_i w_i A_i), w_i = (z_c − z_c with A_i := 0) / z_c, (N, C, h, w) → (N, T, h, w).

    Parameters
    ----------
    falls : ndarray of shape (N, C, T)
        How far the logit falls without each channel.
    size : ndarray of shape (N, T)
        z_c, by which falls are divided.
    """
    with np.errstate(divide="ignore", invalid="ignore"):  # a logit of 0 becomes an outcome
        weights = falls / size[:, None]
        return weighted_sum(weights.transpose(0, 2, 1), features)


@method("ablation-cam", needs=(TAIL,), passes="1 + C of the tail", citation="Desai, Ramaswamy, WACV 2020")
def run(case: Case) -> np.ndarray:
    """Return the maps (N, T, h, w) of a case."""
    channels = case.features.shape[1]

    def without(start: int, stop: int) -> np.ndarray:
        kept = np.asarray(np.arange(channels) != np.arange(start, stop)[:, None], np.float32)
        return case.features[:, None] * kept[..., None, None]

    logits = case.scores(case.logits[:, None], "logit")
    falls = logits - case.edited_scores(without, channels, score="logit")
    whole = logits[:, 0] if case.versus is None else np.abs(logits[:, 0])  # a difference below 0 would turn the map over
    return ablation_cam(case.features, falls, whole)
