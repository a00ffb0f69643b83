"""camrt.preprocess: how a photo becomes the network's input, as users describe it and as bundle.json stores it."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from camrt.errors import BundleError, ExportError, ParameterError
from camrt.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess, from_description, imagenet, read_resize, squash
from camrt.table import Table

SQUASH = squash((224, 320))
sides = st.integers(1, 1 << 14)
finite = st.floats(-1e6, 1e6)
positive = st.floats(1e-6, 1e6)


@st.composite
def preprocessings(draw) -> Preprocess:
    height, width = draw(sides), draw(sides)
    channels = draw(st.sampled_from([1, 3]))
    shorter = st.integers(max(height, width), 1 << 14)
    exact = st.tuples(st.integers(width, 1 << 14), st.integers(height, 1 << 14))
    return Preprocess(
        size=(height, width),
        resize=draw(st.just("letterbox") | shorter | exact),
        color=draw(st.sampled_from(["rgb", "bgr"])),
        interpolation=draw(st.sampled_from(["area", "linear", "cubic"])),
        scale=draw(positive),
        mean=tuple(draw(st.lists(finite, min_size=channels, max_size=channels))),
        std=tuple(draw(st.lists(positive, min_size=channels, max_size=channels))),
    )


def read(values: object) -> Preprocess:
    return Preprocess.from_json(Table(values, "bundle.json", BundleError, "preprocess."))


# --- bundle.json ----------------------------------------------------------------------------------------------------------
@given(preprocessings())
def test_what_is_written_is_read_back(preprocess):
    assert read(json.loads(json.dumps(preprocess.to_json()))) == preprocess


@given(preprocessings())
def test_what_is_written_is_a_users_description_too(preprocess):
    base = squash(preprocess.size, preprocess.channels)
    assert from_description(base, json.loads(json.dumps(preprocess.to_json())), "model.json", ExportError) == preprocess


WRITTEN = imagenet((224, 224)).to_json()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": [224]}, r"'preprocess\.size' must be .*, got \[224\]"),
        ({"size": [224.5, 224.5]}, r"preprocess\.size"),
        ({"size": [0, 224]}, r"preprocess.* must be .*, got .0, 224"),
        ({"size": [1 << 20, 1 << 20]}, "size must be within"),
        ({"resize": "big"}, "preprocess: resize must be"),
        ({"resize": None}, "preprocess: resize must be"),
        ({"resize": 16}, "preprocess: resize must be at least the network's longer side, 224, got 16"),
        ({"resize": "100x300"}, "resize must be at least the network's 224x224, got 100x300"),
        ({"resize": "9" * 5000}, "resize"),
        ({"resize": 1 << 20}, "resize must be"),
        ({"color": "RGB"}, r"'preprocess\.color' must be one of rgb, bgr, got 'RGB'"),
        ({"interpolation": "lanczos"}, r"'preprocess\.interpolation' must be one of"),
        ({"layout": "NHWC"}, r"'preprocess\.layout' must be one of NCHW"),
        ({"scale": 0}, "scale must be a positive number, got 0"),
        ({"scale": math.nan}, r"'preprocess\.scale' must be a finite number"),
        ({"mean": "none"}, r"'preprocess\.mean' must be a list"),
        ({"mean": [0.5]}, r"'preprocess\.std' must be a list of 1 numbers"),
        ({"std": [1, 1]}, r"'preprocess\.std' must be a list of 3 numbers"),
        ({"std": [1, 0, 1]}, "std must be positive numbers"),
        ({"std": [1, math.inf, 1]}, r"'preprocess\.std' must be a list of 3 numbers"),
        ({"gamma": 2.2}, r"unknown key 'preprocess\.gamma'"),
    ],
)
def test_a_damaged_block_is_refused(changes, message):
    with pytest.raises(BundleError, match=message):
        read({**WRITTEN, **changes})


@pytest.mark.parametrize("key", sorted(WRITTEN))
def test_a_missing_key_is_named(key):
    with pytest.raises(BundleError, match=key):
        read({name: value for name, value in WRITTEN.items() if name != key})


# --- the usual ones -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("size", "shorter"),
    [((224, 224), 256), ((299, 299), 342), ((96, 96), 110), ((224, 320), 320), ((320, 224), 366), ((1, 1), 1)],
)
def test_imagenet_resizes_the_shorter_side_by_eight_sevenths(size, shorter):
    found = imagenet(size)
    assert (found.size, found.resize, found.interpolation) == (size, shorter, "area")
    assert (found.mean, found.std, found.scale, found.color) == (IMAGENET_MEAN, IMAGENET_STD, 1 / 255, "rgb")


@pytest.mark.parametrize("channels", [1, 3])
def test_squash_gives_exact_width_and_height_and_no_mean(channels):
    found = squash((224, 320), channels)
    assert (found.resize, found.mean, found.std, found.scale) == ((320, 224), (0.0,) * channels, (1.0,) * channels, 1 / 255)
    assert found.channels == channels


# --- resize ---------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("value", "resize"),
    [
        (256, 256),
        ("256", 256),
        ("320x240", (320, 240)),
        ("320X240", (320, 240)),
        ([320, 240], (320, 240)),
        ((320, 240), (320, 240)),
        ("letterbox", "letterbox"),
    ],
)
def test_every_way_to_write_a_resize_is_read(value, resize):
    assert read_resize(value) == resize


@pytest.mark.parametrize(
    "value",
    [
        "", "x", "big", "320x", "x240", "1x2x3", "-256", "25.6", "320 x 240", "Letterbox!", "²", "9" * 5000, 25.6, True, None,
        [320], [1, 2, 3], [1.5, 2], [True, True], {},
    ],
    ids=lambda value: repr(value)[:12],
)  # fmt: skip
def test_what_is_no_resize_is_refused(value):
    with pytest.raises(ParameterError, match=r"resize must be N \(shorter side\), WxH or letterbox, got"):
        read_resize(value)


# --- a user's description -------------------------------------------------------------------------------------------------
def describe(**values: object) -> Preprocess:
    return from_description(SQUASH, values, "model.json", ExportError)


def test_an_empty_description_changes_nothing():
    assert describe() == SQUASH


@pytest.mark.parametrize(
    ("values", "field", "expected"),
    [
        ({"channels": "BGR"}, "color", "bgr"),
        ({"color": "Rgb"}, "color", "rgb"),
        ({"interpolation": "CUBIC"}, "interpolation", "cubic"),
        ({"resize": "640x480"}, "resize", (640, 480)),
        ({"resize": 366}, "resize", 366),
        ({"scale": 1}, "scale", 1.0),
        ({"mean": [104, 117, 123]}, "mean", (104.0, 117.0, 123.0)),
        ({"std": (0.5, 0.5, 0.5)}, "std", (0.5, 0.5, 0.5)),
        ({"size": [224, 320], "crop": [224, 320], "layout": "nchw"}, "size", (224, 320)),
        ({"mean": None, "crop": None, "resize": None}, "mean", (0.0, 0.0, 0.0)),
    ],
)
def test_each_key_overrides_its_value(values, field, expected):
    found = describe(**values)
    assert getattr(found, field) == expected
    assert {k: v for k, v in vars(found).items() if k != field} == {k: v for k, v in vars(SQUASH).items() if k != field}


def test_a_single_number_is_a_square_size():
    assert from_description(squash((96, 96)), {"size": 96, "crop": 96}, "model.json", ExportError) == squash((96, 96))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": 224}, r"'size' must be the network's input, 224 x 320 \(height x width\), got 224"),
        ({"crop": [320, 224]}, "'crop' must be the network's input"),
        ({"crop": "224"}, "'crop' must be the network's input"),
        ({"layout": "NHWC"}, r"'layout' must be NCHW"),
        ({"color": "gray"}, "color must be rgb or bgr, got gray"),
        ({"interpolation": "lanczos"}, "interpolation must be area, linear or cubic, got lanczos"),
        ({"mean": [0.5]}, "'mean' must be a list of 3 numbers"),
        ({"mean": 0.5}, "'mean' must be a list"),
        ({"std": [1, -1, 1]}, "std must be positive numbers"),
        ({"scale": "1/255"}, "'scale' must be a number, got '1/255'"),
        ({"scale": -1}, "scale must be a positive number"),
        ({"resize": "big"}, "resize must be N"),
        ({"resize": 256}, "resize must be at least the network's longer side, 320, got 256"),
        ({"resize": [320, 200]}, "resize must be at least the network's 320x224, got 320x200"),
        ({"means": [1, 2, 3]}, r"unknown key 'means'\. Did you mean 'mean'\?"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(values, message):
    with pytest.raises(ExportError, match=rf"^model\.json: .*{message}"):
        describe(**values)


# --- the class itself -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "changes",
    [
        {"size": (0, 8)}, {"size": (8, 1 << 15)}, {"color": "gray"}, {"interpolation": "lanczos"}, {"scale": 0.0},
        {"scale": math.inf}, {"mean": (0.0, math.nan, 0.0)}, {"std": (1.0, 0.0, 1.0)}, {"std": (1.0,)}, {"resize": "fit"},
        {"resize": 7}, {"resize": (8, 7)}, {"resize": (7, 8)}, {"resize": 1 << 15},
    ],
)  # fmt: skip
def test_a_preprocessing_checks_itself(changes):
    with pytest.raises(ParameterError, match=f"{next(iter(changes))} must be"):
        Preprocess(**{"size": (8, 8), "resize": 8, **changes})


def test_a_network_that_is_not_square_wants_width_before_height_in_resize():
    assert Preprocess((8, 16), (16, 8)).resize == (16, 8)
    with pytest.raises(ParameterError, match="at least the network's 16x8, got 8x16"):
        Preprocess((8, 16), (8, 16))
