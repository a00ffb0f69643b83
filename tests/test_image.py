from __future__ import annotations

import cv2
import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from torch.nn import functional

from camrt.errors import ImageError
from camrt.image import (
    blur,
    geometry,
    normalise,
    preprocess_photo,
    restore,
    scaled,
    upsample,
    upsampled_range,
    upsampling_matrix,
)
from camrt.preprocess import Preprocess, imagenet, squash

SIZES = [
    ((7, 7), (224, 224)),
    ((13, 13), (224, 224)),
    ((3, 5), (32, 17)),
    ((8, 8), (8, 8)),
    ((9, 6), (5, 4)),
    ((1, 4), (16, 16)),
]


def onnx_resize(maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    node = helper.make_node("Resize", ["x", "", "", "sizes"], ["y"], mode="linear", coordinate_transformation_mode="half_pixel")
    sizes = helper.make_tensor("sizes", TensorProto.INT64, [4], [*maps.shape[:2], *size])
    graph = helper.make_graph(
        [node],
        "resize",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, maps.shape)],
        [onnx.ValueInfoProto(name="y")],
        [sizes],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": maps})[0]


# --- upsampling -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("low", "high"), SIZES)
def test_upsampling_equals_the_onnx_operator(low, high):
    maps = np.random.default_rng(0).normal(size=(2, 3, *low)).astype(np.float32)
    np.testing.assert_allclose(upsample(maps, high), onnx_resize(maps, high), rtol=0, atol=1e-5 * float(np.ptp(maps)))


@pytest.mark.parametrize(("low", "high"), SIZES)
def test_the_range_is_that_of_the_upsampled_map(low, high):
    maps = np.random.default_rng(1).normal(size=(4, *low)).astype(np.float32)
    least, greatest = upsampled_range(maps, high)
    up = upsample(maps, high)
    assert least[..., 0, 0] == pytest.approx(up.min(axis=(1, 2)), abs=2e-6)
    assert greatest[..., 0, 0] == pytest.approx(up.max(axis=(1, 2)), abs=2e-6)


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 14), st.integers(1, 14), st.integers(1, 70), st.integers(1, 70), st.integers(0, 99))
def test_the_range_is_exact_for_any_sizes(h, w, height, width, seed):
    maps = np.random.default_rng(seed).normal(size=(1, h, w)).astype(np.float32)
    least, greatest = upsampled_range(maps, (height, width))
    up = upsample(maps, (height, width))
    assert (float(least.min()), float(greatest.max())) == pytest.approx((up.min(), up.max()), abs=2e-6)


def test_normalising_before_upsampling_equals_normalising_after():
    maps = np.random.default_rng(2).normal(size=(5, 7, 7)).astype(np.float32)
    up = upsample(maps, (224, 224))
    low, high = up.min(axis=(1, 2), keepdims=True), up.max(axis=(1, 2), keepdims=True)
    found = upsample(normalise(maps, (224, 224)), (224, 224))
    np.testing.assert_allclose(found, (up - low) / (high - low), rtol=0, atol=1e-6)


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize(("low", "high"), [*SIZES, ((4, 4), (1, 1)), ((2, 3), (1, 9)), ((1, 1), (5, 5))])
def test_upsampling_by_two_matrices_equals_torchs(low, high, aligned):
    maps = np.random.default_rng(0).normal(size=(2, 3, *low)).astype(np.float32)
    expected = functional.interpolate(torch.from_numpy(maps), size=high, mode="bilinear", align_corners=aligned).numpy()
    rows, columns = (upsampling_matrix(n, out, aligned=aligned) for n, out in zip(low, high, strict=True))
    found = rows @ maps @ columns.T
    assert (found.shape, found.dtype) == (expected.shape, np.float32)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_upsampling_with_aligned_corners_keeps_the_corners():
    assert np.array_equal(upsampling_matrix(7, 50, aligned=True)[::49], np.eye(7, dtype=np.float32)[::6])


def test_a_shared_matrix_cannot_be_changed():
    with pytest.raises(ValueError, match="read-only"):
        upsampling_matrix(7, 50)[0, 0] = 2


@pytest.mark.parametrize("offset", [-5.0, 0.0, 1e4])
def test_a_scaled_map_goes_from_zero_to_one_along_a_line(offset):
    maps = (np.random.default_rng(3).normal(size=(2, 3, 5, 6)) + offset).astype(np.float32)
    found = scaled(maps)
    assert np.array_equal(found.min(axis=(-2, -1)), np.zeros((2, 3)))
    assert np.array_equal(found.max(axis=(-2, -1)), np.ones((2, 3)))
    low, high = maps.min(axis=(-2, -1), keepdims=True), maps.max(axis=(-2, -1), keepdims=True)
    assert low + found * (high - low) == pytest.approx(maps, rel=1e-6, abs=1e-6)
    assert found.dtype == np.float32


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1e30])
def test_the_size_of_a_maps_values_does_not_change_it_scaled(scale):
    maps = np.random.default_rng(3).normal(size=(4, 5, 6)).astype(np.float32)
    assert scaled(maps * np.float32(scale)) == pytest.approx(scaled(maps), abs=1e-6)


def test_a_map_as_large_as_the_image_is_normalised_as_it_is_scaled():
    maps = np.random.default_rng(3).normal(size=(4, 20, 30)).astype(np.float32)
    assert normalise(maps, (20, 30)) == pytest.approx(scaled(maps), abs=1e-6)


