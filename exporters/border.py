"""What lies between the network's image in normal form and the input that its source takes: layout, element type, colours.

image = gain · source + offset, per channel; the source may want channels last, and whole numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from camrt.preprocess import Preprocess

FLOAT32 = np.dtype(np.float32)
FLOAT32_EPSILON = float(np.finfo(np.float32).eps)
BRIGHTEST = 1.0  # of pixels in [0, 1]: a mean beyond it, or a gain below it by far, is meant for pixels of 0…255
SMALLEST_UNIT_GAIN = 0.1
LARGEST_UNIT = 16.0  # a source that lets numbers beyond it through takes pixels of 0…255, normalised ones are far below


@dataclass(frozen=True)
class Border:
    """How a source's input differs from image (N, C, H, W), float32.

    Attributes
    ----------
    channels_last : bool
        The source takes (N, H, W, C).
    dtype : dtype
        The source's element type.
    gain, offset : tuple of float
        One per channel: what the source did to its input first, and the bundle's preprocessing does instead.
    reach : float
        The largest number that the source's first operator, which clips or rounds, tells apart; 0 where none does.
    """

    channels_last: bool = False
    dtype: np.dtype = FLOAT32
    gain: tuple[float, ...] = ()
    offset: tuple[float, ...] = ()
    reach: float = 0.0

    @property
    def whole(self) -> bool:
        """Whether the source takes whole numbers."""
        return np.issubdtype(self.dtype, np.integer)

    @property
    def lifted(self) -> bool:
        """Whether the source scaled or shifted its input itself."""
        return bool(self.gain)

    @property
    def takes_pixels(self) -> bool:
        """Whether the source is seen to take pixels, which it brings to size itself."""
        return self.whole or self.lifted or self.reach > LARGEST_UNIT

    def source_input(self, x: np.ndarray) -> np.ndarray:
        """Return what the source takes for images (N, C, H, W)."""
        if self.lifted:
            gain, offset = self._planes()
            x = (x - offset) / gain
        if self.channels_last:
            x = x.transpose(0, 2, 3, 1)
        if self.whole:
            limits = np.iinfo(self.dtype)
            x = np.clip(np.rint(x), limits.min, limits.max)
        return np.ascontiguousarray(x, self.dtype)

    def reachable(self, x: np.ndarray) -> np.ndarray:
        """Return images (N, C, H, W) as the source's element type lets them be, such as of whole pixels."""
        if self.dtype == FLOAT32:
            return x
        source = self.source_input(x).astype(np.float32)
        source = source.transpose(0, 3, 1, 2) if self.channels_last else source
        if self.lifted:
            gain, offset = self._planes()
            source = gain * source + offset
        return np.ascontiguousarray(source, np.float32)

    def _planes(self) -> tuple[np.ndarray, np.ndarray]:
        """Return gain and offset (C, 1, 1)."""
        return np.array(self.gain)[:, None, None], np.array(self.offset)[:, None, None]

    def default(self, base: Preprocess) -> Preprocess:
        """Return a preprocessing with the pixel values that the source's input seems to be made for.

        Whole numbers are pixels, those of int8 less 128; so are numbers of which the source subtracts more than 1, which it
        scales down, or clips far beyond 1.
        """
        if self.whole:
            return replace(base, scale=1.0, mean=(128.0 if self.dtype == np.int8 else 0.0,) * base.channels)
        if self.lifted:
            mean = max(-b / a for a, b in zip(self.gain, self.offset, strict=True))
            if mean > BRIGHTEST or min(self.gain) < SMALLEST_UNIT_GAIN:
                return replace(base, scale=1.0)
        return replace(base, scale=1.0) if self.reach > LARGEST_UNIT else base

    def through(self, outer: Preprocess) -> Preprocess:
        """Return the preprocessing of the image, where `outer` is that of the source's input.

        gain · (pixel · scale − mean) / std + offset = (pixel · scale − mean′) / std′
        """
        if not self.lifted:
            return outer
        std = tuple(d / a for d, a in zip(outer.std, self.gain, strict=True))
        mean = tuple(m - b * d for m, b, d in zip(outer.mean, self.offset, std, strict=True))
        return replace(outer, mean=tuple(map(_plain, mean, std)), std=tuple(map(_plain, std, std)))


def _plain(value: float, std: float) -> float:
    """Return the number with the fewest digits that makes no difference in float32: 255 for 254.99998, the inverse of 1/255."""
    shorter = (float(f"{value:.{digits}g}") for digits in range(1, 9))
    return next((number for number in shorter if abs(number - value) <= FLOAT32_EPSILON * std), value)
