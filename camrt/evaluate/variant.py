"""What is compared: a method with its parameters, or a map that looks at nothing, which every method must beat."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from camrt.errors import ParameterError, UnknownMethod, did_you_mean
from camrt.image import scaled, upsample
from camrt.methods import METHODS, SLOW, Method

WORDS = ("fast", "all")  # that stand for many methods
CELLS = 7  # a side of the random map, as of most networks' last features
UNSEEDED = ("agglomerative", "chunks")  # ways to cluster and to group that draw nothing
SPREAD = 0.25  # of the shorter side: σ of the spot in the centre

Control = Callable[[np.ndarray], np.ndarray]  # x (3, H, W) → heatmap (H, W)


def random_map(x: np.ndarray) -> np.ndarray:
    """Return 7 × 7 uniform numbers, upsampled: (3, H, W) → (H, W) in [0, 1]; the same for the same pixels."""
    cells = np.random.default_rng(zlib.crc32(x.tobytes())).random((CELLS, CELLS), np.float32)
    return scaled(upsample(cells, (x.shape[1], x.shape[2])))


def centre_map(x: np.ndarray) -> np.ndarray:
    """Return a Gaussian spot in the centre, σ a quarter of the shorter side: (3, H, W) → (H, W) in [0, 1]."""
    height, width = x.shape[1:]
    rows, columns = np.ogrid[:height, :width]
    squared = (rows - (height - 1) / 2) ** 2 + (columns - (width - 1) / 2) ** 2
    return scaled(np.exp(-squared / (2 * (SPREAD * min(height, width)) ** 2)).astype(np.float32))


CONTROLS: dict[str, Control] = {"random map": random_map, "centre map": centre_map}


@dataclass(frozen=True)
class Variant:
    """A method with its parameters, or a control.

    Attributes
    ----------
    name : str
        "grad-cam", "cluster-cam:clusters=32", "centre map".
    method : Method or None
        None for a control.
    settings : mapping
        Every parameter of the method with its value.
    """

    name: str
    method: Method | None
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def seeded(self) -> bool:
        """Tell whether another seed may give another heatmap."""
        if self.method is None or "seed" not in self.settings:
            return False
        return {self.settings.get("clustering"), self.settings.get("grouping")}.isdisjoint(UNSEEDED)

    def with_seed(self, seed: int) -> Variant:
        """Return the same under the same name, but for its seed."""
        return Variant(self.name, self.method, {**self.settings, "seed": seed})


def read_variants(text: Iterable[str], *, controls: bool = True) -> list[Variant]:
    """Return what is compared.

    Parameters
    ----------
    text : iterable of str
        Names, each with its parameters: "grad-cam", "cluster-cam:clusters=32:merge=evidence"; "all" is every method, "fast"
        every one but Score-CAM and RISE, with their defaults.
    controls : bool, default True
        Add the two maps that look at nothing.

    Raises
    ------
    UnknownMethod, ParameterError
        A name or value is not allowed, or one is there twice.
    """
    found: dict[str, Variant] = {}
    for item in map(str.strip, text):
        for variant in _read(item):
            if variant.name in found and item not in WORDS:
                raise ParameterError(f"{variant.name!r} is asked for twice. Leave out one of them.")
            found.setdefault(variant.name, variant)
    if not found:
        raise ParameterError("No method is asked for. Name some, or 'fast' for all but the slow ones.")
    chosen = list(found.values())
    return chosen + [Variant(name, None) for name in CONTROLS] if controls else chosen


def _read(item: str) -> list[Variant]:
    if item in WORDS:
        return [Variant(name, m, m.settings({})) for name, m in METHODS.items() if item == "all" or name not in SLOW]
    name, *pairs = item.split(":")
    if name not in METHODS:
        known = [*METHODS, *WORDS]
        raise UnknownMethod(f"There is no method {name!r}.{did_you_mean(name, known)} Known: {', '.join(known)}.")
    method = METHODS[name]
    return [Variant(item, method, method.settings(_parameters(item, pairs)))]


def _parameters(item: str, pairs: Sequence[str]) -> dict[str, str]:
    parameters = dict(pair.partition("=")[::2] for pair in pairs)
    if len(parameters) < len(pairs) or not all("=" in pair for pair in pairs):
        raise ParameterError(
            f"{item!r}: parameters are written NAME:PARAMETER=VALUE:…, each once, for instance cluster-cam:clusters=32."
        )
    return parameters
