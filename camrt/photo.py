"""Decode a photo: a path, encoded bytes or an array becomes (H, W, 3) uint8 RGB, upright, with its name."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from camrt.errors import ImageError, one_line
from camrt.files import read_regular
from camrt.header import Header, read_header

ENDINGS = frozenset({"jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff"})  # of the files that are decoded
MAX_PIXELS = 100_000_000  # a 100-megapixel photo decodes to 300 MB
MAX_BYTES = 1 << 30  # of an encoded photo
PLAIN_MODES = ("1", "L", "RGB", "RGBA", "I;16")  # of PIL images whose arrays are what they look like

ImageSource = str | os.PathLike[str] | bytes | bytearray | memoryview | np.ndarray | Any


@dataclass(frozen=True)
class Photo:
    """A decoded photo.

    Attributes
    ----------
    pixels : ndarray of shape (H, W, 3), uint8 RGB
    name : str
        File name without its ending; "image" for bytes and arrays.
    source : str or None
        The path it was read from.
    """

    pixels: np.ndarray
    name: str = "image"
    source: str | None = None

    def __repr__(self) -> str:
        return f"Photo({self.name!r}, {self.pixels.shape[0]} x {self.pixels.shape[1]})"


def load_photo(source: ImageSource, max_pixels: int = MAX_PIXELS) -> Photo:
    """Return the photo that `source` holds.

    Parameters
    ----------
    source : path, bytes or array
        JPEG, PNG, WebP, BMP, GIF or TIFF as a file or as bytes: greyscale, CMYK, palette and 16-bit images become 8-bit
        RGB, the transparency of PNG and WebP is laid on white, an EXIF orientation is applied, an animation gives its
        first frame.
        Or an RGB array (anything with `__array_interface__`, a PIL image too): (H, W), (H, W, 1), (H, W, 3) or
        (H, W, 4), uint8, uint16, or float in [0, 1].
        Or a function without arguments that returns one of these, called when the photo's turn comes; an ImageError that it
        raises is this photo's alone.
    max_pixels : int
        Height × width above which nothing is decoded.

    Raises
    ------
    ImageError
        It is missing, empty, damaged, too large or of no supported kind.
    """
    if callable(source):
        source = source()
    if isinstance(source, Photo):
        return source
    if isinstance(source, str | os.PathLike):
        path = Path(os.fsdecode(source))
        return Photo(_decode(_read(path), str(path), max_pixels), path.stem, str(path))
    if isinstance(source, bytes | bytearray | memoryview):
        return Photo(_decode(bytes(source), "the image", max_pixels))
    return Photo(_from_array(_as_array(source), max_pixels))


def hold_photo(source: ImageSource, max_pixels: int = MAX_PIXELS) -> ImageSource:
    """Return what may be decoded later, whatever the caller does with its buffers until then."""
    return source if isinstance(source, str | os.PathLike | bytes) or callable(source) else load_photo(source, max_pixels)


def _as_array(source: Any) -> np.ndarray:
    """Return the array of anything that has one, of a PIL image in plain colours."""
    try:
        if not (hasattr(source, "__array_interface__") or hasattr(source, "__array__")):
            raise ImageError(f"An image must be a path, encoded bytes or an array, got {type(source).__name__}.")
        mode = getattr(source, "mode", None)
        if isinstance(mode, str) and mode not in PLAIN_MODES:  # a PIL image with a palette, CMYK, …
            source = source.convert("RGBA" if mode in ("LA", "PA", "P") else "RGB")
        return np.asarray(source)
    except ImageError:
        raise
    except Exception as error:  # a PIL image reads its file only now; a tensor may be on a GPU or want its gradient
        raise ImageError(f"The image, a {type(source).__name__}, cannot be read as an array: {one_line(error)}") from None


def _read(path: Path) -> bytes:
    try:
        return read_regular(path, MAX_BYTES)
    except FileNotFoundError:
        raise ImageError(f"{path}: there is no such file.") from None
    except IsADirectoryError:
        raise ImageError(f"{path} is a folder. Name its images, for instance {path}/*.jpg.") from None
    except (OSError, ValueError) as error:
        raise ImageError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error}).") from None


def _decode(data: bytes, name: str, max_pixels: int) -> np.ndarray:
    if not data:
        raise ImageError(f"{name}: the file is empty.")
    header = read_header(data, name)
    check_size(header.height, header.width, name, max_pixels)
    encoded = np.frombuffer(data, np.uint8)
    try:
        pixels: np.ndarray | None = cv2.imdecode(encoded, cv2.IMREAD_COLOR_RGB)
        if pixels is not None and header.alpha:
            pixels = _on_white(pixels, encoded)
    except cv2.error as error:
        raise ImageError(f"{name}: the {header.format} decoder refused it ({error.err}).") from None
    if pixels is None:
        raise ImageError(f"{name}: this {header.format} is damaged or cut short ({len(data)} bytes). Copy it again.")
    _check_decoded(header, pixels, name)
    return pixels


def check_size(height: int, width: int, name: str, max_pixels: int) -> None:
    """Raise ImageError where an image is empty or larger than `max_pixels`."""
    if height <= 0 or width <= 0:
        raise ImageError(f"{name}: an image of {width} x {height} pixels has nothing to look at.")
    if height * width > max_pixels:
        raise ImageError(
            f"{name}: {width} x {height} pixels are more than the limit of {max_pixels:,}. "
            "Shrink the image or raise the limit (max_pixels, --max-pixels)."
        )


def _check_decoded(header: Header, pixels: np.ndarray, name: str) -> None:
    if sorted(pixels.shape[:2]) != sorted((header.height, header.width)):  # an EXIF rotation swaps the two
        found = f"{pixels.shape[1]} x {pixels.shape[0]}"
        raise ImageError(f"{name}: the header says {header.width} x {header.height}, the decoder found {found}.")


def _on_white(pixels: np.ndarray, encoded: np.ndarray) -> np.ndarray:
    """Lay transparent pixels on white.  The decoder turns colours upright by EXIF, but not alpha, so alpha follows them."""
    unchanged = cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED)
    if unchanged is None or unchanged.ndim != 3 or unchanged.shape[2] != 4:
        return pixels
    as_stored = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION))
    alpha = unchanged[..., 3:].astype(np.float32) / (255 if unchanged.dtype == np.uint8 else 65535)
    turn = next((t for t in _ORIENTATIONS if np.array_equal(t(as_stored), pixels)), _ORIENTATIONS[0])
    return _blend_on_white(pixels, turn(alpha))


_ORIENTATIONS: tuple[Callable[[np.ndarray], np.ndarray], ...] = (
    lambda a: a,
    np.fliplr,
    lambda a: np.rot90(a, 2),
    np.flipud,
    lambda a: a.transpose(1, 0, 2),
    lambda a: np.rot90(a, 3),
    lambda a: np.rot90(a.transpose(1, 0, 2), 2),
    np.rot90,
)  # EXIF 1 to 8


def _blend_on_white(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    return np.asarray(np.rint(pixels * alpha + 255 * (1 - alpha)), np.uint8)


def _from_array(array: np.ndarray, max_pixels: int) -> np.ndarray:
    name = f"an array of shape {array.shape}"
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4):
        raise ImageError(f"{name}: an image must be (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), channels last.")
    check_size(array.shape[0], array.shape[1], name, max_pixels)
    pixels = _to_uint8(array, name)
    if pixels.shape[2] == 1:
        return np.repeat(pixels, 3, axis=2)
    if pixels.shape[2] == 4:
        return _blend_on_white(pixels[..., :3], pixels[..., 3:].astype(np.float32) / 255)
    return np.array(pixels, order="C")  # a copy: the caller may use the buffer again


def _to_uint8(array: np.ndarray, name: str) -> np.ndarray:
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind == "u" and array.dtype.itemsize == 2:
        return (array >> 8).astype(np.uint8)  # what the PNG and TIFF decoders do
    if array.dtype == bool:
        return array.astype(np.uint8) * 255
    if np.issubdtype(array.dtype, np.floating):
        if not np.isfinite(array).all():
            raise ImageError(f"{name} holds NaN or infinity.")
        if array.min() < 0 or array.max() > 1 + 1e-6:
            found = f"{array.min():.4g}…{array.max():.4g}"
            raise ImageError(f"{name}: floating-point pixels must lie in [0, 1], got {found}. Divide by 255?")
        return np.asarray(np.rint(np.minimum(array, 1) * 255), np.uint8)
    raise ImageError(f"{name}: pixels must be uint8, uint16 or float in [0, 1], got {array.dtype}.")
