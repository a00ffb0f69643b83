"""The figures of one method on one photo: what is asked for, and what was found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from camrt.errors import CamrtError, MethodUnavailable, one_line
from camrt.evaluate.attempt import FAILED, Attempt, attempt
from camrt.evaluate.metric import DEFAULT_GROUPS
from camrt.evaluate.scene import Scene
from camrt.evaluate.variant import Variant
from camrt.explainer import Explainer
from camrt.image import pixel_gain
from camrt.metrics import (
    Protocol,
    adcc,
    agreement,
    average_drop,
    coherency,
    complexity,
    deletion,
    energy_pointing_game,
    increase,
    insertion,
    masked,
    pointing_game,
    rank_correlation,
    road,
)

SEEDS = 5  # of which the heatmaps are compared
NOISES = 3  # noisy copies of an image
NOISE = 0.02  # σ of the noise on them, as a share of the range of pixel values: 5 of 255
ROAD_NOISE = 0.01  # σ of the noise on imputed pixels, as a share of the range of pixel values, as in the authors' code


@dataclass
class Found:
    """The figures of one variant on one photo.

    Attributes
    ----------
    attempt : Attempt
    values : dict of str to float or None
        By names of `METRICS`; None where a figure does not apply.
    curves : dict of str to list of float
        p at every point of the protocol.
    """

    attempt: Attempt
    values: dict[str, float | None] = field(default_factory=dict)
    curves: dict[str, list[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Asked:
    """What is to be measured.

    Attributes
    ----------
    protocol : Protocol
        Of insertion and deletion.
    groups : tuple of str
        Of `GROUPS`.
    tolerance : int
        Pixels of the network's input around the object that count as it, in the pointing game.
    """

    protocol: Protocol
    groups: tuple[str, ...] = DEFAULT_GROUPS
    tolerance: int = 0


def measure(explainer: Explainer, scene: Scene, variant: Variant, asked: Asked) -> Found:
    """Return the figures of one variant on one photo.

    A method that breaks off on this photo counts with a heatmap of zeros.

    Raises
    ------
    MethodUnavailable
        The bundle lacks what the method needs.
    """
    measuring = _Measuring(explainer, scene, variant, asked)
    for group, figures in FIGURES.items():
        if group in asked.groups:
            figures(measuring)
    return measuring.found


class _Measuring:
    """The figures of one variant on one photo as they come, a method for each group."""

    def __init__(self, explainer: Explainer, scene: Scene, variant: Variant, asked: Asked):
        self.explainer, self.scene, self.variant, self.asked = explainer, scene, variant, asked
        self.found = Found(self._try(scene.x, variant))
        self.heatmap = self.found.attempt.heatmap

    def _try(self, x: np.ndarray, variant: Variant) -> Attempt:
        try:
            return attempt(self.explainer, x, variant, self.scene.target)
        except MethodUnavailable:
            raise
        except CamrtError as error:
            return Attempt(np.zeros(x.shape[1:], np.float32), FAILED, notes=(one_line(error),))

    def faithfulness(self) -> None:
        """Measure insertion and deletion, drop and increase."""
        areas = {}
        for name, curve in {"insertion": insertion, "deletion": deletion}.items():
            drawn = curve(self.scene.x, self.heatmap, self.scene.score, self.asked.protocol)
            areas[name] = drawn.area
            self.found.curves[name] = [float(p) for p in drawn.scores]
        drop, gains = self._drop(masked(self.scene.x, self.heatmap))
        areas["insertion_deletion"] = areas["insertion"] - areas["deletion"]
        self.found.values |= areas | {"average_drop": drop, "increase": gains}

    def _drop(self, left: np.ndarray) -> tuple[float | None, float | None]:
        """Return drop and increase on what is left of the image; none for scores that are no probabilities."""
        pair = np.array([[self.scene.whole], self.scene.score(left[None])])
        if not (pair >= 0).all():
            return None, None
        return float(average_drop(*pair)[0]), float(increase(*pair)[0])

    def adcc(self) -> None:
        """Measure ADCC and its parts; the drop is that of `faithfulness`, where it is known."""
        values, shown = self.found.values, masked(self.scene.x, self.heatmap)
        again = self._try(shown, self.variant).heatmap
        drop = values["average_drop"] if "average_drop" in values else self._drop(shown)[0]
        terms = coherency(self.heatmap, again), complexity(self.heatmap)
        whole = None if drop is None else float(adcc(*terms, drop))
        values |= {"coherency": terms[0], "complexity": terms[1], "adcc": whole}

    def localisation(self) -> None:
        """Measure both pointing games; none where nobody knows where the object lies."""
        heatmap, region = self.heatmap, self.scene.region
        self.found.values |= {
            "pointing": None if region is None else float(pointing_game(heatmap, region, self.asked.tolerance)),
            "energy": None if region is None else energy_pointing_game(heatmap, region),
        }

    def road(self) -> None:
        """Measure ROAD."""
        curve = road(self.scene.x, self.heatmap, self.scene.score, noise=self._sigma(ROAD_NOISE))
        self.found.curves["road"] = [float(p) for p in curve.scores]
        self.found.values["road"] = curve.mean

    def _sigma(self, share: float) -> np.ndarray:
        """Return σ (3,) of noise in units of x, from its share of the range of pixel values."""
        gain, _ = pixel_gain(self.explainer.manifest.preprocess)
        return np.asarray(share * 255 * np.abs(gain))

    def stability(self) -> None:
        """Measure the mean rank correlation with heatmaps of noisy copies."""
        rng, sigma = np.random.default_rng(0), self._sigma(NOISE)[:, None, None]
        correlations = []
        for _ in range(NOISES):
            noise = rng.standard_normal(self.scene.x.shape, np.float32) * sigma
            noisy = self._try(self.scene.x + noise.astype(np.float32), self.variant)
            correlations.append(rank_correlation(self.heatmap, noisy.heatmap))
        self.found.values["stability"] = float(np.mean(correlations))

    def seeds(self) -> None:
        """Measure how far the heatmaps of several seeds agree; none where no seed matters."""
        if not self.variant.seeded:
            self.found.values["seeds"] = None
            return
        first = self.variant.settings["seed"]
        others = [self._try(self.scene.x, self.variant.with_seed(first + i)).heatmap for i in range(1, SEEDS)]
        self.found.values["seeds"] = float(agreement(np.stack([self.heatmap, *others])))


FIGURES: Mapping[str, Callable[[_Measuring], None]] = {
    "faithfulness": _Measuring.faithfulness,
    "adcc": _Measuring.adcc,
    "localisation": _Measuring.localisation,
    "road": _Measuring.road,
    "stability": _Measuring.stability,
    "seeds": _Measuring.seeds,
}
