"""A photo as the network sees it: preprocessed, with the class that is explained, and where its object lies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from camrt.case import probabilities
from camrt.errors import ImageError
from camrt.evaluate.scorer import Scorer
from camrt.evaluate.subject import Subject
from camrt.explainer import Explainer
from camrt.image import on_network, preprocess_photo
from camrt.photo import load_photo

TARGETS = ("top", "label")


@dataclass(frozen=True)
class Scene:
    """A preprocessed photo, the class that is explained, and where its object lies.

    Attributes
    ----------
    x : ndarray of shape (3, H, W), float32
    target : int
        The class that is explained.
    top : int
        The class that the network names.
    whole : float
        p of the target on x.
    region : ndarray of shape (H, W), bool, or None
    score : Scorer
    """

    x: np.ndarray
    target: int
    top: int
    whole: float
    region: np.ndarray | None
    score: Scorer


def scene_of(explainer: Explainer, subject: Subject, explained: str) -> Scene:
    """Return a photo, preprocessed, with its class and its object.

    Parameters
    ----------
    explainer : Explainer
    subject : Subject
    explained : {"top", "label"}
        Which class: that which the network names, or the photo's label where it has one.

    Raises
    ------
    ImageError
        The photo or its mask cannot be read, or the network gives no finite scores for it.
    """
    photo = load_photo(subject.path, explainer.max_pixels)
    x, where = preprocess_photo(photo.pixels, explainer.manifest.preprocess)
    logits = explainer.engine.forward(x[None])[0]
    if not np.isfinite(logits).all():
        raise ImageError(f"{subject.path}: the network's scores are not finite on this photo.")
    top = int(logits.argmax())
    target = top if explained == "top" or subject.label is None else subject.label
    region = subject.region(target, where.photo)
    seen = None if region is None else on_network(region, where)
    if seen is not None and not seen.any():  # cropped away
        seen = None
    whole = float(probabilities(logits[None], explainer.manifest.kind)[0, target])
    return Scene(x, target, top, whole, seen, Scorer(explainer, target))
