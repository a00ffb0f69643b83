"""Settle a bundle's preprocessing from a preset, a description and single values."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from camrt.errors import ExportError, ParameterError
from camrt.files import MAX_TEXT, read_regular
from camrt.preprocess import Preprocess, from_description, imagenet, squash
from exporters.border import Border

VALUES = {"scale", "mean", "std"}
LARGEST_UNIT_MEAN = 1.5  # of pixels in [0, 1], with room for those that are centred by other means
PRESETS: dict[str, Callable[[tuple[int, int]], Preprocess]] = {"imagenet": imagenet}


def settle_preprocess(
    given: Preprocess | Mapping[str, Any] | str | Path | None,
    preset: str | None,
    overrides: Mapping[str, Any] | None,
    image: tuple[int, int, int],
    border: Border,
) -> Preprocess:
    """Return the preprocessing of a network that takes images of (channels, height, width).

    What is asked for is meant for the source's own input; what the source itself does to its pixels is added from `border`.

    Raises
    ------
    ExportError
        A value is not allowed, or does not fit the network.
    """
    start = given if isinstance(given, Preprocess) else None
    base = own = _start(start, preset, image, border)
    described: dict[str, Any] = {}
    for values, where in ((given, "preprocess"), (overrides, "the preprocessing options")):
        if isinstance(values, str | Path):
            values, where = _read_description(Path(values)), str(values)
        if isinstance(values, Mapping) and values:
            base = from_description(base, values, where, ExportError)
            described |= values
    _check_scale(base, described)
    known = start is not None or preset is not None or VALUES.intersection(described)
    if not known and not (described and border.takes_pixels):
        warnings.warn(_assumed(base, border, described), UserWarning, stacklevel=3)
    if border.takes_pixels and (base.scale, base.mean, base.std) != (own.scale, own.mean, own.std):
        warnings.warn(_twice(base), UserWarning, stacklevel=3)
    return border.through(base)


def _start(given: Preprocess | None, preset: str | None, image: tuple[int, int, int], border: Border) -> Preprocess:
    """Return what descriptions start from: an object, a preset, or that photos are squashed."""
    channels, height, width = image
    if given is not None:
        if given.size != (height, width) or given.channels != channels:
            raise ExportError(
                f"preprocess is for {given.channels} x {given.size}, the network takes {channels} x {(height, width)}. "
                "Give one of the network's size."
            )
        return given
    if preset is None:
        return border.default(_sized(squash, (height, width), channels))
    if preset not in PRESETS:
        raise ExportError(f"There is no preset {preset!r}. Known: {', '.join(PRESETS)}.")
    if channels != 3:
        raise ExportError(
            f"The preset {preset!r} is for three channels, the network has {channels}. Give --preprocess FILE, or --mean and "
            "--std."
        )
    base = _sized(PRESETS[preset], (height, width))
    if not border.takes_pixels:
        return base
    # It scales its pixels itself; a mean taken off twice is never meant.
    told = f"The model scales its pixels itself: of the preset {preset!r} only resize and crop are taken."
    warnings.warn(told, UserWarning, stacklevel=4)
    return border.default(replace(base, scale=1 / 255, mean=(0.0,) * channels, std=(1.0,) * channels))


def _check_scale(base: Preprocess, described: Mapping[str, Any]) -> None:
    """Refuse a mean of pixels of 0…255 for pixels in [0, 1]."""
    if "mean" in described and "scale" not in described and base.scale < 1 and max(base.mean) > LARGEST_UNIT_MEAN:
        raise ExportError(
            f"The mean {max(base.mean):g} is one of pixels of 0…255, but they are divided by 255 where no scale is given. Give "
            "--scale 1 with it, or mean and std of pixels in [0, 1]."
        )


def _twice(base: Preprocess) -> str:
    """Say that what was given comes on top of what the model does itself."""
    values = f"scale {base.scale:.6g}, mean {base.mean}, std {base.std}"
    return (
        f"The model scales its pixels itself; what was given, {values}, comes before that. If it is meant to be the model's "
        "own, leave it out: --resize and --crop are enough."
    )


def _assumed(base: Preprocess, border: Border, described: Mapping[str, Any]) -> str:
    """Say what is done to photos of which nothing was said, or nothing of their values."""
    height, width = base.size
    worse = "If the network was trained otherwise its answers will be worse; give"
    if described:
        return (
            "No scale, mean or std was given, and none is found in the model: pixels are divided by 255. "
            f"{worse} --scale, --mean and --std, or --preset imagenet."
        )
    squashed = f"No preprocessing was given: photos are squashed to {width} x {height}{', RGB' if base.channels == 3 else ''}"
    if border.takes_pixels:
        values = "[0, 1]" if base.scale != 1 else "-128…127" if any(base.mean) else "0…255"
        scaled = f"and the model is given pixels of {values}, which it scales itself"
        return f"{squashed}, {scaled}. {worse} --resize, --color, --scale or --preprocess FILE."
    return f"{squashed}, divided by 255. {worse} --preset imagenet, --preprocess FILE or --mean and --std."


def _sized(make: Callable[..., Preprocess], *given: Any) -> Preprocess:
    try:
        return make(*given)
    except ParameterError as error:
        raise ExportError(f"The network takes images that cannot be prepared: {error}") from None


def _read_description(path: Path) -> Mapping[str, Any]:
    try:
        values = json.loads(read_regular(path, MAX_TEXT))
    except OSError as error:
        raise ExportError(f"{path}: cannot be read ({error.strerror}).") from None
    except (ValueError, RecursionError) as error:
        raise ExportError(f"{path} is not JSON ({error}).") from None
    values = values.get("preprocess", values) if isinstance(values, dict) else values
    if not isinstance(values, dict):
        raise ExportError(f"{path}: the preprocessing must be an object, got {type(values).__name__}.")
    return values
