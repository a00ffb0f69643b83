"""A case: images, their targets, and what a method may ask of the network about them; it counts passes and time."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from camrt.engine import Engine
from camrt.image import blur


class Case:
    """N preprocessed images on their way through one method.

    Parameters
    ----------
    engine : Engine
    x : ndarray of shape (N, 3, H, W), float32

    Attributes
    ----------
    features : ndarray of shape (N, C, h, w), float32
        Zeros for an image on which the network is not finite.
    logits : ndarray of shape (N, L)
    finite : ndarray of shape (N,), bool
        The network gave neither NaN nor infinity.
    targets : ndarray of shape (N, T), int64
        Set by the explainer once the logits are known.
    notes : list of list of str
        For each image.
    passes : int
        Forward passes that each image took.
    timings : dict of str to float
        Milliseconds per stage, of the whole case.
    masked_batch : int
        Masked images in one call; 0 where there were none.
    """

    def __init__(self, engine: Engine, x: np.ndarray):
        self.engine = engine
        self.x = x
        self.size = (x.shape[2], x.shape[3])
        self.notes: list[list[str]] = [[] for _ in x]
        self.passes = 0
        self.timings: dict[str, float] = {}
        self.masked_batch = 0
        self.targets = np.zeros((len(x), 0), np.int64)
        with self.stage("forward"):
            self._image = engine.put(x)
            on_device = engine.features(self._image)
            self.logits = engine.logits(on_device)
            features = on_device.numpy()
            self.passes += 1
        self.finite = np.isfinite(features).all(axis=(1, 2, 3)) & np.isfinite(self.logits).all(axis=1)
        self.features = features if self.finite.all() else np.where(self.finite[:, None, None, None], features, np.float32(0))

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time spent inside to a stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.timings[name] = self.timings.get(name, 0.0) + (time.perf_counter() - started) * 1e3

    def note(self, notes: Sequence[Sequence[str]]) -> None:
        """Add notes to every image's."""
        for mine, new in zip(self.notes, notes, strict=True):
            mine.extend(new)

    def masked_scores(self, maps: np.ndarray, *, baseline: str, score: str) -> tuple[np.ndarray, np.ndarray]:
        """Return how the targets score on the masked images and on the baseline.

        Parameters
        ----------
        maps : ndarray of shape (N, K, h, w)
            Upsampled and scaled to [0, 1] by the score graph.
        baseline : {"black", "blur"}
        score : {"probability", "logit"}

        Returns
        -------
        scores : ndarray of shape (N, K, T)
        blank : ndarray of shape (N, T)
            The baseline's.
        """
        with self.stage("masked"):
            if baseline == "black":
                masked = self.engine.masked_logits(self._image, self.engine.put(np.zeros_like(self.x)), maps)
                logits, blank = masked.logits, np.repeat(self.engine.black_logits()[None], len(self.x), axis=0)
            else:  # a flat map is scaled to zeros: its masked image is the baseline itself
                with_flat = np.concatenate([maps, np.zeros_like(maps[:, :1])], axis=1)
                masked = self.engine.masked_logits(self._image, self.engine.put(blur(self.x)), with_flat)
                logits, blank = masked.logits[:, :-1], masked.logits[:, -1]
                self.passes += 1
            self.passes += maps.shape[1]
            self.masked_batch = masked.batch
            if masked.halved:
                self.note([["chunk_halved"]] * len(self.x))
            return self._score(logits, score), self._score(blank[:, None], score)[:, 0]

    def _score(self, logits: np.ndarray, score: str) -> np.ndarray:
        """Return the targets' scores (N, K, T) from logits (N, K, L)."""
        with np.errstate(invalid="ignore", over="ignore"):  # what is not finite becomes an outcome
            values = probabilities(logits, self.engine.bundle.manifest.kind) if score == "probability" else logits
        return np.take_along_axis(values, self.targets[:, None], axis=2)


def probabilities(logits: np.ndarray, kind: str) -> np.ndarray:
    """Return p from logits (…, L): softmax, sigmoid, or the values themselves, as the bundle's output kind says."""
    if kind == "logits":
        exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True), dtype=np.float32)
        return np.asarray(exponentials / exponentials.sum(axis=-1, keepdims=True))
    if kind == "sigmoid":
        return np.asarray(0.5 * (1 + np.tanh(0.5 * logits)))  # the logistic function, without overflow
    return logits
