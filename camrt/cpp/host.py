"""What camrt.hpp asks of Python: pixels in the host's memory become an explanation, heatmaps become addresses.

Everything crosses as numbers, text, tuples and addresses, so that the header stays thin.  Addresses of results are valid as
long as the `Result` that gave them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from camrt.errors import CamrtError, ExplanationError, ImageError, ParameterError
from camrt.explainer import DEFAULT_METHOD, Explainer
from camrt.explainer import load as load_bundle
from camrt.explanation import Explanation
from camrt.heatmap import heatmap
from camrt.image import restore
from camrt.methods import get_method
from camrt.photo import ImageSource, Photo, check_size, load_photo

INTERFACE = 2  # of this module; a header that was written for another one is refused
CHANNELS = {"RGB8": 3, "BGR8": 3, "GRAY8": 1, "RGBA8": 4}
ADDRESSES = 1 << 63  # beyond them is no memory

Asked: TypeAlias = int | str


@dataclass(frozen=True)
class View:
    """Pixels that a host shows us: rows of `stride` bytes from `address` on.

    Attributes
    ----------
    address : int
        Of the first row; 0 is no memory.
    height, width : int
    format : {"RGB8", "BGR8", "GRAY8", "RGBA8"}
    stride : int
        Bytes from row to row; 0 where the rows follow each other.
    kept : bool
        The pixels live as long as the explanation; otherwise until `explain` returns.
    """

    address: int
    height: int
    width: int
    format: str
    stride: int
    kept: bool

    @property
    def borrowed(self) -> bool:
        """Tell whether the explanation must let go of the pixels."""
        return not self.kept and CHANNELS[self.format] == 3

    def photo(self, max_pixels: int) -> Photo:
        """Return the pixels as a photo: RGB8 and BGR8 as they lie there, GRAY8 and RGBA8 converted.

        Raises
        ------
        ImageError
            There is no memory, nothing in it, too much of it, or rows overlap.
        """
        if self.format not in CHANNELS:
            raise ImageError(f"the image: its format is none of {', '.join(CHANNELS)}.")
        check_size(self.height, self.width, "the image", max_pixels)
        if not self.address:
            raise ImageError(f"the image: {self.width} x {self.height} pixels are announced, but their pointer is null.")
        row = self.width * CHANNELS[self.format]
        stride = self.stride or row
        if stride < row:
            raise ImageError(
                f"the image: a row of {self.width} {self.format} pixels takes {row} bytes, got {stride}. Packed rows: 0."
            )
        if self.address + stride * self.height > ADDRESSES:
            raise ImageError(
                f"the image: {self.height} rows of {stride} bytes end beyond all memory. Check pointer and stride."
            )
        array = np.asarray(_Memory(self.address, (self.height, self.width, CHANNELS[self.format]), stride))
        if array.shape[2] != 3:
            return load_photo(array, max_pixels)
        return Photo(array if self.format == "RGB8" else array[..., ::-1])


class _Memory:
    """Memory in the form in which NumPy takes it without a copy."""

    def __init__(self, address: int, shape: tuple[int, int, int], stride: int):
        self.__array_interface__ = {
            "version": 3,
            "typestr": "|u1",
            "shape": shape,
            "strides": (stride, shape[2], 1),
            "data": (address, True),  # to be read only
        }


class Result:
    """An explanation whose arrays are handed out by address.

    Parameters
    ----------
    explanation : Explanation
    borrowed : bool
        The pixels belong to the host: let go of them.
    """

    def __init__(self, explanation: Explanation, borrowed: bool):
        nothing = Photo(np.empty((0, 0, 3), np.uint8), explanation.photo.name)
        self._explanation = replace(explanation, photo=nothing) if borrowed else explanation
        self._borrowed = borrowed
        self._arrays: dict[tuple[str, int], np.ndarray] = {}

    def facts(self) -> tuple[Any, ...]:
        """Return height, width, the network's height and width, targets, provider, passes, milliseconds, notes."""
        e = self._explanation
        targets = [(t.index, t.label, t.probability, t.outcome.word) for t in e.targets]
        timings = list(e.run.timings.items())
        return (*e.geometry.photo, *e.geometry.network, targets, e.run.provider, e.run.passes, timings, list(e.notes))

    def heatmap(self, target: int) -> int:
        """Return the address of a target's heatmap on the photo: (H0, W0) float32."""
        e = self._explanation
        self._check("heatmap", target)
        return self._keep("heatmap", target, restore(heatmap(e.maps[target], e.geometry.network), e.geometry))

    def network_heatmap(self, target: int) -> int:
        """Return the address of a target's heatmap over the network's input: (H, W) float32."""
        e = self._explanation
        self._check("network_heatmap", target)
        return self._keep("network", target, heatmap(e.maps[target], e.geometry.network))

    def overlay(self, target: int) -> int:
        """Return the address of the photo with a target's heatmap over it: (H0, W0, 3) uint8 RGB."""
        self._check("overlay", target)
        self._check_pixels("overlay")
        return self._keep("overlay", target, self._explanation.overlay(target))

    def json(self) -> str:
        """Return what explanation.json holds, on one line."""
        return json.dumps(self._explanation.to_json(), ensure_ascii=False)

    def save(self, folder: str, name: str) -> list[bytes]:
        """Write the files and return their paths."""
        self._check_pixels("save")
        return [os.fsencode(path) for path in self._explanation.save(Path(folder), name or None)]

    def _keep(self, kind: str, target: int, array: np.ndarray) -> int:
        """Keep an array as long as this result and return its address; of two threads' arrays the first stays."""
        kept = self._arrays.setdefault((kind, target), np.ascontiguousarray(array))
        return int(kept.__array_interface__["data"][0])

    def _check(self, what: str, target: int) -> None:
        targets = len(self._explanation.targets)
        if not 0 <= target < targets:
            raise ParameterError(f"{what}: this explanation has targets 0…{targets - 1}, got {target}.")

    def _check_pixels(self, what: str) -> None:
        if self._borrowed:
            raise ExplanationError(
                f"{what} needs the photo's pixels, and those were let go when explain returned. "
                "Give Image::keep, a shared_ptr that owns the pixels; or explain a file or encoded bytes."
            )


