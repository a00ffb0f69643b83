from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camrt.errors import ParameterError
from camrt.image import geometry, on_network, restore
from camrt.metrics import box_region, energy_pointing_game, pointing_game
from camrt.preprocess import Preprocess, imagenet, squash


def spot(row: int, column: int, size: tuple[int, int] = (9, 9)) -> np.ndarray:
    heatmap = np.zeros(size, np.float32)
    heatmap[row, column] = 1
    return heatmap


# --- points -----------------------------------------------------------------------------------------------------------
def test_a_maximum_inside_hits_and_one_outside_misses():
    region = box_region([(2, 3, 5, 6)], (9, 9))
    assert pointing_game(spot(3, 2), region)
    assert pointing_game(spot(5, 4), region)
    assert not pointing_game(spot(2, 2), region)
    assert not pointing_game(spot(5, 5), region)


def test_one_of_several_maxima_inside_hits():
    region = spot(8, 8) > 0
    assert pointing_game(np.maximum(spot(0, 0), spot(8, 8)), region)
    assert not pointing_game(np.maximum(spot(0, 0), 0.99 * spot(8, 8)), region)


@pytest.mark.parametrize("value", [0.0, 1.0, 1 / 3])
def test_a_flat_heatmap_misses_even_a_region_of_everything(value):
    assert not pointing_game(np.full((9, 9), value), np.ones((9, 9), bool))


def test_nothing_hits_an_empty_region():
    assert not pointing_game(spot(4, 4), np.zeros((9, 9), bool))
    assert not pointing_game(spot(4, 4), np.zeros((9, 9), bool), tolerance=100)


def test_the_tolerance_is_a_disc_with_its_edge():
    region = spot(0, 0) > 0
    assert pointing_game(spot(3, 4), region, tolerance=5)
    assert not pointing_game(spot(3, 4), region, tolerance=4.99)
    assert not pointing_game(spot(4, 4), region, tolerance=5)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 99), st.integers(0, 12))
def test_the_tolerance_is_the_distance_to_the_nearest_pixel(seed, tolerance):
    rng = np.random.default_rng(seed)
    region = rng.random((12, 17)) < 0.02
    row, column = rng.integers(12), rng.integers(17)
    places = np.argwhere(region)
    near = len(places) and ((places - (row, column)) ** 2).sum(axis=1).min() <= tolerance**2
    assert pointing_game(spot(row, column, (12, 17)), region, tolerance) == near


# --- energy -----------------------------------------------------------------------------------------------------------
def test_energy_by_hand():
    heatmap = np.array([[1.0, 0.5], [0.25, 0.25]])
    assert energy_pointing_game(heatmap, np.array([[True, False], [True, False]])) == 0.625
    assert energy_pointing_game(heatmap, np.ones((2, 2), bool)) == 1
    assert energy_pointing_game(heatmap, np.zeros((2, 2), bool)) == 0
    assert energy_pointing_game(np.zeros((2, 2)), np.ones((2, 2), bool)) == 0


@given(st.integers(0, 99))
def test_a_region_and_the_rest_share_the_energy(seed):
    rng = np.random.default_rng(seed)
    heatmap, region = rng.random((5, 8)), rng.random((5, 8)) < 0.5
    assert energy_pointing_game(heatmap, region) + energy_pointing_game(heatmap, ~region) == pytest.approx(1)


# --- boxes ------------------------------------------------------------------------------------------------------------
def test_a_box_holds_the_pixels_whose_centres_it_holds():
    assert np.argwhere(box_region([(1, 2, 3, 3)], (4, 4))).tolist() == [[2, 1], [2, 2]]
    assert np.argwhere(box_region([(0.5, 0.6, 1.4, 1.6)], (4, 4))).tolist() == [[1, 0]]
    assert not box_region([(0.6, 0.6, 1.4, 1.4)], (4, 4)).any()


def test_boxes_add_up_and_none_is_nothing():
    assert box_region([(0, 0, 1, 1), (3, 3, 9, 9)], (4, 4)).sum() == 2
    assert not box_region([], (4, 4)).any()
    assert box_region(np.array([[0, 0, 4, 4]]), (4, 4)).all()


