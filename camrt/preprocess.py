"""How a photo becomes the network's input: colour order, resize, crop, scale, mean and standard deviation.

x = (pixel · scale − mean) / std, per channel in the network's colour order, after resizing and centre-cropping.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from camrt.errors import BundleError, CamrtError, ParameterError
from camrt.table import Table, is_shape

COLORS = ("rgb", "bgr")
INTERPOLATIONS = ("area", "linear", "cubic")
LETTERBOX = "letterbox"

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # RGB, of pixels in [0, 1]
IMAGENET_STD = (0.229, 0.224, 0.225)
IMAGENET_MARGIN = 8 / 7  # 256 / 224: the shorter side before the centre crop, over the network's height
MAX_SIDE = 1 << 14  # pixels; no network input or resized photo is larger

Resize = int | tuple[int, int] | str


@dataclass(frozen=True)
class Preprocess:
    """The way from an RGB photo to the network's input.

    Attributes
    ----------
    size : (int, int)
        Height and width of the network's input.
    resize : int, (int, int) or "letterbox"
        An int is the length of the shorter side, then the centre H × W is cropped; a pair is the exact width and height
        (the aspect is not kept), then the centre is cropped if they are larger than the network's input; "letterbox" fits
        the whole photo inside H × W and pads with the mean colour.
    color : {"rgb", "bgr"}
        Order of the network's channels. A network with one channel sees the luma, with either.
    interpolation : {"area", "linear", "cubic"}
        "area" averages where the photo shrinks on both sides, and is linear elsewhere.
    scale : float
        Factor on pixel values 0…255.
    mean, std : tuple of float
        One per channel, in the network's channel order, applied after `scale`.
    """

    size: tuple[int, int]
    resize: Resize
    color: str = "rgb"
    interpolation: str = "area"
    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        height, width = self.size
        _check(0 < height <= MAX_SIDE and 0 < width <= MAX_SIDE, "size", f"within 1…{MAX_SIDE}", self.size)
        _check(self.color in COLORS, "color", "rgb or bgr", self.color)
        _check(self.interpolation in INTERPOLATIONS, "interpolation", "area, linear or cubic", self.interpolation)
        _check(math.isfinite(self.scale) and self.scale > 0, "scale", "a positive number", self.scale)
        _check(all(map(math.isfinite, self.mean)), "mean", "finite numbers", self.mean)
        _check(all(math.isfinite(s) and s > 0 for s in self.std), "std", "positive numbers", self.std)
        largest = float(np.finfo(np.float32).max)
        steps = [self.scale / s for s in self.std] + [abs(m) / s for m, s in zip(self.mean, self.std, strict=False)]
        _check(all(step < largest for step in steps), "scale, mean and std", "such that x is a float32", self.scale)
        _check(len(self.std) == len(self.mean), "std", f"{len(self.mean)} numbers, like mean", self.std)
        if isinstance(self.resize, str):
            _check(self.resize == LETTERBOX, "resize", "N, WxH or letterbox", self.resize)
        elif isinstance(self.resize, int):
            shorter = f"at least the network's longer side, {max(self.size)}"
            _check(max(self.size) <= self.resize <= MAX_SIDE, "resize", shorter, self.resize)
        else:
            fits = width <= self.resize[0] <= MAX_SIDE and height <= self.resize[1] <= MAX_SIDE
            _check(fits, "resize", f"at least the network's {width}x{height}", "x".join(map(str, self.resize)))

    @property
    def channels(self) -> int:
        return len(self.mean)

    def to_json(self) -> dict[str, Any]:
        """Return the `preprocess` block of bundle.json."""
        resize = self.resize if isinstance(self.resize, int | str) else f"{self.resize[0]}x{self.resize[1]}"
        return {
            "size": list(self.size),
            "resize": resize,
            "color": self.color,
            "interpolation": self.interpolation,
            "scale": self.scale,
            "mean": list(self.mean),
            "std": list(self.std),
            "layout": "NCHW",
        }

    @classmethod
    def from_json(cls, table: Table) -> Preprocess:
        """Read the `preprocess` block of bundle.json."""
        table.only("size", "resize", "color", "interpolation", "scale", "mean", "std", "layout")
        size = table.shape("size", least=1)
        if len(size) != 2:
            raise table.refuse("size", "height and width", list(size))
        channels = len(table.values["mean"]) if isinstance(table.values.get("mean"), list) else 3
        table.choice("layout", ("NCHW",))
        try:
            return cls(
                size=(size[0], size[1]),
                resize=read_resize(table.values.get("resize")),
                color=table.choice("color", COLORS),
                interpolation=table.choice("interpolation", INTERPOLATIONS),
                scale=table.number("scale"),
                mean=table.numbers("mean", channels),
                std=table.numbers("std", channels),
            )
        except ParameterError as error:
            raise BundleError(f"{table.where}: {table.prefix.rstrip('.')}: {error}") from None


def squash(size: tuple[int, int], channels: int = 3) -> Preprocess:
    """Return the preprocessing of last resort: squash to H × W, RGB, pixel / 255."""
    height, width = size
    return Preprocess(size, (width, height), mean=(0.0,) * channels, std=(1.0,) * channels)


def imagenet(size: tuple[int, int]) -> Preprocess:
    """Return the usual ImageNet evaluation: shorter side round(H · 8/7), centre crop, ImageNet mean and std."""
    return Preprocess(size, max(round(size[0] * IMAGENET_MARGIN), *size), mean=IMAGENET_MEAN, std=IMAGENET_STD)


def from_description(base: Preprocess, values: Mapping[str, Any], where: str, error: type[CamrtError]) -> Preprocess:
    """Return `base` with what a user's description overrides.

    The keys are those of bundle.json, and the ones that model collections use beside them: `channels` ("RGB" or "BGR")
    for `color`; a single number as `size`; `crop`, which must equal the network's input.
    """
    table = Table(dict(values), where, error)
    table.only("size", "resize", "crop", "color", "channels", "interpolation", "scale", "mean", "std", "layout")
    changes: dict[str, Any] = {}
    for key in ("size", "crop"):
        if key in table:
            _require_network_size(table, key, base.size)
    for key in ("color", "channels"):
        if key in table:
            changes["color"] = table.text(key).lower()
    if "layout" in table and table.text("layout").upper() != "NCHW":
        raise table.refuse("layout", "NCHW (the model's own layout is read from the model)", table.values["layout"])
    if "interpolation" in table:
        changes["interpolation"] = table.text("interpolation").lower()
    if "scale" in table:
        changes["scale"] = table.number("scale")
    for key in ("mean", "std"):
        if key in table:
            changes[key] = table.numbers(key, base.channels)
    try:
        if "resize" in table:
            changes["resize"] = read_resize(table.values["resize"])
        return replace(base, **changes)
    except ParameterError as refused:
        raise error(f"{where}: {refused}") from None


def read_resize(value: Any) -> Resize:
    """Read N, "N", "WxH", [W, H] or "letterbox".

    >>> read_resize("320x240")
    (320, 240)
    """
    if isinstance(value, str):
        if value == LETTERBOX:
            return value
        parts = value.lower().split("x")
        if all(part.isdecimal() and len(part) < 9 for part in parts) and len(parts) in (1, 2):
            return int(parts[0]) if len(parts) == 1 else (int(parts[0]), int(parts[1]))
    elif isinstance(value, int) and not isinstance(value, bool):
        return value
    elif isinstance(value, list | tuple) and len(value) == 2 and is_shape(value, least=1):
        return (value[0], value[1])
    raise ParameterError(f"resize must be N (shorter side), WxH or letterbox, got {value!r}.")


def _require_network_size(table: Table, key: str, size: tuple[int, int]) -> None:
    value = table.values[key]
    asked = (value, value) if isinstance(value, int) else tuple(value) if isinstance(value, list) else value
    if asked != size:
        raise table.refuse(key, f"the network's input, {size[0]} x {size[1]} (height x width)", value)


def _check(good: bool, name: str, must: str, found: Any) -> None:
    if not good:
        raise ParameterError(f"{name} must be {must}, got {found}.")
