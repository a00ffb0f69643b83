"""exporters.preprocessing: what is asked for is meant for the source's own input, and what it lacks is guessed from the graph."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from camrt.errors import ExportError
from camrt.preprocess import IMAGENET_MEAN, IMAGENET_STD, imagenet, squash
from exporters.border import Border
from exporters.preprocessing import settle_preprocess
from tests import graphs

IMAGE = (3, 32, 32)
PLAIN = Border()
BYTES = Border(dtype=np.dtype(np.uint8))
SIGNED = Border(dtype=np.dtype(np.int8))
UNIT = Border(
    gain=tuple(1 / s for s in IMAGENET_STD), offset=tuple(-m / s for m, s in zip(IMAGENET_MEAN, IMAGENET_STD, strict=True))
)
CAFFE = Border(gain=(1.0,) * 3, offset=(-104.0, -117.0, -123.0))


def settled(border: Border, **asked: object):
    given = {"given": None, "preset": None, "overrides": None} | asked
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return settle_preprocess(given["given"], given["preset"], given["overrides"], IMAGE, border)


# --- nothing given --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("border", "message"),
    [
        (
            PLAIN,
            r"photos are squashed to 32 x 32, RGB, divided by 255\. If .*; give --preset imagenet, --preprocess FILE or --mean",
        ),
        (
            BYTES,
            r"RGB, and the model is given pixels of 0…255, which it scales itself\. If .*; give --resize, --color, --scale",
        ),
        (SIGNED, r"RGB, and the model is given pixels of -128…127, which it scales itself"),
        (UNIT, r"RGB, and the model is given pixels of \[0, 1\], which it scales itself"),
        (CAFFE, r"RGB, and the model is given pixels of 0…255, which it scales itself"),
    ],
    ids=["plain", "uint8", "int8", "unit", "caffe"],
)
def test_a_warning_says_what_is_done_to_photos(border, message):
    with pytest.warns(UserWarning, match=message):
        settle_preprocess(None, None, None, IMAGE, border)


@pytest.mark.parametrize(
    "asked",
    [{"overrides": {"color": "bgr"}}, {"given": {"scale": 1.0}}, {"overrides": {"resize": 40}}],
    ids=str,
)
def test_nothing_is_warned_of_where_the_geometry_of_pixels_was_given(asked):
    given = {"given": None, "preset": None, "overrides": None} | asked
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        settle_preprocess(given["given"], given["preset"], given["overrides"], IMAGE, BYTES)


@pytest.mark.parametrize(
    ("border", "asked", "message"),
    [
        (BYTES, {"preset": "imagenet"}, "of the preset 'imagenet' only resize and crop are taken"),
        (BYTES, {"overrides": {"mean": [0.5] * 3}}, "what was given, scale 1, mean .*, comes before that"),
        (BYTES, {"given": {"scale": 1 / 255}}, "leave it out: --resize and --crop are enough"),
        (PLAIN, {"overrides": {"interpolation": "linear"}}, "No scale, mean or std was given, and none is found in the model"),
        (PLAIN, {"given": {}}, "No preprocessing was given"),
    ],
)
def test_values_that_come_twice_or_not_at_all_are_warned_of(border, asked, message):
    given = {"given": None, "preset": None, "overrides": None} | asked
    with pytest.warns(UserWarning, match=message):
        settle_preprocess(given["given"], given["preset"], given["overrides"], IMAGE, border)


def test_a_mean_of_pixels_without_a_scale_is_refused():
    with pytest.raises(ExportError, match=r"The mean 124 is one of pixels of 0…255.*Give --scale 1 with it"):
        settle_preprocess(None, None, {"mean": [124.0, 116, 104], "std": [58.0, 57, 57]}, IMAGE, PLAIN)


@pytest.mark.parametrize(
    ("border", "scale", "mean", "std"),
    [
        (PLAIN, 1 / 255, (0,) * 3, (1,) * 3),
        (BYTES, 1, (0,) * 3, (1,) * 3),
        (SIGNED, 1, (128,) * 3, (1,) * 3),
        (UNIT, 1 / 255, IMAGENET_MEAN, IMAGENET_STD),
        (CAFFE, 1, (104, 117, 123), (1,) * 3),
    ],
    ids=["plain", "uint8", "int8", "unit", "caffe"],
)
def test_what_the_source_does_to_its_pixels_is_in_the_preprocessing(border, scale, mean, std):
    found = settled(border)
    assert found.scale == pytest.approx(scale)
    np.testing.assert_allclose(found.mean, mean, rtol=1e-6)
    np.testing.assert_allclose(found.std, std, rtol=1e-6)


# --- presets, descriptions, single values -----------------------------------------------------------------------------------
@pytest.mark.parametrize("border", [BYTES, SIGNED, UNIT, CAFFE], ids=["uint8", "int8", "unit", "caffe"])
def test_a_preset_gives_a_source_that_scales_itself_its_geometry_alone(border):
    found, bare = settled(border, preset="imagenet"), settled(border)
    geometry = imagenet((32, 32))
    assert (found.resize, found.size, found.interpolation) == (geometry.resize, geometry.size, geometry.interpolation)
    assert (found.scale, found.mean, found.std) == (bare.scale, bare.mean, bare.std)


def test_a_preset_is_taken_whole_where_the_source_scales_nothing():
    assert settled(PLAIN, preset="imagenet") == imagenet((32, 32))
    assert settled(Border(channels_last=True), preset="imagenet") == imagenet((32, 32))


def test_single_values_are_meant_for_the_input_of_the_source():
    found = settled(CAFFE, overrides={"scale": 1.0, "mean": [1.0, 2.0, 3.0], "std": [2.0, 2.0, 2.0], "color": "bgr"})
    # gain · (pixel − mean) / 2 + offset = (pixel − mean′) / 2
    np.testing.assert_allclose(found.mean, [1 + 208, 2 + 234, 3 + 246])
    np.testing.assert_allclose(found.std, [2] * 3)
    assert (found.scale, found.color) == (1, "bgr")


def test_a_whole_preprocessing_is_meant_for_the_input_of_the_source():
    found = settled(UNIT, given=squash((32, 32)))
    np.testing.assert_allclose(found.mean, IMAGENET_MEAN, rtol=1e-6)
    assert settled(PLAIN, given=squash((32, 32))) == squash((32, 32))


@pytest.mark.parametrize(
    ("asked", "image", "message"),
    [
        ({"preset": "imagnet"}, IMAGE, "There is no preset 'imagnet'. Known: imagenet"),
        ({"preset": "imagenet"}, (1, 32, 32), "The preset 'imagenet' is for three channels, the network has 1"),
        ({"given": squash((16, 16))}, IMAGE, r"preprocess is for 3 x \(16, 16\), the network takes 3 x \(32, 32\)"),
        ({"given": squash((32, 32), 1)}, IMAGE, "preprocess is for 1 x"),
        ({}, (3, 1 << 15, 8), "The network takes images that cannot be prepared"),
    ],
)
def test_what_does_not_fit_the_network_is_refused(asked, image, message):
    given = {"given": None, "preset": None, "overrides": None} | asked
    with pytest.raises(ExportError, match=message):
        settle_preprocess(given["given"], given["preset"], given["overrides"], image, PLAIN)


# --- bundles --------------------------------------------------------------------------------------------------------------
def test_a_model_with_its_scaling_inside_is_explained_as_one_without(cut):
    def model(first: str, **weights: object):
        body = f"{first} c = Conv (t, w)  r = Relu (c)  p = GlobalAveragePool (r)  scores = Flatten (p)"
        return graphs.parse(body, image="N,3,32,32", w=(5, 3, 3, 3), **weights)

    mean, std = (np.array(v, np.float32).reshape(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    inside = model("a = Sub (x, mean)  t = Div (a, std)", mean=mean, std=std)
    with pytest.warns(UserWarning, match=r"pixels of \[0, 1\]"):
        first = cut(inside, overrides=None).manifest
    outside = {"scale": 1 / 255, "mean": IMAGENET_MEAN, "std": IMAGENET_STD}
    second = cut(model("t = Identity (x)"), overrides=outside, force=True).manifest
    assert first.preprocess.resize == second.preprocess.resize
    np.testing.assert_allclose(first.preprocess.mean, second.preprocess.mean, rtol=1e-6)
    np.testing.assert_allclose(first.preprocess.std, second.preprocess.std, rtol=1e-6)
    assert first.split.largest_logit == pytest.approx(second.split.largest_logit, rel=1e-4)


def test_a_model_of_whole_pixels_is_given_them(cut):
    built = graphs.parse(
        "y = Cast <to = 1> (x)  t = Transpose <perm = [0, 3, 1, 2]> (y)  c = Conv (t, w)  p = GlobalAveragePool (c)  scores = Flatten (p)",
        image="N,32,32,3", element="uint8", w=(5, 3, 3, 3),
    )  # fmt: skip
    with pytest.warns(UserWarning, match="pixels of 0…255"):
        found = cut(built, overrides=None, layer="c").manifest.preprocess
    assert (found.scale, found.mean, found.std) == (1, (0,) * 3, (1,) * 3)
