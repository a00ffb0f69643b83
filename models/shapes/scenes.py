"""Draw the scenes on which the default bundle is trained: one or two named
shapes among clutter and look-alikes, with their masks.

A scene is drawn in unit coordinates, so the same seed gives the same picture at any size.  This writes the sample scenes:

    python models/shapes/scenes.py --out models/shapes/samples

Nothing in a scene tells the class but the outline of the named shape: its texture, colours, place, size and angle are
drawn from the same distributions for every class and for the distractors, which are outlines of no class.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

Outline = np.ndarray  # (P, 2) float32, x right and y down, within the unit circle

SAMPLES = ((910_000_002, 1), (910_000_009, 1), (910_000_003, 1), (920_000_001, 2), (920_000_030, 2), (920_000_003, 2))
CLASSES = ("circle", "square", "triangle", "star", "cross", "ring", "heart", "arrow")


@dataclass(frozen=True)
class Scene:
    """image : (S, S, 3) uint8 RGB; labels : class indices, drawn in this order; masks : (len(labels), S, S) bool."""

    image: np.ndarray
    labels: tuple[int, ...]
    masks: np.ndarray


# --- outlines -------------------------------------------------------------------------------------------------------
def polar(radius: np.ndarray) -> Outline:
    """Return the closed outline with these radii at equal angles."""
    angle = np.linspace(0, 2 * np.pi, len(radius), endpoint=False) - np.pi / 2
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).astype(np.float32)


def heart() -> Outline:
    t = np.linspace(0, 2 * np.pi, 80, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    return np.stack([x / 17, y / 17], axis=1).astype(np.float32)


def outline(name: str) -> Outline:
    """Return the outer outline of a class; a ring is a circle with a hole."""
    a, b = 0.34, 0.94
    corners = {
        "cross": [(-a, -b), (a, -b), (a, -a), (b, -a), (b, a), (a, a), (a, b), (-a, b), (-a, a), (-b, a), (-b, -a), (-a, -a)],
        "arrow": [(0, -1), (0.8, 0), (0.32, 0), (0.32, 0.95), (-0.32, 0.95), (-0.32, 0), (-0.8, 0)],
    }
    if name in corners:
        return np.array(corners[name], np.float32)
    if name == "heart":
        return heart()
    radii = {
        "circle": np.full(64, 0.92),
        "ring": np.full(64, 0.96),
        "square": np.ones(4),
        "triangle": np.ones(3),
        "star": np.tile([1.0, 0.42], 5),
    }
    return polar(radii[name])


def blob(rng: np.random.Generator) -> Outline:
    """Return a smooth outline of no class: a few low harmonics."""
    t = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    radius = np.full(72, 0.72)
    for order in (2, 3, 5):
        radius += rng.uniform(0.05, 0.17) * np.sin(order * t + rng.uniform(0, 2 * np.pi))
    return polar(radius)


def crescent(rng: np.random.Generator) -> Outline:
    """Return a sickle: an arc out, a flatter arc back."""
    t = np.linspace(0.15 * np.pi, 1.85 * np.pi, 40)
    inner = rng.uniform(0.55, 0.7)
    outer_arc = np.stack([np.cos(t), np.sin(t)], axis=1)
    inner_arc = np.stack([inner * np.cos(t) + 0.38, inner * np.sin(t)], axis=1)[::-1]
    return (0.92 * np.concatenate([outer_arc, inner_arc])).astype(np.float32)


def shard(rng: np.random.Generator) -> Outline:
    """Return an irregular five- to seven-cornered splinter."""
    corners = int(rng.integers(5, 8))
    angle = np.sort(rng.uniform(0, 2 * np.pi, corners))
    radius = rng.uniform(0.45, 1.0, corners)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).astype(np.float32)


DISTRACTORS: tuple[Callable[[np.random.Generator], Outline], ...] = (blob, crescent, shard)


# --- painting -------------------------------------------------------------------------------------------------------
def fill(points: np.ndarray, size: int) -> np.ndarray:
    """Return the filled polygon, (S, S) float32 coverage in [0, 1]; `points` are in unit coordinates."""
    canvas = np.zeros((size, size), np.uint8)
    cv2.fillPoly(canvas, [np.round(points * size * 16).astype(np.int32)], 255, cv2.LINE_AA, shift=4)
    return canvas.astype(np.float32) / 255


def texture(rng: np.random.Generator, size: int, rows: slice, columns: slice) -> np.ndarray:
    """Return float32 (rows, columns, 3) of a canvas S wide: two colours, plain, striped, chequered or dotted."""
    first, second = rng.uniform(0, 255, (2, 3)).astype(np.float32)
    kind, angle = rng.integers(4), rng.uniform(0, np.pi)
    pitch, phase = rng.uniform(0.05, 0.11), rng.uniform(0, 1, 2)
    y, x = np.mgrid[rows, columns].astype(np.float32) / size
    u = (x * np.cos(angle) + y * np.sin(angle)) / pitch + phase[0]
    v = (y * np.cos(angle) - x * np.sin(angle)) / pitch + phase[1]
    pattern = (
        np.zeros_like(u),
        (u % 1 < 0.5).astype(np.float32),
        ((u % 1 < 0.5) ^ (v % 1 < 0.5)).astype(np.float32),
        (np.hypot(u % 1 - 0.5, v % 1 - 0.5) < 0.3).astype(np.float32),
    )[kind]
    return first + (second - first) * pattern[..., None]


def background(rng: np.random.Generator, size: int) -> np.ndarray:
    """Return (S, S, 3) float32: a smooth patchwork of a few colours with grain."""
    coarse = rng.uniform(40, 215, (4, 4, 3)).astype(np.float32)
    image = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
    grain = rng.normal(0, rng.uniform(2, 12), (48, 48, 1)).astype(np.float32)
    return image + cv2.resize(grain, (size, size), interpolation=cv2.INTER_LINEAR)[..., None]


def clutter(rng: np.random.Generator, image: np.ndarray) -> None:
    """Draw strokes and arcs of random colour over the image, in place."""
    size = len(image)
    for _ in range(rng.integers(4, 11)):
        colour = rng.uniform(0, 255, 3).tolist()
        width = max(1, round(rng.uniform(0.006, 0.02) * size))
        start, end = rng.uniform(0, size, (2, 2)).astype(int)
        if rng.uniform() < 0.5:
            cv2.line(image, start.tolist(), end.tolist(), colour, width, cv2.LINE_AA)
        else:
            axes = (rng.uniform(0.05, 0.25, 2) * size).astype(int).tolist()
            sweep = rng.uniform(0, 360, 2)
            cv2.ellipse(image, start.tolist(), axes, sweep[0], 0, 60 + sweep[1] / 3, colour, width, cv2.LINE_AA)


def place(rng: np.random.Generator, points: Outline, centre: np.ndarray, radius: float) -> np.ndarray:
    """Return the outline turned by a random angle, at `centre`, of this radius."""
    angle = rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]], np.float32)
    return points @ turn.T * radius + centre


def positions(rng: np.random.Generator, count: int) -> list[tuple[np.ndarray, float]]:
    """Return up to `count` (centre, radius), that do not overlap."""
    placed: list[tuple[np.ndarray, float]] = []
    for attempt in range(200):
        if len(placed) == count:
            break
        radius = rng.uniform(0.11, 0.2) * (1 - attempt / 400)
        centre = rng.uniform(radius + 0.01, 0.99 - radius, 2)
        if all(np.hypot(*(centre - other)) > radius + other_radius + 0.01 for other, other_radius in placed):
            placed.append((centre, radius))
    rng.shuffle(placed)
    return placed


def draw(seed: int, size: int = 384, classes: int = 1) -> Scene:
    """Return the scene of this seed.

    Parameters
    ----------
    seed : int
        Names the scene.
    size : int
        Height and width in pixels.
    classes : int
        How many named shapes stand in it, all of different classes; three to five distractors stand beside them.
    """
    rng = np.random.default_rng(seed)
    image = background(rng, size)
    labels = tuple(int(i) for i in rng.permutation(len(CLASSES))[:classes])
    spots = positions(rng, classes + int(rng.integers(3, 6)))
    masks = np.zeros((classes, size, size), bool)
    for order, (centre, radius) in enumerate(spots):
        if order < classes:
            points = outline(CLASSES[labels[order]])
        else:
            points = DISTRACTORS[rng.integers(len(DISTRACTORS))](rng)
        placed = place(rng, points, centre, radius)
        cover = fill(placed, size)
        if order < classes and CLASSES[labels[order]] == "ring":
            cover -= fill((placed - centre) * 0.55 + centre, size)
        if order < classes:
            masks[order] = cover > 0.5
        left, top = np.maximum(np.floor(placed.min(axis=0) * size).astype(int) - 1, 0)
        right, bottom = np.ceil(placed.max(axis=0) * size).astype(int) + 2
        rows, columns = slice(top, min(bottom, size)), slice(left, min(right, size))
        patch = image[rows, columns]
        patch += cover[rows, columns, None] * (texture(rng, size, rows, columns) - patch)
    clutter(rng, image)
    return Scene(np.clip(image, 0, 255).astype(np.uint8), labels, masks)


def main() -> None:
    import argparse

    parser = argparse.ArgumentParser(description="Write the sample scenes as PNG files named after what stands in them.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", type=int, default=384)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for seed, classes in SAMPLES:
        scene = draw(seed, options.size, classes)
        names = "_".join(CLASSES[label] for label in scene.labels)
        cv2.imwrite(str(options.out / f"{names}.png"), scene.image[..., ::-1])


if __name__ == "__main__":
    main()
