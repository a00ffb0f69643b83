"""How well the built-in bundle names fresh scenes, and how often Cluster-CAM points at the shape it named.

    python tests/benchmarks/shapes.py [--scenes 1000]

The scenes' seeds are neither those of training nor those of its test accuracy.  Pointing game: the heatmap's maximum lies in
the pixel mask of the shape; of scenes with one shape that is named rightly, and of both classes of scenes with two.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

import camrt

sys.path.insert(0, str(Path(__file__).parents[2] / "models" / "shapes"))

FRESH_SEED = 700_000_000
SIZE = 384
TOLERANCE = 15  # pixels, the pointing game's usual one


def hits(heatmap: np.ndarray, mask: np.ndarray) -> tuple[bool, bool]:
    """Return whether the maximum lies in the mask, and whether it lies within the tolerance of it."""
    row, column = np.unravel_index(heatmap.argmax(), heatmap.shape)
    around = (slice(max(0, at - TOLERANCE), at + TOLERANCE + 1) for at in (row, column))
    return bool(mask[row, column]), bool(mask[tuple(around)].any())


def main() -> None:
    from scenes import draw

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=1000)
    options = parser.parse_args()
    explainer = camrt.load("shapes")
    right, one, two = 0, [], []
    for i in range(options.scenes):
        scene = draw(FRESH_SEED + i, SIZE)
        explanation = explainer.explain(scene.image)
        if explanation.targets[0].index == scene.labels[0]:
            right += 1
            one.append(hits(explanation.heatmap[0], scene.masks[0]))
    for i in range(options.scenes // 2):
        scene = draw(FRESH_SEED + options.scenes + i, SIZE, classes=2)
        heatmaps = explainer.explain(scene.image, targets=scene.labels).heatmap
        two += [hits(heatmap, mask) for heatmap, mask in zip(heatmaps, scene.masks, strict=True)]
    print(f"accuracy, {options.scenes} scenes with one shape: {right / options.scenes:.3f}")
    for name, found in (("one shape, named rightly", one), ("two shapes, both classes", two)):
        inside, near = np.mean(found, axis=0)
        print(f"pointing game, {name} ({len(found)}): {inside:.3f} in the mask, {near:.3f} within {TOLERANCE} pixels of it")


if __name__ == "__main__":
    main()
