"""Photos that tell something, as the network saw them, with every method's heatmap over them."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from camrt.errors import ImageError
from camrt.evaluate.finding import leading
from camrt.evaluate.metric import METRICS
from camrt.evaluate.results import MethodResult
from camrt.evaluate.shown import Shown
from camrt.evaluate.subject import Subject
from camrt.evaluate.summary import Summary
from camrt.evaluate.thumbnail import read_thumbnail
from camrt.explainer import Explainer
from camrt.image import pixel_gain, preprocess_photo, upsample
from camrt.markup import Html, joined, plain, tag, words
from camrt.photo import load_photo
from camrt.picture import SIDE, fitted, picture
from camrt.render import overlay


def gallery(summary: Summary) -> list[Html]:
    """Return a section for each photo that is shown."""
    return [_photo(summary, shown) for shown in summary.shown]


def _photo(summary: Summary, shown: Shown) -> Html:
    subject = next(s for s in summary.evaluation.subjects if s.name == shown.name)
    try:
        if subject.state() != shown.photo.state:
            raise ImageError("The photo, its mask or its label has changed since it was measured, so it is not shown.")
        window = window_of(subject, summary.evaluation.explainer)
    except ImageError as error:
        return tag("section", *_heading(summary, shown), tag("p", error, class_="missing"), class_="photo")
    tiles = [_tile(tag("b", "photo"), window, f"The photo {shown.name} as the network sees it", ())]
    tiles += [_heatmap(summary, shown.name, name, result, window) for name, result in shown.results.items()]
    return tag("section", *_heading(summary, shown), tag("div", *tiles, class_="tiles"), class_="photo")


def _heading(summary: Summary, shown: Shown) -> list[Html]:
    manifest, photo = summary.evaluation.explainer.manifest, shown.photo
    told = f"explained: {manifest.label(photo.target)}, p = {photo.probability:.3f}"
    if photo.top != photo.target:
        told += f"; the network names {manifest.label(photo.top)}"
    if photo.label is not None:
        told += f"; labelled {manifest.label(photo.label)}"
    return [tag("h3", shown.name), tag("p", tag("b", shown.why), " · ", told)]


def window_of(subject: Subject, explainer: Explainer) -> np.ndarray:
    """Return what the network sees of a photo, (h, w, 3) uint8 RGB, at most `SIDE` pixels a side; padding is as it gets it.

    Raises
    ------
    ImageError
        The photo cannot be read.
    """
    preprocess = explainer.manifest.preprocess
    x, _ = preprocess_photo(load_photo(subject.path, explainer.max_pixels).pixels, preprocess)
    gain, offset = pixel_gain(preprocess)
    planes = (x - offset[:, None, None]) / gain[:, None, None]
    if preprocess.color == "bgr":
        planes = planes[::-1]
    pixels = np.clip(np.rint(np.broadcast_to(planes, (3, *x.shape[1:]))), 0, 255).astype(np.uint8).transpose(1, 2, 0)
    size = fitted(pixels.shape, SIDE, enlarged=False)
    return np.ascontiguousarray(cv2.resize(pixels, size[::-1], interpolation=cv2.INTER_AREA))


def _heatmap(summary: Summary, photo: str, name: str, result: MethodResult, window: np.ndarray) -> Html:
    size = (window.shape[0], window.shape[1])
    if not result.degenerate:
        heatmap = np.clip(upsample(read_thumbnail(result.thumbnail), size), 0, 1)
        window = overlay(window, heatmap, np.ones(size, bool))
    return _tile(tag("b", name), window, f"Heatmap of {name} over {photo}", _said(summary, result))


def _said(summary: Summary, result: MethodResult) -> list[str]:
    """Return the figures and, where there is no heatmap, why."""
    first = leading(summary)
    said = [f"no heatmap: {words(result.outcome)}"] if result.degenerate else []
    values = {name: result.values.get(name) for name in (first, "average_drop") if name}
    return said + [f"{METRICS[name].title} {plain(value)}" for name, value in values.items() if value is not None]


def _tile(name: Html, pixels: np.ndarray, told: str, said: Sequence[str]) -> Html:
    return tag("figure", picture(pixels, told), tag("figcaption", name, *(joined(tag("br"), line) for line in said)))
