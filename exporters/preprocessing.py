"""Settle a bundle's preprocessing from a preset, a description and single values."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from camrt.errors import ExportError
from camrt.files import MAX_TEXT, read_regular
from camrt.preprocess import Preprocess, from_description, imagenet, squash

PRESETS: dict[str, Callable[[tuple[int, int]], Preprocess]] = {"imagenet": imagenet}


def settle_preprocess(
    given: Preprocess | Mapping[str, Any] | str | Path | None,
    preset: str | None,
    overrides: Mapping[str, Any] | None,
    image: tuple[int, int, int],
) -> Preprocess:
    """Return the preprocessing of a network that takes images of (channels, height, width).

    Raises
    ------
    ExportError
        A value is not allowed, or does not fit the network.
    """
    channels, height, width = image
    if isinstance(given, Preprocess):
        base = given
        if base.size != (height, width) or base.channels != channels:
            raise ExportError(
                f"preprocess is for {base.channels} x {base.size}, the network takes {channels} x {(height, width)}."
            )
    elif preset is not None:
        if preset not in PRESETS:
            raise ExportError(f"There is no preset {preset!r}. Known: {', '.join(PRESETS)}.")
        if channels != 3:
            raise ExportError(f"The preset {preset!r} is for three channels, the network has {channels}.")
        base = PRESETS[preset]((height, width))
    else:
        base = squash((height, width), channels)
    if isinstance(given, str | Path):
        base = from_description(base, _read_description(Path(given)), str(given), ExportError)
    elif isinstance(given, Mapping):
        base = from_description(base, given, "preprocess", ExportError)
    if overrides:
        base = from_description(base, overrides, "the preprocessing options", ExportError)
    if given is None and preset is None and not overrides:
        warnings.warn(
            f"No preprocessing was given: photos are squashed to {width} x {height}, RGB, divided by 255. If the network was "
            "trained otherwise its answers will be worse; give --preset imagenet, --preprocess FILE or --mean and --std.",
            UserWarning,
            stacklevel=3,
        )
    return base


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
