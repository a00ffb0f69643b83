from __future__ import annotations

import base64
import re

import cv2
import numpy as np
import pytest

from camrt.picture import fitted, picture


def test_a_picture_has_its_size_its_text_and_its_colours():
    pixels = np.full((20, 30, 3), (200, 40, 90), np.uint8)
    text = picture(pixels, "a < b", "why")
    assert 'alt="a &lt; b" title="why" width="30" height="20" loading="lazy"' in text
    data = base64.b64decode(re.search(r'src="data:image/jpeg;base64,([^"]+)"', text)[1])
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    np.testing.assert_allclose(decoded, pixels, atol=4)


@pytest.mark.parametrize("shape", [(1, 1000), (1000, 1), (7, 7), (300, 500, 3)])
@pytest.mark.parametrize("enlarged", [False, True])
def test_what_is_fitted_has_the_side_and_is_never_empty(shape, enlarged):
    size = fitted(shape, 192, enlarged=enlarged)
    assert max(size) == (192 if enlarged else min(192, max(shape)))
    assert min(size) >= 1
