"""Numbers beyond float16's range are found where they arise, and named."""

from __future__ import annotations

import numpy as np
import pytest

from camrt.errors import ExportError
from exporters import export
from exporters.passes import Normal
from exporters.peaks import Peaks
from tests import graphs
from tests.exporters.helpers import normal

END = "p = GlobalAveragePool (y)  f = Flatten (p)  scores = MatMul (f, fc)"
WEIGHTS = {"w": np.ones((2, 3, 1, 1), np.float32), "fc": (2, 3)}


@pytest.fixture(scope="module")
def network() -> Normal:
    """A network that multiplies the sum of the colours by 1000, then divides it again."""
    body = "[sum] c = Conv (x, w)  [up] u = Mul (c, thousand)  [down] y = Div (u, thousand)"
    return normal(graphs.parse(f"{body}  {END}", **WEIGHTS, thousand=np.float32(1000)))


def image(value: float) -> np.ndarray:
    return np.full((1, 3, 16, 16), value, np.float32)


def test_numbers_within_the_range_pass(network):
    Peaks(network.graph(), network.image, {"c", "u", "y"}).check({"grey": image(21.8), "dark": image(-21.8)})


@pytest.mark.parametrize("value", [21.9, -21.9])
def test_the_operator_the_number_and_the_kind_of_image_are_named(network, value):
    peaks = Peaks(network.graph(), network.image, {"c", "u", "y"})
    with pytest.raises(
        ExportError, match=r"what Mul 'up' gives: 6.57e\+04 in 'u' on 'grey' images.*65504.*Leave out --precision"
    ):
        peaks.check({"black": image(0), "grey": image(value)})


def test_only_the_named_tensors_are_looked_at(network):
    Peaks(network.graph(), network.image, {"c", "y"}).check({"grey": image(1e3)})


def test_the_first_on_the_way_is_named(network):
    with pytest.raises(ExportError, match="Conv 'sum'"):
        Peaks(network.graph(), network.image, {"c", "u", "y"}).check({"grey": image(3e4)})


@pytest.mark.parametrize("kept", ["", "s = Softmax <axis = 1> (u)  y = Add (s, y1)"], ids=["float16", "read by both"])
def test_an_export_whose_maps_overflow_is_refused(kept, tmp_path):
    body = "[sum] c = Conv (x, w)  [up] u = Mul (c, thousand)  [down] y1 = Div (u, thousand)"
    built = graphs.parse(f"{body}  {kept or 'y = Relu (y1)'}  {END}", **WEIGHTS, thousand=np.float32(1000))
    source = graphs.save(built, tmp_path / "model.onnx")
    with pytest.raises(ExportError, match="cannot hold what Mul 'up' gives"):
        export(source, tmp_path / "bundle", preset=None, overrides={"scale": 1.0}, precision="fp16")
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    export(source, tmp_path / "bundle", overrides={"scale": 1.0})


def test_a_map_computed_in_float32_but_held_in_float16_counts(tmp_path):
    built = graphs.parse(f"c = Conv (x, w)  [square] u = Pow (c, two)  [down] y = Div (u, big)  {END}", **WEIGHTS,
                         two=np.float32(2), big=np.float32(6e4))  # fmt: skip
    source = graphs.save(built, tmp_path / "model.onnx")
    with pytest.raises(ExportError, match="cannot hold what Pow 'square' gives"):
        export(source, tmp_path / "bundle", overrides={"scale": 1.0}, precision="fp16")
