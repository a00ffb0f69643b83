"""Deletion and insertion: the score while pixels vanish or appear in the order of the heatmap (Petsiuk et al., BMVC 2018).

    area = (Σ s_i − s_0 / 2 − s_{n−1} / 2) / (n − 1)

RISE: Randomized Input Sampling for Explanation of Black-box Models, arXiv 1806.07421 and the authors' code.  "group-cam":
Zhang et al., Group-CAM, arXiv 2103.13859.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import cv2
import numpy as np

from camrt.errors import ParameterError
from camrt.image import BLUR_KERNEL, BLUR_SIGMA
from camrt.metrics.checks import check_heatmap, check_image

CHUNK = 16  # most images in one call of `score`

Score = Callable[[np.ndarray], np.ndarray]  # (n, C, H, W) → (n,)


@dataclass(frozen=True)
class Protocol:
    """How fast pixels change, and what insertion starts from; a result always names it.

    Attributes
    ----------
    name : str
    pixels_a_step : int
        Pixels that change from one point to the next, in units of H: 8 means 8 · H pixels.
    blur_kernel : int
        Pixels, odd.
    blur_sigma : float
        Pixels.
    blur_border : int
        What lies beyond the border for the blur: cv2.BORDER_CONSTANT is zeros, cv2.BORDER_REFLECT_101 the image mirrored.
    points : int, optional
        That many equally spaced points, both ends among them, instead of the step.
    """

    name: str
    pixels_a_step: int
    blur_kernel: int
    blur_sigma: float
    blur_border: int
    points: int | None = None

    def __post_init__(self) -> None:
        if self.pixels_a_step < 1 or (self.points is not None and self.points < 2):
            raise ParameterError(
                f"A curve needs steps of 1 · H pixels or more, or 2 points; got {self.pixels_a_step} and {self.points}. "
                f"Known protocols: {', '.join(PROTOCOLS)}."
            )
        if self.blur_kernel < 1 or self.blur_kernel % 2 == 0 or not self.blur_sigma > 0:
            raise ParameterError(
                f"The blur needs an odd kernel and a positive sigma, got {self.blur_kernel} and {self.blur_sigma}. "
                f"Known protocols: {', '.join(PROTOCOLS)}."
            )

    def counts(self, height: int, width: int) -> np.ndarray:
        """Return how many pixels are changed at every point, (n,) int64: from 0 to H · W.

        Where the step does not divide H · W the last step is shorter than the others.

        Raises
        ------
        ParameterError
            There are more points than numbers of pixels.
        """
        pixels = height * width
        if self.points is not None and self.points > pixels + 1:
            raise ParameterError(f"A curve over {pixels} pixels has at most {pixels + 1} points. Take fewer, 29 for instance.")
        if self.points is not None:
            return np.rint(np.linspace(0, pixels, self.points)).astype(np.int64)
        return np.append(np.arange(0, pixels, self.pixels_a_step * height), pixels)

    def blurred(self, x: np.ndarray) -> np.ndarray:
        """Return an image (C, H, W) as insertion starts from it, float32."""
        kernel = (self.blur_kernel, self.blur_kernel)
        planes = [cv2.GaussianBlur(plane, kernel, self.blur_sigma, borderType=self.blur_border) for plane in check_image(x)]
        return np.stack(planes)


PROTOCOLS: dict[str, Protocol] = {
    "rise": Protocol("rise", 8, 11, 5.0, cv2.BORDER_CONSTANT),
    "group-cam": Protocol("group-cam", 2, BLUR_KERNEL, BLUR_SIGMA, cv2.BORDER_REFLECT_101),
}


@dataclass(frozen=True)
class Curve:
    """A score over the share of changed pixels.

    Attributes
    ----------
    fractions : ndarray of shape (n,), float64 in [0, 1]
    scores : ndarray of shape (n,), float64
    """

    fractions: np.ndarray
    scores: np.ndarray

    def __repr__(self) -> str:
        return f"Curve({len(self.scores)} points)"

    @property
    def area(self) -> float:
        """The area under the curve as published: every step counts alike, also a last one that is shorter."""
        inner = self.scores.sum() - (self.scores[0] + self.scores[-1]) / 2
        return float(inner / (len(self.scores) - 1)) if len(self.scores) > 1 else self.mean

    @property
    def mean(self) -> float:
        """The mean score."""
        return float(self.scores.mean())


def deletion(x: np.ndarray, heatmap: np.ndarray, score: Score, protocol: Protocol) -> Curve:
    """Return the score while the pixels of highest heat are set to 0, the mean colour; a small area is good.

    Parameters
    ----------
    x : ndarray of shape (C, H, W), float32
        Preprocessed.
    heatmap : ndarray of shape (H, W)
        Only the order of its values counts; equal ones go in the order of rows.
    score : callable
        (n, C, H, W) → (n,), n at most 16; by both protocols the softmax of the class that is highest on x.
    protocol : Protocol

    Raises
    ------
    ParameterError
        x, heatmap or the scores have the wrong shape, or the heatmap is not finite.
    """
    x = check_image(x)
    return _curve(x, np.zeros_like(x), heatmap, score, protocol)


def insertion(x: np.ndarray, heatmap: np.ndarray, score: Score, protocol: Protocol) -> Curve:
    """Return the score while the pixels of highest heat appear in a blurred image; a large area is good.

    Parameters and errors are those of `deletion`.
    """
    x = check_image(x)
    return _curve(protocol.blurred(x), x, heatmap, score, protocol)


def _curve(start: np.ndarray, end: np.ndarray, heatmap: np.ndarray, score: Score, protocol: Protocol) -> Curve:
    """Return the score while pixels turn from `start` to `end`."""
    rank = ranks(heatmap, start.shape[1:])
    counts = protocol.counts(*rank.shape)
    images = (np.where(rank < count, end, start) for count in counts)
    return Curve(counts / rank.size, scores_of(images, score))


def ranks(heatmap: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Return each pixel's place (H, W) in the order of falling heat, from 0; equal ones in the order of rows."""
    heat = check_heatmap(heatmap, (size[0], size[1]))
    rank = np.empty(heat.size, np.int64)
    rank[np.argsort(-heat, axis=None, kind="stable")] = np.arange(heat.size)
    return rank.reshape(heat.shape)


def scores_of(images: Iterable[np.ndarray], score: Score) -> np.ndarray:
    """Return the scores (n,), float64, of images that are made while they are scored, at most 16 at a time."""
    return np.concatenate([_scored(chunk, score) for chunk in _chunks(iter(images))])


def _chunks(images: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    while chunk := list(islice(images, CHUNK)):
        yield np.stack(chunk)


def _scored(chunk: np.ndarray, score: Score) -> np.ndarray:
    values = np.asarray(score(chunk), np.float64)
    if values.shape != (len(chunk),):
        raise ParameterError(
            f"score must return one number an image, ({len(chunk)},) for {chunk.shape}, got shape {values.shape}. "
            "Take one class of its output."
        )
    return values
