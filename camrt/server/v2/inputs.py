"""The inputs of which a request brings one: a tensor, RGB photos, or encoded ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from camrt.manifest import Manifest
from camrt.server.errors import Refusal
from camrt.server.options import Options
from camrt.server.service import Source
from camrt.server.v2.tensors import BYTES, Tensor

Shape = tuple[int, ...]  # −1 is any size


@dataclass(frozen=True)
class Input:
    """An input.

    Attributes
    ----------
    datatype : str
    shapes : callable
        manifest → the shapes that it may have; the first is what the model's metadata tell.
    """

    datatype: str
    shapes: Callable[[Manifest], tuple[Shape, ...]]


INPUTS: Mapping[str, Input] = {
    "image": Input("FP32", lambda manifest: ((-1, *manifest.image.shape[1:]),)),  # as the network takes it
    "pixels": Input("UINT8", lambda _: ((-1, -1, -1, 3),)),  # RGB photos of one size
    "photo": Input(BYTES, lambda _: ((-1,), (-1, 1))),  # JPEG, PNG, WebP, BMP, GIF or TIFF
}


def read_sources(tensor: Tensor, manifest: Manifest, options: Options) -> list[Source]:
    """Return the images of an input.

    Raises
    ------
    Refusal
        400: it is of another datatype or shape, or more than the server takes.
    """
    known = INPUTS[tensor.name]
    shapes = known.shapes(manifest)
    if tensor.datatype != known.datatype or not any(_fits(tensor.shape, shape) for shape in shapes):
        must = " or ".join(str(list(shape)) for shape in shapes)
        found = f"{tensor.datatype} of shape {list(tensor.shape)}"
        raise Refusal(400, f"The input {tensor.name} must be {known.datatype} of shape {must}, got {found}; -1 is any number.")
    if not 1 <= tensor.shape[0] <= options.max_images:
        raise Refusal(400, f"A request may bring from 1 to {options.max_images} images, got {tensor.shape[0]:,}.")
    return list(tensor.values)


def _fits(shape: Shape, pattern: Shape) -> bool:
    return len(shape) == len(pattern) and all(w in (-1, n) for n, w in zip(shape, pattern, strict=True))
