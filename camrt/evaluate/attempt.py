"""An attempt at a heatmap of one preprocessed image: what came of it, and what it cost."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from camrt.answer import signed_maps
from camrt.case import Case
from camrt.evaluate.variant import CONTROLS, Variant
from camrt.explainer import Explainer
from camrt.heatmap import Outcome, heatmap
from camrt.question import check_gradients

FAILED = "failed"  # beside the words of Outcome: the method itself broke off


@dataclass(frozen=True)
class Attempt:
    """A heatmap and what it cost.

    Attributes
    ----------
    heatmap : ndarray of shape (H, W), float32 in [0, 1]
        Zeros where the outcome is not "ok".
    outcome : str
        A word of `camrt.heatmap.Outcome`, or "failed".
    passes, tail_passes, backward_passes : int
    ms : float
        Milliseconds of the explanation, decoding and preprocessing apart.
    notes : tuple of str
        Those of the explanation; the error's text where it failed.
    """

    heatmap: np.ndarray
    outcome: str
    passes: int = 0
    tail_passes: int = 0
    backward_passes: int = 0
    ms: float = 0.0
    notes: tuple[str, ...] = ()


def attempt(explainer: Explainer, x: np.ndarray, variant: Variant, target: int) -> Attempt:
    """Return the heatmap of a class.

    Parameters
    ----------
    x : ndarray of shape (3, H, W), float32
        Preprocessed.
    variant : Variant
    target : int

    Raises
    ------
    MethodUnavailable, ParameterError, DeviceMemoryError, BundleError
        As `Explainer.explain`.
    """
    if variant.method is None:
        return Attempt(CONTROLS[variant.name](x), Outcome.OK.word)
    check_gradients(explainer.manifest, variant.method)
    started = time.perf_counter()
    case = Case(explainer.engine, x[None])
    case.targets = np.array([[target]])
    signed, codes = signed_maps(case, variant.method, variant.settings)
    ms = (time.perf_counter() - started) * 1e3
    return Attempt(
        heatmap(signed[0, 0], case.size), Outcome(int(codes[0, 0])).word, case.passes, case.tail_passes,
        case.backward_passes, ms, tuple(case.notes[0]),
    )  # fmt: skip
