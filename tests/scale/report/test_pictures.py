from __future__ import annotations

import cv2
import numpy as np
import pytest

from camrt.image import preprocess_photo
from camrt.preprocess import Preprocess
from camrt.scale.report.pictures import geometry_of, over_photo

from .datasets import found, spot


@pytest.mark.parametrize("resize", ["letterbox", 96, (96, 96)])
@pytest.mark.parametrize("shape", [(300, 500), (500, 300), (80, 80)])
def test_a_heatmap_lies_over_its_photo_as_the_network_saw_it(tmp_path, shape, resize):
    photo = np.full((*shape, 3), 128, np.uint8)
    preprocess = Preprocess(size=(96, 96), resize=resize)
    _, where = preprocess_photo(photo, preprocess)
    cv2.imwrite(str(tmp_path / "photo.png"), photo)
    centre = shape[0] / 2, shape[1] / 2  # of the photo, that is, of the window
    numbers = (*where.photo, *where.resized, where.top, where.left, *where.network)
    row = found(0, spot(2, 4, 7), where=numbers)
    values = {**row.values, "source": str(tmp_path / "photo.png"), "heatmap": row.heatmap.tolist()}
    drawn = over_photo(values)
    assert drawn.missing is None
    ratio = 192 / max(shape)
    assert drawn.pixels.shape == (round(shape[0] * ratio), round(shape[1] * ratio), 3)
    small = geometry_of(values, drawn.pixels.shape[:2])
    np.testing.assert_array_equal((drawn.pixels == 128).all(axis=2), ~small.seen())
    redness = drawn.pixels[..., 0].astype(int) - drawn.pixels[..., 2]
    found_at = np.argwhere(redness == redness.max()).mean(axis=0) / ratio
    scale = where.resized[0] / where.photo[0], where.resized[1] / where.photo[1]
    expected = [c + 96 / 7 * step / s for c, s, step in zip(centre, scale, (-1, 1), strict=True)]
    assert found_at == pytest.approx(expected, abs=0.06 * max(shape))


@pytest.mark.parametrize(("change", "text"), [
    ({"source": "nowhere.png"}, "there is no such file"),
    ({"source": None}, "names no path"),
    ({"source": "nowhere://bucket/a.png"}, "nowhere"),
    ({"photo_height": 41}, "size has changed"),
    ({"network_height": None}, "does not tell"),
    ({"network_height": 2**31 - 1}, "does not tell"),
    ({"resized_width": 0}, "does not tell"),
    ({"top": 10_000}, "does not tell"),
])  # fmt: skip
def test_where_the_photo_cannot_be_shown_the_heatmap_stands_alone(tmp_path, change, text):
    cv2.imwrite(str(tmp_path / "photo.png"), np.full((40, 60, 3), 90, np.uint8))
    row = found(0, spot(0, 0), where=(40, 60, 32, 32, 0, 0, 32, 32))
    values = {**row.values, "source": str(tmp_path / "photo.png"), "heatmap": row.heatmap.tolist()}
    assert over_photo(values).missing is None
    drawn = over_photo({**values, **change})
    assert text in drawn.missing
    assert drawn.pixels.shape == (192, 192, 3)
