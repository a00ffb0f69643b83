"""A case: images, their targets, and what a method may ask of the network about them; it counts passes and time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise

import numpy as np

from camrt.engine import Batched, Engine, Upsampling
from camrt.image import blur
from camrt.runtime import OrtValue
from camrt.turns import Turns

ALL = slice(None)
Parts = Callable[[int, int], np.ndarray]  # (start, stop) → what lies between, (N, stop − start, …)


class Case:
    """N preprocessed images on their way through one method.

    Parameters
    ----------
    engine : Engine
    x : ndarray of shape (N, 3, H, W), float32
    turns : Turns, optional
        Taken for everything that the network computes, where the device is shared.

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
        Most masked images that shared a call; 0 where there were none.
    """

    def __init__(self, engine: Engine, x: np.ndarray, turns: Turns | None = None):
        self.engine = engine
        self.turns = turns
        self.x = x
        self.size = (x.shape[2], x.shape[3])
        self.notes: list[list[str]] = [[] for _ in x]
        self.passes = self.tail_passes = self.backward_passes = 0
        self.timings: dict[str, float] = {}
        self.masked_batch = 0
        self.targets = np.zeros((len(x), 0), np.int64)
        self.versus: int | None = None
        self._blurred: tuple[np.ndarray, np.ndarray] | None = None  # the images, blurred, and the logits
        with self.computing("forward"):
            self._image = engine.put(x)
            features, self._on_device, logits = engine.whole_in_chunks(x, self._image)
            self.logits = self._noted(logits)
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
            self.add({name: (time.perf_counter() - started) * 1e3})

    @contextmanager
    def computing(self, name: str) -> Iterator[None]:
        """Add the time spent inside to a stage of the network's, and that spent waiting for the device to "wait"."""
        with ExitStack() as turn:
            if self.turns is not None:
                with self.stage("wait"):
                    turn.enter_context(self.turns)
            with self.stage(name):
                yield

    @contextmanager
    def rest(self, name: str) -> Iterator[None]:
        """Add to a stage the time spent inside that no other stage took."""
        started, before = time.perf_counter(), sum(self.timings.values())
        yield
        others = sum(self.timings.values()) - before
        self.add({name: (time.perf_counter() - started) * 1e3 - others})

    def add(self, timings: Mapping[str, float]) -> None:
        """Add milliseconds to stages."""
        for name, ms in timings.items():
            self.timings[name] = self.timings.get(name, 0.0) + ms

    def note(self, notes: Sequence[Sequence[str]]) -> None:
        """Add notes to every image's, each once."""
        for mine, new in zip(self.notes, notes, strict=True):
            mine.extend(word for word in new if word not in mine)

    # --- what a method may ask ------------------------------------------------------------------------------------------
    def gradients(self) -> np.ndarray:
        """Return g = ∂z_c/∂A of every target, (N, T, C, h, w); with `versus` of the difference of two logits."""
        with self.computing("gradient"):
            cotangents = np.zeros((*self.targets.shape, self.logits.shape[1]), np.float32)
            np.put_along_axis(cotangents, self.targets[..., None], 1, axis=2)
            if self.versus is not None:
                cotangents[..., self.versus] -= 1
            self.backward_passes += self.targets.shape[1]
            clean = self._on_device if self.finite.all() else None
            return self._noted(self.engine.gradients(self.features, cotangents, clean))

    def masked_scores(
        self,
        maps: Parts,
        count: int,
        *,
        baseline: str,
        score: str,
        normalise: bool = True,
        upsampling: Callable[[int, int], Upsampling] | None = None,
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
        score : {"probability", "logit", "log-odds"}
        upsampling : callable, optional
            As in `Engine.masked_logits`.

        Returns
        -------
        scores : ndarray of shape (N, K, T)
        blank : ndarray of shape (N, T)
            The baseline's.
        """
        with self.computing("masked"):
            blank = self._blank(baseline)
            self.passes += count
            parts = []
            for rows in self._groups(count):

                def some(start: int, stop: int, rows: slice = rows) -> np.ndarray:
                    return maps(start, stop)[rows]

                def keep(logits: np.ndarray, rows: slice = rows) -> np.ndarray:
                    return self._kept(logits, score, rows)

                image = self._image if rows.stop - rows.start == len(self.x) else self.engine.put(self.x[rows])
                background = self._background(baseline, rows)
                batched = self.engine.masked_logits(image, background, some, count, keep, normalise, upsampling)
                self.masked_batch = max(self.masked_batch, batched.batch)
                parts.append(self._noted(batched))
            return np.concatenate(parts), self.scores(blank[:, None], score)[:, 0]

    def _groups(self, count: int) -> list[slice]:
        """Return which images share calls: as many as go through together with all their `count` masked copies, or one."""
        together = max(1, self.engine.max_masked_batch // count)
        groups = -(-len(self.x) // together)
        ends = [len(self.x) * i // groups for i in range(groups + 1)]
        return [slice(start, stop) for start, stop in pairwise(ends)]

    def _blank(self, baseline: str) -> np.ndarray:
        """Return the baseline's logits (N, L); those of the blurred images are computed once."""
        if baseline == "black":
            return np.broadcast_to(self.engine.black_logits(), self.logits.shape)
        if self._blurred is None:
            blurred = blur(self.x)
            logits = self.engine.whole_in_chunks(blurred, self.engine.put(blurred))[2]
            self._blurred = blurred, self._noted(logits)
            self.passes += 1
        return self._blurred[1]

    def _background(self, baseline: str, rows: slice) -> OrtValue:
        """Return what shows where a mask is 0, on the device."""
        if baseline == "black":
            return self.engine.black(rows.stop - rows.start)
        assert self._blurred is not None
        return self.engine.put(self._blurred[0][rows])

    def edited_scores(self, edited: Parts, count: int, *, score: str) -> np.ndarray:
        """Return how the targets score (N, M, T) on edited features; only the tail runs.

        Parameters
        ----------
        edited : callable
            (start, stop) → features (N, stop − start, C, h, w), float32.
        count : int
            M, how many edits there are.
        score : {"probability", "logit", "log-odds"}
        """
        with self.computing("tail"):
            self.tail_passes += count
            return self._noted(self.engine.edited_logits(len(self.x), edited, count, lambda z: self._kept(z, score)))

    def linear_tail(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the weights (L, C) and bias (L,) of a tail of global average pooling and one linear layer."""
        with self.computing("tail"):
            return self.engine.linear_tail()

    def scores(self, logits: np.ndarray, score: str, rows: slice = ALL) -> np.ndarray:
        """Return the targets' scores (N, K, T) from logits (N, K, L), of some images or of all."""
        with np.errstate(invalid="ignore", over="ignore"):  # what is not finite becomes an outcome
            return self.of_targets(MEASURES[score](logits, self.engine.bundle.manifest.kind), rows)

    def _kept(self, logits: np.ndarray, score: str, rows: slice = ALL) -> np.ndarray:
        """Return the scores of one call of several, after which there is a chance to stop."""
        if self.turns is not None:
            self.turns.go_on()
        return self.scores(logits, score, rows)

    def of_targets(self, values: np.ndarray, rows: slice = ALL) -> np.ndarray:
        """Return of values (N, K, L) those of the targets (N, K, T), less those of `versus`; of some images or of all."""
        chosen = np.take_along_axis(values, self.targets[rows, None], axis=2)
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


def log_odds(logits: np.ndarray, kind: str) -> np.ndarray:
    """Return log p / (1 − p) from logits (…, L), which tells what is nearly certain apart where p is 1 for all of it.

    Of scores that are no probabilities, the values themselves.
    """
    if kind == "logits":
        if logits.shape[-1] == 1:  # whose p is always 1
            return np.zeros_like(logits)
        values = logits.astype(np.float64)
        best, highest = np.argmax(values, axis=-1, keepdims=True), values.max(axis=-1, keepdims=True)
        others = values.copy()
        np.put_along_axis(others, best, -np.inf, axis=-1)
        second = others.max(axis=-1, keepdims=True)
        rest = np.exp(others - second).sum(axis=-1, keepdims=True)  # of all but the best, in units of exp(second)
        against = highest + np.log1p((rest - np.exp(others - second)) * np.exp(second - highest))
        np.put_along_axis(against, best, second + np.log(rest), axis=-1)
        return np.asarray(values - against, np.float32)
    if kind == "probabilities":
        p = np.clip(logits.astype(np.float64), np.finfo(np.float32).tiny, 1 - np.finfo(np.float32).epsneg)
        return np.asarray(np.log(p) - np.log1p(-p), np.float32)
    return logits


MEASURES: dict[str, Callable[[np.ndarray, str], np.ndarray]] = {
    "probability": probabilities, "logit": lambda logits, _: logits, "log-odds": log_odds,
}  # fmt: skip