@pytest.mark.parametrize("box", [(3, 0, 1, 1), (0, 3, 1, 1), (0, 0, 1), (0, 0, 1, np.nan), (0, 0, np.inf, 1)])
def test_what_is_no_box_is_refused(box):
    with pytest.raises(ParameterError, match="A box must be"):
        box_region([box], (4, 4))


# --- refusals ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("game", [pointing_game, energy_pointing_game])
def test_a_region_of_another_shape_or_type_is_refused(game):
    with pytest.raises(ParameterError, match=r"bool of shape \(9, 9\), got bool of shape \(9, 8\).*on_network"):
        game(spot(1, 1), np.ones((9, 8), bool))
    with pytest.raises(ParameterError, match="got uint8"):
        game(spot(1, 1), np.ones((9, 9), np.uint8))


def test_a_negative_tolerance_or_energy_is_refused():
    with pytest.raises(ParameterError, match="tolerance must be 0 pixels or more, got -1"):
        pointing_game(spot(1, 1), np.ones((9, 9), bool), tolerance=-1)
    with pytest.raises(ParameterError, match="at least 0 to share it out, got -1"):
        energy_pointing_game(-spot(1, 1), np.ones((9, 9), bool))


# --- through the preprocessing ----------------------------------------------------------------------------------------
GEOMETRIES = [
    ((30, 60), Preprocess((64, 64), "letterbox")),
    ((90, 41), Preprocess((32, 48), "letterbox")),
    ((100, 200), imagenet((56, 56))),
    ((301, 222), imagenet((64, 64))),
    ((50, 80), squash((20, 24))),
    ((64, 64), squash((64, 64))),
]


@pytest.mark.parametrize(("photo", "preprocess"), GEOMETRIES)
def test_a_pixel_of_the_photo_is_hit_by_the_heatmap_of_where_the_network_saw_it(photo, preprocess):
    where = geometry(photo, preprocess)
    apart = max(
        1.0, *(n / r for n, r in zip(photo, where.resized, strict=True))
    )  # the photo's pixels under one of the network's
    found = 0
    for row, column in np.random.default_rng(0).permutation(np.argwhere(where.seen()))[:60]:
        region = spot(row, column, photo) > 0
        heatmap = on_network(region, where).astype(np.float32)
        if heatmap.any():  # a photo that shrinks has pixels between the network's
            found += 1
            assert pointing_game(heatmap, heatmap > 0) or heatmap.all()
            assert pointing_game(restore(heatmap, where), region, tolerance=apart)
    assert found >= 3


@pytest.mark.parametrize(("photo", "preprocess"), GEOMETRIES)
def test_a_region_is_false_on_padding_and_what_was_cropped_is_not_seen(photo, preprocess):
    where = geometry(photo, preprocess)
    everything = on_network(np.ones(photo, bool), where)
    assert everything.shape == where.network
    rows, columns = (np.arange(n) + start for n, start in zip(where.network, (where.top, where.left), strict=True))
    inside = ((rows >= 0) & (rows < where.resized[0]))[:, None] & ((columns >= 0) & (columns < where.resized[1]))
    assert np.array_equal(everything, inside)
    assert not on_network(~where.seen(), where)[1:-1, 1:-1].any()


def test_a_photo_seen_as_it_is_keeps_its_region():
    region = np.random.default_rng(0).random((64, 64)) < 0.3
    assert np.array_equal(on_network(region, geometry((64, 64), squash((64, 64)))), region)


def test_one_pixel_of_a_letterboxed_photo_becomes_its_block():
    where = geometry((4, 8), Preprocess((16, 16), "letterbox"))
    region = np.zeros((4, 8), bool)
    region[1, 6] = True
    assert np.argwhere(on_network(region, where)).tolist() == [[6, 12], [6, 13], [7, 12], [7, 13]]


def test_a_region_that_is_not_the_photos_is_refused():
    where = geometry((4, 8), squash((16, 16)))
    for region in (np.ones((8, 4), bool), np.ones((4, 8), np.uint8)):
        with pytest.raises(ParameterError, match=r"bool of the photo's shape \(4, 8\), got"):
            on_network(region, where)


def test_a_tolerance_beyond_all_numbers_is_the_whole_image():
    heat, region = np.zeros((4, 4)), np.zeros((4, 4), bool)
    heat[0, 0] = region[3, 3] = 1
    assert not pointing_game(heat, region, 4)
    assert pointing_game(heat, region, 10**400)
