from __future__ import annotations

import numpy as np
import pytest

import camrt
from camrt.evaluate import read_variants
from camrt.evaluate.variant import CONTROLS
from camrt.methods import METHODS, SLOW


def test_a_name_carries_its_parameters():
    (variant,) = read_variants(["cluster-cam:clusters=32:merge=evidence"], controls=False)
    assert (variant.settings["clusters"], variant.settings["merge"], variant.settings["seed"]) == (32, "evidence", 0)


@pytest.mark.parametrize(("word", "left_out"), [("all", ()), ("fast", SLOW)])
def test_a_word_stands_for_many_methods(word, left_out):
    assert [v.name for v in read_variants([word], controls=False)] == [name for name in METHODS if name not in left_out]


def test_controls_come_last_and_the_first_named_method_first():
    names = [v.name for v in read_variants(["grad-cam", "fast"])]
    assert names[0] == "grad-cam"
    assert names.count("grad-cam") == 1
    assert names[-2:] == list(CONTROLS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (["grad-cm"], "There is no method 'grad-cm'. Did you mean 'grad-cam'"),
        (["rise:masks"], "parameters are written NAME:PARAMETER=VALUE"),
        (["rise:masks=1:masks=2"], "each once"),
        (["rise:masks=many"], "masks must be a whole number"),
        (["grad-cam", "grad-cam"], "asked for twice"),
        ([], "No method is asked for"),
        ([""], "There is no method ''"),
    ],
)
def test_what_cannot_be_compared_is_refused(text, message):
    with pytest.raises(camrt.ParameterError, match=message):
        read_variants(text)


@pytest.mark.parametrize(
    ("text", "seeded"),
    [
        ("cluster-cam", True),
        ("rise", True),
        ("grad-cam", False),
        ("cluster-cam:clustering=agglomerative", False),
        ("group-cam", False),
        ("group-cam:grouping=kmeans", True),
    ],
)
def test_a_variant_knows_whether_a_seed_matters(text, seeded):
    (variant,) = read_variants([text], controls=False)
    assert variant.seeded == seeded
    if seeded:
        assert variant.with_seed(7).settings["seed"] == 7


@pytest.mark.parametrize("name", CONTROLS)
def test_a_control_is_a_heatmap_that_pixels_alone_decide(name):
    x = np.random.default_rng(0).random((3, 40, 60), np.float32)
    heatmap = CONTROLS[name](x)
    assert heatmap.shape == (40, 60)
    assert heatmap.dtype == np.float32
    assert (heatmap.min(), heatmap.max()) == (0, 1)
    assert (heatmap == CONTROLS[name](x.copy())).all()


def test_the_centre_map_is_highest_in_the_centre_and_the_random_map_differs_between_images():
    x = np.random.default_rng(0).random((3, 41, 61), np.float32)
    assert np.unravel_index(CONTROLS["centre map"](x).argmax(), (41, 61)) == (20, 30)
    assert (CONTROLS["random map"](x) != CONTROLS["random map"](x + 1)).any()
