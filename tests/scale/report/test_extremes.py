from __future__ import annotations

import numpy as np

from camrt.scale.report.extremes import Least


def test_the_least_of_many_rows_are_the_least(random):
    values = random.permutation(1000) / 1000
    values[::100] = np.nan
    least = Least(7)
    for part in range(10):
        least.add(values[part * 100 : part * 100 + 100], part, np.arange(100))
    expected = np.argsort(np.where(np.isnan(values), np.inf, values))[:7]
    assert [place.part * 100 + place.row for _, place in least] == expected.tolist()
