"""A contact sheet: one photo, every method, side by side, with what each of them cost."""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from camrt.errors import MethodUnavailable
from camrt.explainer import Explainer
from camrt.explanation import Explanation
from camrt.heatmap import Outcome
from camrt.methods import METHODS
from camrt.photo import Photo

COLUMNS = 5
SIDE = 240  # pixels: width of a tile, and the most that its picture may be high
GAP, LINE = 8, 17  # pixels between tiles, and from one line of text to the next
INK, FAINT, PAPER = (30, 30, 30), (110, 110, 110), 255
FONT, SIZE = cv2.FONT_HERSHEY_SIMPLEX, 0.45


@dataclass(frozen=True)
class Attempt:
    """What became of one method: its explanation, or why there is none."""

    method: str
    explanation: Explanation | None
    reason: str = ""


def attempt_all(
    explainer: Explainer,
    photo: Photo,
    *,
    methods: Iterable[str] = METHODS,
    step: Callable[[], None] = lambda: None,
    **options: Any,
) -> list[Attempt]:
    """Explain a photo by every method.

    Parameters
    ----------
    methods : sequence of str
        By default all.
    step : callable, optional
        Called after each.
    **options
        As `Explainer.explain` takes them: target, targets, top, versus.

    Returns
    -------
    list of Attempt
        One a method; errors other than MethodUnavailable are raised.
    """
    explainer.engine.sessions.open_all()  # so that no method pays for opening what the next ones use too
    attempts = []
    for name in methods:
        try:
            attempts.append(Attempt(name, explainer.explain(photo, method=name, **options)))
        except MethodUnavailable as error:
            attempts.append(Attempt(name, None, str(error)))
        step()
    return attempts


def contact_sheet(attempts: list[Attempt], *, alpha: float = 0.5, colormap: str = "turbo") -> np.ndarray:
    """Return the overlays of all methods as one picture, (height, width, 3) uint8 RGB: a block a target, the photo first.

    Parameters
    ----------
    attempts : list of Attempt
        Of one photo, at least one with an explanation.
    alpha, colormap
        As `Explanation.overlay` takes them.

    Raises
    ------
    MethodUnavailable
        There is no explanation among the attempts.
    """
    first = next((a.explanation for a in attempts if a.explanation is not None), None)
    if first is None:
        raise MethodUnavailable(" ".join(a.reason for a in attempts) or "There is no method to show.")
    blocks = []
    for i, target in enumerate(first.targets):
        tiles = [_tile(first.photo.pixels, target.title, f"p = {target.probability:.3f}")]
        for attempt in attempts:
            if attempt.explanation is None:
                tiles.append(_empty_tile(tiles[0].shape[0], attempt))
                continue
            outcome = attempt.explanation.targets[i].outcome
            failed = "" if outcome is Outcome.OK else f"  {outcome.word}"
            picture = attempt.explanation.overlay(i, alpha=alpha, colormap=colormap)
            tiles.append(_tile(picture, attempt.method + failed, attempt.explanation.run.cost))
        blocks.append(_grid(tiles))
    return np.concatenate(blocks)


def _tile(picture: np.ndarray, *lines: str) -> np.ndarray:
    """Return a picture, shrunk or grown to the tile, over its lines of text."""
    ratio = min(SIDE / picture.shape[1], SIDE / picture.shape[0])
    height, width = (max(1, round(side * ratio)) for side in picture.shape[:2])
    way = cv2.INTER_AREA if ratio < 1 else cv2.INTER_LINEAR
    tile = np.full((height + LINE * len(lines) + GAP, SIDE + GAP, 3), PAPER, np.uint8)
    left = (SIDE - width) // 2
    tile[:height, left : left + width] = cv2.resize(np.ascontiguousarray(picture), (width, height), interpolation=way)
    for i, line in enumerate(lines):
        _write(tile, line, height + LINE * (i + 1) - 3, FAINT if i else INK)
    return tile


def _empty_tile(height: int, attempt: Attempt) -> np.ndarray:
    """Return a tile that says why there is no picture."""
    tile = np.full((height, SIDE + GAP, 3), PAPER, np.uint8)
    tile[: height - 2 * LINE - GAP, :SIDE] = 235
    rows = (height - 3 * LINE - GAP) // LINE
    for i, line in enumerate(textwrap.wrap(attempt.reason, 34, max_lines=max(1, rows), placeholder=" ...")):
        _write(tile, line, LINE * (i + 1), FAINT)
    _write(tile, attempt.method, height - GAP - LINE - 3, INK)
    _write(tile, "not available", height - GAP - 3, FAINT)
    return tile


def _write(picture: np.ndarray, text: str, baseline: int, color: tuple[int, int, int]) -> None:
    """Write a line that fits; OpenCV's fonts have ASCII alone, so accents fall away and other letters become question marks."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "replace").decode()
    plain = "".join(c for c in plain if c.isprintable())
    size = SIZE
    while size > 0.3 and cv2.getTextSize(plain, FONT, size, 1)[0][0] > SIDE:
        size -= 0.02
    cv2.putText(picture, plain, (0, baseline), FONT, size, color, 1, cv2.LINE_AA)


def _grid(tiles: list[np.ndarray]) -> np.ndarray:
    """Return tiles of one height in rows."""
    blank = np.full_like(tiles[0], PAPER)
    padded = tiles + [blank] * (-len(tiles) % COLUMNS)
    rows = [np.concatenate(padded[i : i + COLUMNS], axis=1) for i in range(0, len(padded), COLUMNS)]
    return np.concatenate(rows)
