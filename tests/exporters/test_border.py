"""exporters.border: what lies between the image in normal form and the source's own input."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camrt.preprocess import Preprocess, squash
from exporters.border import Border
from tests import graphs
from tests.exporters.helpers import normal

SIZE = (4, 5)
LIFTED = {"gain": (2.0, 0.5, 4.0), "offset": (-1.0, 0.25, 3.0)}
GAIN, OFFSET = (np.array(LIFTED[name])[:, None, None] for name in ("gain", "offset"))


def prepared(preprocess: Preprocess, pixels: np.ndarray) -> np.ndarray:
    """Return x = (pixel · scale − mean) / std for pixels (N, C, H, W)."""
    mean, std = (np.array(v)[:, None, None] for v in (preprocess.mean, preprocess.std))
    return (pixels * preprocess.scale - mean) / std


def pixels(channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, channels, *SIZE)).astype(np.float64)


# --- source_input ---------------------------------------------------------------------------------------------------------
def test_the_source_takes_the_image_itself_where_nothing_lies_between():
    x = pixels().astype(np.float32)
    found = Border().source_input(x)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, x)
    assert not Border().lifted
    assert not Border().whole


def test_gain_and_offset_are_taken_back_in_the_layout_of_the_source():
    source = np.random.default_rng(0).standard_normal((2, *SIZE, 3)).astype(np.float32)
    x = (GAIN * source.transpose(0, 3, 1, 2) + OFFSET).astype(np.float32)
    found = Border(channels_last=True, **LIFTED).source_input(x)
    assert found.flags.c_contiguous
    np.testing.assert_allclose(found, source, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("dtype", "expected"), [("uint8", [0, 0, 3, 255, 255]), ("int8", [-128, -5, 3, 127, 127])])
def test_whole_numbers_are_rounded_and_clipped(dtype, expected):
    x = np.array([-300, -5.3, 2.6, 255.2, 999], np.float32).reshape(1, 1, 1, 5)
    found = Border(dtype=np.dtype(dtype)).source_input(x)
    assert found.dtype == dtype
    assert found.ravel().tolist() == expected


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_floats_are_given_as_such(dtype):
    assert Border(dtype=np.dtype(dtype)).source_input(pixels()).dtype == dtype


# --- reachable ------------------------------------------------------------------------------------------------------------
def test_every_image_can_be_reached_in_float32():
    x = np.random.default_rng(0).standard_normal((1, 3, *SIZE))
    assert Border(channels_last=True, **LIFTED).reachable(x) is x


def test_an_image_is_rounded_as_a_source_in_float16_rounds_it():
    border = Border(dtype=np.dtype("float16"))
    x = np.random.default_rng(0).standard_normal((1, 3, *SIZE)).astype(np.float32)
    found = border.reachable(x)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, x.astype(np.float16))
    np.testing.assert_array_equal(border.source_input(found), border.source_input(x))


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("lifted", [{}, LIFTED], ids=["plain", "lifted"])
def test_a_reachable_image_is_what_the_source_makes_of_whole_pixels(channels_last, lifted):
    border = Border(channels_last, np.dtype(np.uint8), **lifted)
    x = np.random.default_rng(0).uniform(-20, 300, (2, 3, *SIZE)).astype(np.float32)
    once = border.reachable(x)
    assert (once.dtype, once.shape) == (np.float32, x.shape)
    assert np.abs(once - x).max() > 0.1
    np.testing.assert_allclose(border.reachable(once), once, rtol=1e-6)
    source = border.source_input(once)
    np.testing.assert_array_equal(source, border.source_input(x))
    first = source.transpose(0, 3, 1, 2) if channels_last else source
    np.testing.assert_allclose(once, GAIN * first + OFFSET if lifted else first, rtol=1e-6)


# --- default --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("border", "scale", "mean"),
    [
        (Border(), 1 / 255, 0),
        (Border(dtype=np.dtype(np.uint8)), 1, 0),
        (Border(dtype=np.dtype(np.int8)), 1, 128),
        (Border(dtype=np.dtype(np.int16)), 1, 0),
        (Border(dtype=np.dtype(np.uint16)), 1, 0),
        (Border(dtype=np.dtype(np.int32)), 1, 0),
        (Border(gain=(1.0,) * 3, offset=(-123.0, -117.0, -104.0)), 1, 0),
        (Border(gain=(1 / 255,) * 3, offset=(0.0,) * 3), 1, 0),
        (Border(gain=(1 / 58,) * 3, offset=(-2.1,) * 3), 1, 0),
        (Border(gain=(2 / 255,) * 3, offset=(-1.0,) * 3), 1, 0),
        (Border(gain=(1 / 0.229,) * 3, offset=(-0.485 / 0.229,) * 3), 1 / 255, 0),
        (Border(gain=(2.0,) * 3, offset=(-1.0,) * 3), 1 / 255, 0),
        (Border(gain=(255.0,) * 3, offset=(0.0,) * 3), 1 / 255, 0),
        (Border(reach=255.0), 1, 0),
        (Border(reach=6.0), 1 / 255, 0),
    ],
)
def test_pixel_values_are_guessed_from_what_the_source_does_to_them(border, scale, mean):
    found = border.default(squash(SIZE))
    assert (found.scale, found.mean, found.std) == (pytest.approx(scale), (mean,) * 3, (1, 1, 1))


def test_one_channel_keeps_its_number():
    assert Border(dtype=np.dtype(np.int8)).default(squash(SIZE, 1)).mean == (128,)


# --- through --------------------------------------------------------------------------------------------------------------
def test_a_source_that_scales_nothing_leaves_the_preprocessing_as_it_is():
    outer = squash(SIZE)
    assert Border(channels_last=True, dtype=np.dtype(np.uint8)).through(outer) is outer


POSITIVE, ANY = st.floats(0.01, 100), st.floats(-100, 100)


@settings(max_examples=60)
@given(
    gain=st.tuples(POSITIVE, POSITIVE, POSITIVE), offset=st.tuples(ANY, ANY, ANY), scale=st.sampled_from([1.0, 1 / 255]),
    mean=st.tuples(ANY, ANY, ANY), std=st.tuples(POSITIVE, POSITIVE, POSITIVE),
)  # fmt: skip
def test_the_source_gets_what_was_asked_for_it(gain, offset, scale, mean, std):
    border = Border(gain=gain, offset=offset)
    outer = replace(squash(SIZE), scale=scale, mean=mean, std=std)
    image = prepared(border.through(outer), pixels())
    found, expected = border.source_input(image), prepared(outer, pixels())
    rounding = 1e-6 * np.abs(image).max() / min(gain)  # what float32 keeps of the image, seen from the source
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max() + rounding)


@settings(max_examples=25, deadline=None)
@given(gain=st.tuples(POSITIVE, POSITIVE, POSITIVE), offset=st.tuples(ANY, ANY, ANY), last=st.booleans())
def test_the_normal_form_on_prepared_pixels_equals_the_source_on_raw_ones(gain, offset, last):
    shape = (1, 1, 1, 3) if last else (3, 1, 1)
    turn = "t = Transpose <perm = [0, 3, 1, 2]> (b)" if last else "t = Identity (b)"
    source = graphs.parse(
        f"a = Mul (x, gain)  b = Add (a, offset)  {turn}  c = Conv (t, w)  p = GlobalMaxPool (c)  scores = Flatten (p)",
        image="N,4,5,3" if last else "N,3,4,5", w=(5, 3, 2, 2),
        gain=np.array(gain, np.float32).reshape(shape), offset=np.array(offset, np.float32).reshape(shape),
    )  # fmt: skip
    found, raw = normal(source), pixels()[:1].astype(np.float32)
    assert found.border.channels_last == last
    image = prepared(found.border.through(replace(squash(SIZE), scale=1.0)), raw).astype(np.float32)
    (expected,) = graphs.run(source, {"x": raw.transpose(0, 2, 3, 1) if last else raw})
    (scores,) = graphs.run(found.model, {found.image: image}, found.logits)
    np.testing.assert_allclose(scores, expected, rtol=1e-3, atol=1e-4 * max(1, np.abs(expected).max()))
