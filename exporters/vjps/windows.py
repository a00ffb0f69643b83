"""Windows that slide over an image: how convolutions and poolings place them, and how what they saw is put back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from exporters.emitter import Emitter
from exporters.vjps.rule import Forward


@dataclass(frozen=True)
class Windows:
    """Placement of the windows, one number per spatial axis.

    Window o along an axis covers the places o · stride − before + dilation · j, j < kernel, of `size`.
    """

    kernel: list[int]
    strides: list[int]
    dilations: list[int]
    before: list[int]
    size: list[int]
    count: list[int]

    @property
    def covered(self) -> list[int]:
        """How many places the windows span from the first to the last, border included."""
        extents = zip(self.kernel, self.strides, self.dilations, self.count, strict=True)
        return [(count - 1) * stride + (kernel - 1) * dilation + 1 for kernel, stride, dilation, count in extents]

    def put_back(self, op: Emitter, g: str, weight: str, group: int = 1) -> str:
        """Add to every place what the windows over it have, weighted: the adjoint of a convolution.

        A border of the same width on both sides is left to ConvTranspose; whatever else does not fit is cropped or filled
        with zeros behind it.
        """
        after = [c - b - s for c, b, s in zip(self.covered, self.before, self.size, strict=True)]
        even = all(b <= a for b, a in zip(self.before, after, strict=True))
        cut = self.before if even else [0] * len(after)
        g = op.ConvTranspose(
            g, weight, kernel_shape=self.kernel, strides=self.strides, dilations=self.dilations, pads=[*cut, *cut], group=group
        )
        start = [c - b for c, b in zip(cut, self.before, strict=True)]
        end = [c - a for c, a in zip(cut, after, strict=True)]
        return op.Pad(g, op.constant([0, 0, *start, 0, 0, *end])) if any(start + end) else g

    def members(self, end_of_border: list[int] | None = None) -> np.ndarray:
        """Return how many places each window covers, those outside left out; with a border, up to its end."""
        total = np.ones((), int)
        for i, count in enumerate(self.count):
            places = np.arange(count)[:, None] * self.strides[i] + np.arange(self.kernel[i]) * self.dilations[i]
            first, last = (self.before[i], self.before[i] + self.size[i]) if end_of_border is None else (0, end_of_border[i])
            total = np.multiply.outer(total, ((places >= first) & (places < last)).sum(axis=1))
        return total


def windows_of(node: Forward, kernel: list[int], image: str, results: str) -> Windows:
    """Return where a node's windows lie on the tensor `image`, one for every place of `results`."""
    rank = len(kernel)
    strides, dilations = node.integers("strides", [1] * rank), node.integers("dilations", [1] * rank)
    size, count = node.spatial(image), node.spatial(results)
    pads, auto = node.integers("pads", [0] * 2 * rank), node.text("auto_pad", "NOTSET")
    if auto.startswith("SAME"):
        needed = Windows(kernel, strides, dilations, [0] * rank, size, count).covered
        spare = [max(0, n - s) for n, s in zip(needed, size, strict=True)]
        before = [n // 2 if auto == "SAME_UPPER" else n - n // 2 for n in spare]
    else:
        before = [0] * rank if auto == "VALID" else pads[:rank]
    last_starts = zip(count, strides, before, size, strict=True)
    if node.integer("ceil_mode", 0) and any((n - 1) * step >= b + s for n, step, b, s in last_starts):
        raise node.refuse("a last window behind the image, which ONNX Runtime leaves out and shape inference does not")
    return Windows(kernel, strides, dilations, before, size, count)


def border_end(node: Forward, windows: Windows) -> list[int]:
    """Return where the border behind the image ends, counted from the beginning of the one before it."""
    rank = len(windows.size)
    if node.text("auto_pad", "NOTSET").startswith("SAME"):
        return windows.covered
    after = node.integers("pads", [0] * 2 * rank)[rank:] if node.text("auto_pad", "NOTSET") == "NOTSET" else [0] * rank
    return [b + s + a for b, s, a in zip(windows.before, windows.size, after, strict=True)]
