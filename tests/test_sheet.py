from __future__ import annotations

import numpy as np
import pytest

from camrt.explanation import counted
from camrt.methods import METHODS
from camrt.photo import load_photo
from camrt.sheet import COLUMNS, SIDE, attempt_all, contact_sheet

from .conftest import SAMPLES

QUICK = [name for name in METHODS if name != "rise"]


@pytest.fixture(scope="module")
def attempts(shapes):
    return attempt_all(shapes, load_photo(SAMPLES / "star_ring.png"), methods=QUICK, targets=["star", "ring"])


def test_every_method_is_tried_and_one_that_cannot_run_says_why(attempts):
    assert [a.method for a in attempts] == QUICK
    assert [a.method for a in attempts if a.explanation is None] == ["cam"]  # the tail of shapes is not linear
    assert "global average pooling" in next(a.reason for a in attempts if a.explanation is None)


def test_each_method_is_told_when_it_is_done(shapes):
    done = []
    attempt_all(shapes, load_photo(SAMPLES / "star.png"), methods=QUICK[:3], step=lambda: done.append(1))
    assert len(done) == 3


def test_a_block_a_target_holds_the_photo_and_every_method(attempts):
    sheet = contact_sheet(attempts)
    rows = -(-(1 + len(attempts)) // COLUMNS)
    one = contact_sheet([a for a in attempts if a.explanation is None or a.method != "cam"][:1])
    assert sheet.dtype == np.uint8
    assert sheet.shape[1] == one.shape[1]
    assert sheet.shape[0] == 2 * rows * (one.shape[0] // 2)


def test_a_tile_shows_the_methods_own_overlay(attempts):
    sheet = contact_sheet(attempts, alpha=1.0)
    second = sheet[:SIDE, SIDE + 8 : 2 * SIDE + 8]  # the first method of the first target, after the photo
    overlay = attempts[0].explanation.overlay(0, alpha=1.0)
    import cv2

    expected = cv2.resize(overlay, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    assert np.array_equal(second, expected)


def test_wide_and_tall_photos_and_letters_beyond_ascii_are_laid_out(tiny):
    for shape in ((10, 900, 3), (900, 10, 3), (1, 1, 3)):
        photo = load_photo(np.full(shape, 90, np.uint8))
        tried = attempt_all(tiny, photo, methods=["hires-cam", "eigen-cam"])
        assert contact_sheet(tried).shape[1] == COLUMNS * (SIDE + 8)


def test_a_cost_names_what_ran():
    assert counted(1, 0, 0) == "1 pass"
    assert counted(34, 0, 1) == "34 passes + 1 backward"
    assert counted(1, 49, 0) == "1 pass + 49 of the tail"
