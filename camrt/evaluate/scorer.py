"""The score by which metrics judge a heatmap: p of one class, by bare passes."""

from __future__ import annotations

import time

import numpy as np

from camrt.case import probabilities
from camrt.explainer import Explainer


class Scorer:
    """p of one class, (n, 3, H, W) → (n,), by bare passes in the engine's batches; it keeps their time.

    Attributes
    ----------
    images : int
        How many went through the network.
    ms : float
        How long that took.
    """

    def __init__(self, explainer: Explainer, target: int):
        self.engine = explainer.engine
        self.kind = explainer.manifest.kind
        self.target = target
        self.images, self.ms = 0, 0.0

    def __call__(self, images: np.ndarray) -> np.ndarray:
        calls = -(-len(images) // self.engine.max_masked_batch)  # of equal size, so that memory is reused
        return np.concatenate([self._some(part) for part in np.array_split(images, calls)])

    def _some(self, images: np.ndarray) -> np.ndarray:
        started = time.perf_counter()
        logits = self.engine.forward(images)
        self.ms += (time.perf_counter() - started) * 1e3
        self.images += len(images)
        return probabilities(logits, self.kind)[:, self.target]
