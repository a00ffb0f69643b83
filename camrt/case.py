"""A case: images, their targets, and what a method may ask of the network about them; it counts passes and time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from camrt.engine import Batched, Engine
from camrt.image import blur
from camrt.providers import OrtValue

Parts = Callable[[int, int], np.ndarray]  # (start, stop) → what lies between, (N, stop − start, …)


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
    versus : int or None
        The class whose scores are subtracted from the targets', for "why A and not B".
    notes : list of list of str
        For each image.
    passes, tail_passes, backward_passes : int
        Forward passes of the whole network that each image took, of the tail on edited features, and gradients.
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
        self.passes = self.tail_passes = self.backward_passes = 0
        self.timings: dict[str, float] = {}
        self.masked_batch = 0
        self.targets = np.zeros((len(x), 0), np.int64)
        self.versus: int | None = None
        self._baselines: dict[str, tuple[OrtValue, np.ndarray]] = {}
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

    @contextmanager
    def rest(self, name: str) -> Iterator[None]:
        """Add to a stage the time spent inside that no other stage took."""
        started, before = time.perf_counter(), sum(self.timings.values())
        yield
        others = sum(self.timings.values()) - before
        self.timings[name] = self.timings.get(name, 0.0) + (time.perf_counter() - started) * 1e3 - others

    def note(self, notes: Sequence[Sequence[str]]) -> None:
        """Add notes to every image's, each once."""
        for mine, new in zip(self.notes, notes, strict=True):
            mine.extend(word for word in new if word not in mine)

    # --- what a method may ask ------------------------------------------------------------------------------------------
    def gradients(self) -> np.ndarray:
        """Return g = ∂z_c/∂A of every target, (N, T, C, h, w); with `versus` of the difference of two logits."""
        with self.stage("gradient"):
            cotangents = np.zeros((*self.targets.shape, self.logits.shape[1]), np.float32)
            np.put_along_axis(cotangents, self.targets[..., None], 1, axis=2)
            if self.versus is not None:
                cotangents[..., self.versus] -= 1
            self.backward_passes += self.targets.shape[1]
            return self._noted(self.engine.gradients(self.features, cotangents))

    def masked_scores(
        self, maps: Parts, count: int, *, baseline: str, score: str, normalise: bool = True
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return how the targets score on the masked images and on the baseline.

        Parameters
        ----------
        maps : callable
            (start, stop) → maps (N, stop − start, rows, columns), float32, upsampled and, with `normalise`, scaled to [0, 1]
            by the score graph.
        count : int
            K, how many maps there are.
        baseline : {"black", "blur"}
        score : {"probability", "logit"}

        Returns
        -------
        scores : ndarray of shape (N, K, T)
        blank : ndarray of shape (N, T)
            The baseline's.
        """
        with self.stage("masked"):
            background, blank = self._baseline(baseline)
            self.passes += count
            scores = self.engine.masked_logits(self._image, background, maps, count, lambda z: self.scores(z, score), normalise)
            self.masked_batch = max(self.masked_batch, scores.batch)
            return self._noted(scores), self.scores(blank[:, None], score)[:, 0]

    def _baseline(self, name: str) -> tuple[OrtValue, np.ndarray]:
        """Return what shows where a mask is 0, on the device, and its logits (N, L); computed once."""
        if name not in self._baselines:
            if name == "black":
                image, logits = np.zeros_like(self.x), self.engine.black_logits()[None]
            else:
                image = blur(self.x)
                logits = self.engine.forward(image)
                self.passes += 1
            self._baselines[name] = self.engine.put(image), np.broadcast_to(logits, self.logits.shape)
        return self._baselines[name]

    def edited_scores(self, factors: Parts, count: int, *, score: str) -> np.ndarray:
        """Return how the targets score (N, M, T) when the features are multiplied by every factor; only the tail runs.

        Parameters
        ----------
        factors : callable
            (start, stop) → factors (N or 1, stop − start, C or 1, h or 1, w or 1), float32.
        count : int
            M, how many factors there are.
        score : {"probability", "logit"}
        """
        with self.stage("tail"):
            self.tail_passes += count
            return self._noted(self.engine.edited_logits(self.features, factors, count, lambda z: self.scores(z, score)))

    def linear_tail(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the weights (L, C) and bias (L,) of a tail of global average pooling and one linear layer."""
        with self.stage("tail"):
            return self.engine.linear_tail()

    def scores(self, logits: np.ndarray, score: str) -> np.ndarray:
        """Return the targets' scores (N, K, T) from logits (N, K, L)."""
        with np.errstate(invalid="ignore", over="ignore"):  # what is not finite becomes an outcome
            values = probabilities(logits, self.engine.bundle.manifest.kind) if score == "probability" else logits
            return self.of_targets(values)

    def of_targets(self, values: np.ndarray) -> np.ndarray:
        """Return of values (N, K, L) those of the targets (N, K, T), less those of `versus`."""
        chosen = np.take_along_axis(values, self.targets[:, None], axis=2)
        return chosen if self.versus is None else chosen - values[..., self.versus, None]

    def _noted(self, batched: Batched) -> np.ndarray:
        if batched.halved:
            self.note([["chunk_halved"]] * len(self.x))
        return batched.values


def probabilities(logits: np.ndarray, kind: str) -> np.ndarray:
    """Return p from logits (…, L): softmax, sigmoid, or the values themselves, as the bundle's output kind says."""
    if kind == "logits":
        exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True), dtype=np.float32)
        return np.asarray(exponentials / exponentials.sum(axis=-1, keepdims=True))
    if kind == "sigmoid":
        small = np.exp(-np.abs(logits), dtype=np.float32)  # without overflow, and of a small p all digits are right
        return np.asarray(np.where(logits >= 0, np.float32(1), small) / (1 + small))
    return logits