@pytest.mark.parametrize("value", [0.0, 3.0, 1 / 3, -2e30])
def test_a_flat_map_normalises_to_zeros(value):
    assert not normalise(np.full((1, 7, 7), value, np.float32), (64, 64)).any()
    assert not scaled(np.full((1, 7, 7), value, np.float32)).any()


# --- preprocessing ----------------------------------------------------------------------------------------------------
def test_values_follow_the_formula_in_channel_order():
    pixels = np.full((4, 4, 3), (255, 128, 0), np.uint8)
    rgb = Preprocess((4, 4), (4, 4), scale=1 / 255, mean=(0.5, 0.4, 0.3), std=(0.1, 0.2, 0.3))
    x, _ = preprocess_photo(pixels, rgb)
    assert x[:, 0, 0] == pytest.approx([5.0, (128 / 255 - 0.4) / 0.2, -1.0], abs=1e-5)
    bgr = Preprocess((4, 4), (4, 4), color="bgr", scale=1.0, mean=(104, 117, 123), std=(1, 1, 1))
    assert preprocess_photo(pixels, bgr)[0][:, 0, 0].tolist() == [-104.0, 11.0, 132.0]


def test_one_channel_sees_the_luma():
    pixels = np.full((4, 4, 3), (255, 0, 0), np.uint8)
    x, _ = preprocess_photo(pixels, squash((4, 4), 1))
    assert x.shape == (1, 4, 4)
    assert x[0, 0, 0] == pytest.approx(0.299, abs=1e-5)


@pytest.mark.parametrize(("photo", "resized", "top", "left"), [
    ((480, 640), (256, 341), 16, 58),
    ((640, 480), (341, 256), 58, 16),
    ((256, 256), (256, 256), 16, 16),
    ((100, 100), (256, 256), 16, 16),
])  # fmt: skip
def test_imagenet_takes_the_centre_of_the_shorter_side(photo, resized, top, left):
    where = geometry(photo, imagenet((224, 224)))
    assert where.resized == resized
    assert (where.top, where.left) == (top, left)


def test_shrinking_averages_and_growing_interpolates():
    board = np.indices((64, 64)).sum(axis=0) % 2 * np.uint8(255)
    x, _ = preprocess_photo(np.repeat(board[..., None], 3, axis=2).astype(np.uint8), squash((16, 16)))
    assert x == pytest.approx(np.full_like(x, 0.5), abs=0.01)


def test_letterbox_pads_with_the_mean_colour():
    letterbox = Preprocess((8, 8), "letterbox", scale=1 / 255, mean=(0.5,) * 3, std=(0.5,) * 3)
    x, where = preprocess_photo(np.full((10, 20, 3), 255, np.uint8), letterbox)
    assert (where.resized, where.top, where.left) == ((4, 8), -2, 0)
    assert x[0, :, 0].tolist() == [0, 0, 1, 1, 1, 1, 0, 0]


def test_a_photo_too_elongated_to_resize_is_refused():
    with pytest.raises(ImageError, match="20000 x 1 pixels .* Crop the photo"):
        geometry((1, 20000), imagenet((224, 224)))


# --- back onto the photo ------------------------------------------------------------------------------------------------
def test_restoring_undoes_the_crop():
    where = geometry((100, 200), Preprocess((50, 50), 50))
    heatmap = np.ones((50, 50), np.float32)
    on_photo = restore(heatmap, where)
    assert on_photo.shape == (100, 200)
    assert on_photo[:, 50:150].min() == 1
    assert not on_photo[:, :50].any()
    assert not on_photo[:, 150:].any()


def test_restoring_undoes_the_letterbox():
    letterbox = Preprocess((64, 64), "letterbox")
    where = geometry((30, 60), letterbox)
    heatmap = np.zeros((64, 64), np.float32)
    heatmap[:16] = 5  # padding above the photo
    heatmap[16:48, 32:] = 1
    on_photo = restore(heatmap, where)
    assert on_photo.max() <= 1
    assert on_photo[:, 40:].mean() == pytest.approx(1)
    assert on_photo[:, :20].mean() == pytest.approx(0)


@pytest.mark.parametrize("resize", [64, "letterbox", (64, 64), (80, 100)])
@pytest.mark.parametrize("photo", [(120, 90), (90, 120), (64, 64), (40, 50)])
def test_a_spot_on_the_photo_comes_back_where_it_was(photo, resize):
    preprocess = Preprocess((64, 64), resize, scale=1 / 255)
    pixels = np.zeros((*photo, 3), np.uint8)
    centre = (photo[0] // 2 + 3, photo[1] // 2 - 4)
    cv2.circle(pixels, centre[::-1], 4, (255, 255, 255), -1)
    x, where = preprocess_photo(pixels, preprocess)
    found = np.unravel_index(restore(x[0], where).argmax(), photo)
    assert np.hypot(*(np.array(found) - centre)) <= 4


@settings(max_examples=60, deadline=None)
@given(st.integers(8, 300), st.integers(8, 300), st.sampled_from([64, 70, "letterbox", (64, 64), (90, 70)]))
def test_restored_heatmaps_fit_the_photo_and_stay_in_range(height, width, resize):
    where = geometry((height, width), Preprocess((64, 64), resize))
    heatmap = np.random.default_rng(0).random((64, 64), np.float32)
    on_photo = restore(heatmap, where)
    assert on_photo.shape == (height, width)
    assert on_photo.min() >= 0
    assert on_photo.max() <= 1
    assert where.seen().any()
    assert not on_photo[~where.seen()].any()


def test_the_blur_keeps_a_constant_image_and_the_shape():
    x = np.full((2, 3, 30, 40), 0.7, np.float32)
    assert blur(x) == pytest.approx(x, abs=1e-6)