def load(
    bundle: str,
    providers: Sequence[str],
    max_masked_batch: int | None,
    threads: int,
    max_pixels: int | None,
    gpu_mem_limit: int | None,
    cache: bool,
) -> tuple[Explainer, str, str, int, int, list[str]]:
    """Open a bundle; return the explainer, its name, provider, input height and width, and a label for every class."""
    limits = {"max_masked_batch": max_masked_batch, "max_pixels": max_pixels, "gpu_mem_limit": gpu_mem_limit}
    given: dict[str, Any] = {name: value for name, value in limits.items() if value is not None}
    explainer = load_bundle(bundle, list(providers) or None, threads=threads, cache=cache, **given)
    explainer.engine.black_logits()  # a first pass here and not in the first call, for what it makes must outlive all calls
    explainer.engine.put(np.array(True))
    m = explainer.manifest
    return explainer, m.name, explainer.engine.provider, *m.size, [m.label(i) for i in range(m.classes)]


def explain(
    explainer: Explainer,
    sources: Sequence[View | str | bytes],
    target: Asked | None,
    targets: Sequence[Asked] | None,
    top: int | None,
    versus: Asked | None,
    method: str,
    parameters: dict[str, str],
) -> list[Result]:
    """Explain views of pixels, paths or encoded images.  An empty method is the default one."""
    method = method or DEFAULT_METHOD
    settings = get_method(method).settings(parameters)
    images: list[ImageSource] = [s.photo(explainer.max_pixels) if isinstance(s, View) else s for s in sources]
    explanations = explainer.explain(images, target=target, targets=targets, top=top, versus=versus, method=method, **settings)
    borrowed = [isinstance(s, View) and s.borrowed for s in sources]
    return [Result(e, b) for e, b in zip(explanations, borrowed, strict=True)]


def describe(error: BaseException) -> tuple[str, str]:
    """Return the name of camrt's class of an error, empty for any other error, and the text for the host."""
    if isinstance(error, CamrtError):
        known = next(cls for cls in type(error).__mro__ if cls.__module__ == CamrtError.__module__)
        return known.__name__, str(error)
    return "", f"{type(error).__name__}: {error}"
