"""Arithmetic of floors and ratios, on made-up times."""

from __future__ import annotations

import pytest

from camrt.floor import Floor, Spread

TIMES = {1: [10.0, 12.0], 4: [20.0, 24.0], 8: [48.0, 48.0], 16: [64.0, 32.0]}


def test_an_explanations_floor_is_one_image_and_the_masked_ones_in_the_best_batch_of_at_most_those():
    assert Floor(TIMES).of_explanation(masked=10) == [10 + 10 * 20 / 4, 12 + 10 * 24 / 4]
    assert Floor(TIMES).of_explanation(masked=3) == [10 + 3 * 10, 12 + 3 * 12]
    assert Floor(TIMES).of_explanation(masked=4000) == [10 + 4000 * 64 / 16, 12 + 4000 * 32 / 16]


def test_without_masked_images_the_floor_is_one_bare_pass():
    assert Floor(TIMES).of_explanation(masked=0) == [10, 12]


def test_a_streams_floor_is_all_its_passes_in_the_best_batch():
    assert Floor(TIMES).of_stream(passes=22) == [22 * 64 / 16, 22 * 32 / 16]
    assert Floor(TIMES).best(22) == 16
    assert Floor(TIMES).best(15) == 4


def test_times_of_the_floor_are_told_an_image():
    assert Floor(TIMES).an_image()[4] == Spread(5.5, 5.25, 5.75)


def test_a_ratio_is_the_median_of_the_rounds_ratios_and_not_the_ratio_of_medians():
    assert Spread.of_ratios([10, 100, 30], [10, 50, 10]).median == 2
    with pytest.raises(ValueError):
        Spread.of_ratios([1, 2], [1])


def test_quartiles_lie_among_the_runs():
    assert Spread.of([7]) == Spread(7, 7, 7)
    assert Spread.of([10, 1]) == Spread(5.5, 3.25, 7.75)
    assert Spread.of([1, 2, 3, 4, 5]) == Spread(3, 2, 4)
