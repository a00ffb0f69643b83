"""exporters.passes.pixels: scaling and mean inside the model become the bundle's preprocessing, and nothing else does."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporters.passes import Normal
from tests import graphs
from tests.exporters.helpers import assert_reproduces, logits, normal, operators

BEHIND = "c = Conv <pads = [1, 1, 1, 1]> (t, w)  r = Relu (c)  p = GlobalMaxPool (r)  f = Flatten (p)  scores = MatMul (f, fc)"
WEIGHTS = {"w": (5, 3, 3, 3), "fc": (5, 4)}
KEPT = ["Conv", "Relu", "GlobalMaxPool", "Flatten", "MatMul"]
MEAN, STD = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)


def column(*numbers: float, rank: int = 3) -> np.ndarray:
    """Return one number a channel, (3, 1, 1) or (1, 3, 1, 1)."""
    return np.array(numbers, np.float32).reshape(*([1] * (rank - 3)), -1, 1, 1)


CONSTANTS = {
    "mean": MEAN.reshape(3, 1, 1), "std": STD.reshape(1, 3, 1, 1), "row_mean": MEAN, "row_std": STD,
    "half": np.float32(0.5), "two": np.float32(2), "bytes": np.float32(255), "square": np.full((1, 1, 1, 1), 3, np.float32),
    "minus": np.float32(-1), "mixed": column(1, -1, 1), "nought": np.float32(0), "one_nought": column(1, 0, 1),
    "places": np.random.default_rng(0).uniform(0.5, 2, (1, 3, 16, 16)).astype(np.float32),
    "rows": np.random.default_rng(0).uniform(0.5, 2, (1, 3, 16, 1)).astype(np.float32),
    "half16": np.float16(0.5), "two64": np.float64(2), "sizes": np.array([1, 3, 24, 24]), "twice": np.array([1, 1, 2, 2], np.float32), "roi": np.array([0, 0, 0.1, 0.1, 1, 1, 1.4, 1.4], np.float32),
    "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "turned": np.array([2, 1, 0]), "shifted": np.array([1, 2, 0]), "same": np.array([1, 1, 0]),
    "first": np.array([0]), "last": np.array([-1]), "beyond": np.array([-99]), "channel": np.array([1]), "back": np.array([-1]),
    "from": np.array([2, 3]), "to": np.array([14, 15]), "space": np.array([2, 3]),
}  # fmt: skip


def built(chain: str, image: str = "N,3,16,16", **options: object):
    """Return a classifier whose image goes through a chain of nodes from x to t."""
    used = {name: value for name, value in CONSTANTS.items() if name in chain.replace(",", " ").replace(")", " ").split()}
    used |= {name: value for name, value in CONSTANTS.items() if f"({name}" in chain}
    return graphs.parse(f"{chain} {BEHIND}", image=image, **WEIGHTS, **used, **options)


def drawn(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).uniform(-1, 2, shape or (1, 3, 16, 16)).astype(np.float32)


def assert_same(found: Normal, source, x: np.ndarray) -> None:
    expected = graphs.run(source, {"x": x})[0]
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(logits(found, x), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


LIFTED = {  # the chain, gain and offset
    "mean and std": ("a = Sub (x, mean)  t = Div (a, std)", 1 / STD, -MEAN / STD),
    "bytes": ("a = Div (x, bytes)  b = Sub (a, mean)  t = Div (b, std)", 1 / STD / 255, -MEAN / STD),
    "times and plus": ("a = Mul (x, two)  t = Add (a, half)", 2, 0.5),
    "constants first": ("a = Mul (two, x)  t = Add (half, a)", 2, 0.5),
    "plus and times": ("a = Add (x, half)  t = Mul (a, two)", 2, 1),
    "a scalar of rank 4": ("t = Mul (x, square)", 3, 0),
    "an identity between": ("a = Mul (x, two)  b = Identity (a)  t = Sub (b, half)", 2, -0.5),
    "a cast between": ("a = Mul (x, two)  b = Cast <to = 1> (a)  t = Sub (b, half)", 2, -0.5),
    "twice negative": ("a = Mul (x, minus)  b = Sub (a, half)  t = Mul (b, minus)", 1, 0.5),
    "behind a resize": ('a = Resize <mode = "linear"> (x, , , sizes)  b = Sub (a, mean)  t = Div (b, std)', 1 / STD, -MEAN / STD),
    "behind channels turned round": (
        "a = Slice (x, last, beyond, channel, back)  b = Sub (a, mean)  t = Div (b, std)", 1 / STD[::-1], (-MEAN / STD)[::-1]
    ),
    "round channels in another order": (
        "a = Mul (x, std)  b = Gather <axis = 1> (a, shifted)  t = Sub (b, mean)", STD, -MEAN[[2, 0, 1]]
    ),
    "behind a crop": ("a = Slice (x, from, to, space)  t = Sub (a, mean)", 1, -MEAN),
    "in float16": ("a = Cast <to = 10> (x)  b = Mul (a, half16)  t = Cast <to = 1> (b)", 0.5, 0),
    "in float64": ("a = Cast <to = 11> (x)  b = Mul (a, two64)  t = Cast <to = 1> (b)", 2, 0),
    "round a cubic resize": ('a = Mul (x, two)  b = Resize <mode = "cubic"> (a, , twice)  t = Sub (b, half)', 2, -0.5),
}  # fmt: skip


@pytest.mark.parametrize(("chain", "gain", "offset"), LIFTED.values(), ids=LIFTED)
def test_scaling_and_mean_are_lifted(chain, gain, offset):
    source = built(chain, "1,3,16,16")
    found = normal(source)
    assert [name for name in operators(found.model) if name in ("Add", "Sub", "Mul", "Div")] == []
    np.testing.assert_allclose(found.border.gain, np.broadcast_to(gain, 3), rtol=1e-6)
    np.testing.assert_allclose(found.border.offset, np.broadcast_to(offset, 3), rtol=1e-6, atol=1e-9)
    assert_same(found, source, drawn())


def test_scaling_before_a_move_to_channels_first_is_lifted_per_channel():
    source = built("a = Sub (x, row_mean)  b = Div (a, row_std)  t = Transpose <perm = [0, 3, 1, 2]> (b)", "N,16,16,3")
    found = normal(source)
    assert operators(found.model) == ["Identity", *KEPT]
    np.testing.assert_allclose(found.border.gain, 1 / STD, rtol=1e-6)
    np.testing.assert_allclose(found.border.offset, -MEAN / STD, rtol=1e-6)
    assert_same(found, source, drawn(1, 16, 16, 3))


def test_scaling_behind_a_move_to_channels_last_is_lifted_per_channel():
    turned = "a = Transpose <perm = [0, 2, 3, 1]> (x)  b = Sub (a, row_mean)  t = Transpose <perm = [0, 3, 1, 2]> (b)"
    source = built(turned)
    found = normal(source)
    assert operators(found.model) == KEPT
    np.testing.assert_allclose(found.border.offset, -MEAN, rtol=1e-6)
    assert_same(found, source, drawn())


def test_the_cast_of_whole_pixels_is_lifted_with_their_scaling():
    source = built("a = Cast <to = 1> (x)  b = Div (a, bytes)  t = Sub (b, mean)", element="uint8")
    found = normal(source)
    assert operators(found.model) == ["Identity", *KEPT]
    np.testing.assert_allclose(found.border.gain, [1 / 255] * 3)
    assert_same(found, source, np.random.default_rng(0).integers(0, 256, (1, 3, 16, 16), np.uint8))


def test_one_channel_is_scaled_by_one_number():
    source = graphs.parse(f"a = Sub (x, half)  t = Div (a, two) {BEHIND}", image="N,1,16,16", w=(5, 1, 3, 3), fc=(5, 4),
                          half=CONSTANTS["half"], two=CONSTANTS["two"])  # fmt: skip
    found = normal(source)
    assert (found.border.gain, found.border.offset) == ((0.5,), (-0.25,))
    assert_same(found, source, drawn(1, 1, 16, 16))


STAY = {
    "a negative gain": "t = Mul (x, minus)",
    "one negative gain": "t = Mul (x, mixed)",
    "a number less the image": "t = Sub (half, x)",
    "a number over the image": "a = Abs (x)  b = Add (a, half)  t = Div (two, b)",
    "division by the image alone": "t = Div (two, x)",
    "the image by itself": "t = Mul (x, x)",
    "a constant of every place": "t = Mul (x, places)",
    "a constant of every row": "t = Add (x, rows)",
    "nothing of a channel": "t = Mul (x, one_nought)",
    "division by nothing": "t = Div (x, nought)",
    "behind a padding": "a = Pad (x, pads)  t = Sub (a, half)",
    "behind a crop beyond the image": (
        'a = Resize <coordinate_transformation_mode = "tf_crop_and_resize", extrapolation_value = 7.0> (x, roi, , sizes)'
        "  t = Sub (a, half)"
    ),
    "behind a channel taken twice": "a = Gather <axis = 1> (x, same)  t = Sub (a, half)",
    "behind images in another order": "a = Gather <axis = 0> (x, first)  t = Sub (a, half)",
    "a power": "a = Relu (x)  t = Sub (a, half)",
}


@pytest.mark.parametrize("chain", STAY.values(), ids=STAY)
def test_what_is_no_scaling_with_a_positive_gain_per_channel_stays(chain):
    source = built(chain, "1,3,16,16")
    found = normal(source)
    assert not found.border.lifted
    assert set(operators(found.model)) & {"Add", "Sub", "Mul", "Div"}
    if "nought)" not in chain:
        assert_same(found, source, drawn())


def test_an_offset_without_end_stays():
    assert not normal(built("t = Add (x, k)", k=np.float32(np.inf))).border.lifted


def test_one_number_a_column_of_three_is_no_number_a_channel():
    source = built("t = Mul (x, row_std)", "N,3,16,3")
    found = normal(source)
    assert not found.border.lifted
    assert_same(found, source, drawn(1, 3, 16, 3))


def test_one_number_a_channel_and_image_stays():
    source = built("t = Mul (x, k)", "2,3,16,16", k=np.linspace(1, 2, 6).astype(np.float32).reshape(2, 3, 1, 1))
    assert not normal(source).border.lifted
    assert_same(normal(source), source, drawn(2, 3, 16, 16))


def test_scaling_before_what_stays_is_lifted():
    source = built("a = Mul (x, two)  b = Sub (a, mean)  t = Mul (b, places)", "1,3,16,16")
    found = normal(source)
    assert operators(found.model) == ["Mul", *KEPT]
    np.testing.assert_allclose(found.border.gain, [2] * 3)
    assert_same(found, source, drawn())


@pytest.mark.parametrize(
    ("chain", "reach"),
    [
        ("a = Clip (x, nought, bytes)  t = Sub (a, half)", 255),
        ("a = Clip (x, nought, two)  t = Sub (a, half)", 2),
        ("a = Clip (x, , bytes)  t = Sub (a, half)", 0),
        ("q = QuantizeLinear (x, two, zero_point)  t = DequantizeLinear (q, two, zero_point)", 2 * 155),
        ("t = Sub (x, half)", 0),
    ],
)
def test_the_largest_number_that_is_told_apart_is_noted(chain, reach):
    assert normal(built(chain, zero_point=np.uint8(100))).border.reach == reach


def test_a_model_that_clips_pixels_first_is_given_pixels(cut):
    bundle = cut(built("a = Clip (x, nought, bytes)  t = Sub (a, half)"), preset="imagenet", overrides={})
    assert (bundle.manifest.preprocess.scale, bundle.manifest.preprocess.mean) == (1.0, (0.0, 0.0, 0.0))


def test_a_second_reader_of_the_image_keeps_the_scaling():
    source = built("a = Sub (x, mean)  b = Relu (x)  t = Add (a, b)")
    found = normal(source)
    assert not found.border.lifted
    assert_same(found, source, drawn())


def test_a_second_reader_in_the_chain_ends_it():
    source = built("a = Mul (x, two)  b = Sub (a, half)  k = Relu (a)  t = Add (b, k)")
    found = normal(source)
    assert (found.border.gain, found.border.offset) == ((2.0,) * 3, (0.0,) * 3)
    assert_same(found, source, drawn())


def test_a_reader_inside_a_branch_counts():
    chain = """m = ReduceMax <keepdims = 0> (x)  yes = Greater (m, half)  a = Mul (x, two)
        t = If (yes) <then_branch = b () => (y) { y = Sub (a, x) }, else_branch = d () => (z) { z = Neg (a) }>"""
    source = built(chain)
    found = normal(source)
    assert not found.border.lifted
    assert_same(found, source, drawn())


def test_scaling_of_float16_pixels_is_lifted():
    source = built("a = Mul (x, k)  t = Cast <to = 1> (a)", element="float16", k=np.float16(2))
    found = normal(source)
    assert found.border.gain == (2.0,) * 3
    assert "Mul" not in operators(found.model)
    assert_same(found, source, drawn().astype(np.float16))


def test_scaling_by_one_and_nothing_is_removed_and_not_noted():
    source = built("a = Mul (x, k)  t = Add (a, nought)", k=np.float32(1))
    found = normal(source)
    assert operators(found.model) == KEPT
    assert not found.border.lifted
    assert_same(found, source, drawn())


@pytest.mark.parametrize("image", ["N,3,16,16", "N,16,16,3"])
def test_a_bundle_of_a_model_with_its_scaling_inside_reproduces_it(image, cut):
    last = image.endswith(",3")
    turn = "  t = Transpose <perm = [0, 3, 1, 2]> (b)" if last else "  t = Identity (b)"
    source = built(f"a = Sub (x, {'row_' * last}mean)  b = Div (a, {'row_' * last}std){turn}", image)
    bundle = cut(source)
    assert_reproduces(bundle, source, border=normal(source).border)
    np.testing.assert_allclose(bundle.manifest.preprocess.mean, MEAN, rtol=1e-6)
    np.testing.assert_allclose(bundle.manifest.preprocess.std, STD, rtol=1e-6)


NUMBERS = st.floats(-3, 3, width=32).filter(lambda v: abs(v) > 0.05)
STEPS = st.tuples(
    st.sampled_from(["Add", "Sub", "Mul", "Div"]), st.lists(NUMBERS, min_size=3, max_size=3), st.booleans(), st.booleans()
)


@settings(max_examples=40, deadline=None)
@given(st.lists(STEPS, max_size=5))
def test_any_chain_of_arithmetic_computes_the_same_lifted_or_not(steps):
    lines, constants, tensor = [], {}, "x"
    for i, (operator, numbers, per_channel, swapped) in enumerate(steps):
        constants[f"k{i}"] = column(*numbers) if per_channel else np.float32(numbers[0])
        pair = (f"k{i}", tensor) if swapped and operator != "Div" else (tensor, f"k{i}")
        lines.append(f"n{i} = {operator} ({', '.join(pair)})")
        tensor = f"n{i}"
    source = graphs.parse(f"{'  '.join(lines)}  t = Identity ({tensor}) {BEHIND}", **WEIGHTS, **constants)
    found, x = normal(source), drawn()
    expected = graphs.run(source, {"x": x})[0]
    np.testing.assert_allclose(logits(found, x), expected, rtol=1e-3, atol=1e-4 * max(1, np.abs(expected).max()))
    assert all(gain > 0 for gain in found.border.gain)


def test_a_branch_reads_the_image_once_the_scaling_is_lifted():
    branches = "<then_branch = u () => (float[N,3,16,16] y) { y = Neg (a) }, else_branch = e () => (float[N,3,16,16] z) { z = Abs (a) }>"
    source = built(f"a = Mul (x, two)  m = ReduceMax <keepdims = 0> (a)  yes = Greater (m, half)  t = If (yes) {branches}")
    found = normal(source)
    assert found.border.lifted
    assert_same(found, source, drawn())
