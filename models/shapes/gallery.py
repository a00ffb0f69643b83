"""Draw README's pictures from the sample scenes and the bundle beside this file.

python models/shapes/gallery.py
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

import camrt
from camrt.sheet import attempt_all, contact_sheet

FOLDER = Path(__file__).parent
WIDTH = 1260  # pixels
CAPTION, GAP = 26, 6


def tile(pixels: np.ndarray, text: str, side: int) -> np.ndarray:
    """Return an RGB picture `side` wide on white, with a caption below it."""
    out = np.full((side + CAPTION, side, 3), 255, np.uint8)
    out[: side - GAP, : side - GAP] = cv2.resize(pixels, (side - GAP, side - GAP), interpolation=cv2.INTER_AREA)
    cv2.putText(out, text, (2, side + 12), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (40, 40, 40), 1, cv2.LINE_AA)
    return out


def row(explainer: camrt.Explainer, names: list[str]) -> np.ndarray:
    """Return scenes side by side, each followed by the overlays of the classes in its name."""
    tiles = []
    side = WIDTH // sum(1 + len(name.split("_")) for name in names)
    for name in names:
        explanation = explainer.explain(FOLDER / "samples" / f"{name}.png", targets=name.split("_"))
        tiles.append(tile(explanation.photo.pixels, "scene", side))
        for i, target in enumerate(explanation.targets):
            tiles.append(tile(explanation.overlay(i), f"{target.name} {target.probability:.2f}", side))
    strip = np.concatenate(tiles, axis=1)
    return np.pad(strip, ((0, 0), (0, WIDTH - strip.shape[1]), (0, 0)), constant_values=255)


def main() -> None:
    explainer = camrt.load(FOLDER, providers=["cpu"])
    rows = [row(explainer, ["heart", "star", "circle"]), row(explainer, ["star_ring", "circle_triangle", "square_cross"])]
    cv2.imwrite(str(FOLDER / "gallery.png"), np.concatenate(rows)[..., ::-1])
    photo = camrt.load_photo(FOLDER / "samples" / "star_ring.png")
    for _ in range(2):  # the first round warms up
        attempts = attempt_all(explainer, photo, target="star")
    cv2.imwrite(str(FOLDER / "methods.jpg"), contact_sheet(attempts)[..., ::-1])


if __name__ == "__main__":
    main()
