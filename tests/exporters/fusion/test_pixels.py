from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from camrt.image import blur, preprocess_photo
from camrt.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from exporters.fusion.pixels import blurred, network_input

from .helpers import emitted

PLAIN = Preprocess((24, 30), (30, 24))
IMAGENET = replace(PLAIN, mean=IMAGENET_MEAN, std=IMAGENET_STD)


def photos(count: int = 2) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 24, 30, 3), np.uint8)


@pytest.mark.parametrize("preprocess", [
    PLAIN,
    IMAGENET,
    replace(IMAGENET, color="bgr"),
    replace(PLAIN, color="bgr", scale=1.0, mean=(103.939, 116.779, 123.68)),
    replace(PLAIN, scale=1 / 127.5, mean=(1.0, 1.0, 1.0)),
    replace(PLAIN, mean=(0.1307,), std=(0.3081,)),
    replace(PLAIN, mean=(0.5,), std=(2.0,), scale=1.0, color="bgr"),
])  # fmt: skip
@pytest.mark.parametrize("count", [1, 3])
def test_pixels_of_the_networks_size_become_what_preprocessing_makes_of_them(preprocess, count):
    pixels = photos(count)
    (found,) = emitted(lambda op, p: network_input(op, p, preprocess), {"p": pixels})
    expected = np.stack([preprocess_photo(photo, preprocess)[0] for photo in pixels])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("size", [(64, 64), (51, 51), (26, 40), (25, 25), (16, 20), (3, 2), (1, 7), (96, 33)])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_blurred_baseline_is_the_runtimes(channels, size):
    images = np.random.default_rng(1).normal(0, 1, (2, channels, *size)).astype(np.float32)
    (found,) = emitted(lambda op, x: blurred(op, x, channels, size), {"x": images})
    np.testing.assert_allclose(found, blur(images), atol=1e-5)


def test_blurring_leaves_a_constant_alone():
    images = np.full((1, 3, 20, 24), 2.5, np.float32)
    (found,) = emitted(lambda op, x: blurred(op, x, 3, (20, 24)), {"x": images})
    np.testing.assert_allclose(found, images, rtol=1e-6)
