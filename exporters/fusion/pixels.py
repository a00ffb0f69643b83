"""What comes before the network, as a graph: pixels to the network's input, and the blurred baseline."""

from __future__ import annotations

import cv2
import numpy as np

from camrt.image import BLUR_KERNEL, BLUR_SIGMA, LUMA, pixel_gain
from camrt.preprocess import Preprocess
from exporters.emitter import Emitter
from exporters.fusion.arithmetic import FLOAT


def network_input(op: Emitter, pixels: str, preprocess: Preprocess) -> str:
    """Return x (N, C, H, W) float32 of RGB pixels (N, H, W, 3) uint8 at the network's size."""
    values = op.Cast(pixels, to=FLOAT)
    if preprocess.channels == 1:
        values = op.MatMul(values, op.constant(LUMA[:, None], "float32"))
    elif preprocess.color == "bgr":
        values = op.Gather(values, op.constant([2, 1, 0]), axis=3)
    gain, offset = (op.constant(part[:, None, None], "float32") for part in pixel_gain(preprocess))
    return op.Add(op.Mul(op.Transpose(values, perm=[0, 3, 1, 2]), gain), offset)


def blurred(op: Emitter, image: str, channels: int, size: tuple[int, int]) -> str:
    """Return images (N, C, H, W) blurred by the 51 × 51 Gaussian of σ 50, reflected at the border."""
    kernel = cv2.getGaussianKernel(BLUR_KERNEL, BLUR_SIGMA).astype(np.float32)[:, 0]
    for axis, (shape, side) in enumerate(zip(((-1, 1), (1, -1)), size, strict=True)):
        reflected = np.pad(np.arange(side), BLUR_KERNEL // 2, mode="reflect")
        weights = np.broadcast_to(kernel.reshape(1, 1, *shape), (channels, 1, *kernel.reshape(shape).shape))
        image = op.Gather(image, op.constant(reflected), axis=2 + axis)
        image = op.Conv(image, op.constant(weights, "float32"), group=channels)
    return image
