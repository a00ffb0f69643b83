"""A photo to measure on, what it shows and where that lies."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from camrt.errors import ImageError
from camrt.files import read_regular
from camrt.metrics import box_region

OBJECT = 128  # grey level from which a pixel of a mask is the object
MAX_FILE = 1 << 30  # bytes of a photo
MAX_MASK = 256 << 20  # bytes of a mask's file

Box = tuple[float, float, float, float]  # x0, y0, x1, y1 in pixels of the photo


@dataclass(frozen=True)
class Subject:
    """A photo and what is known about it.

    Attributes
    ----------
    path : Path
    name : str
        Its path within the folder that was asked for, with "/".
    label : int or None
        The class that it shows.
    boxes : mapping of int or None to sequence of Box
        Where objects lie, (x0, y0, x1, y1) in pixels of the photo, by class; None where the boxes have no class.
    mask : Path or None
        A picture of the photo's size, white where the object is.
    """

    path: Path
    name: str
    label: int | None = None
    boxes: Mapping[int | None, Sequence[Box]] = field(default_factory=dict)
    mask: Path | None = None

    def region(self, target: int, size: tuple[int, int]) -> np.ndarray | None:
        """Return (H0, W0) bool: where an object of the class lies on the photo; None where nobody knows.

        Boxes without a class, and the mask, are those of the label.

        Raises
        ------
        ImageError
            The mask cannot be read or has another size, or no box lies on the photo.
        """
        if self.boxes.get(target):
            return self._boxed(target, size)
        if self.label not in (None, target):
            return None
        if self.mask is not None:
            return _read_mask(self.mask, size)
        return self._boxed(None, size) if self.boxes.get(None) else None

    def _boxed(self, of: int | None, size: tuple[int, int]) -> np.ndarray:
        region = box_region(self.boxes[of], size)
        if not region.any():
            raise ImageError(
                f"{self.path}: none of its boxes holds a pixel of the photo of {size[1]} x {size[0]}; the first is "
                f"{', '.join(f'{side:g}' for side in self.boxes[of][0])}. Give them in pixels of the photo as it is."
            )
        return region

    def state(self) -> str:
        """Return a hash of everything that is known about the photo, its pixels among it.

        Raises
        ------
        ImageError
            The photo or its mask cannot be read.
        """
        files = [_read_file(path) for path in (self.path, self.mask) if path is not None]
        digest = hashlib.sha256(repr((self.label, sorted(self.boxes.items(), key=repr))).encode())
        for data in files:
            digest.update(hashlib.sha256(data).digest())
        return digest.hexdigest()[:32]


def _read_file(path: Path) -> bytes:
    try:
        return read_regular(path, MAX_FILE)
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({error.strerror or error}).") from None


def _read_mask(path: Path, size: tuple[int, int]) -> np.ndarray:
    try:
        data = np.frombuffer(read_regular(path, MAX_MASK), np.uint8)
    except OSError as error:
        raise ImageError(f"{path}: the mask cannot be read ({error.strerror}).") from None
    try:
        grey = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE) if data.size else None
    except cv2.error:  # more pixels than OpenCV takes
        grey = None
    if grey is None:
        raise ImageError(f"{path} is no picture that can be decoded; a mask is a PNG, white where the object is.")
    if grey.shape != size:
        raise ImageError(
            f"{path}: a mask has the photo's size {size[1]} x {size[0]}, this has {grey.shape[1]} x {grey.shape[0]}."
        )
    if 0 < grey.max() < OBJECT:
        raise ImageError(
            f"{path}: the brightest pixel of the mask is {grey.max()} of 255, and the object is what has {OBJECT} or more. "
            "Multiply a mask of 0 and 1 by 255."
        )
    return np.asarray(grey >= OBJECT)
