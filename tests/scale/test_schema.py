from __future__ import annotations

import inspect
import re

import numpy as np
import pytest

from camrt import answer, case
from camrt.errors import DeviceMemoryError, ImageError
from camrt.image import upsample
from camrt.methods import METHODS
from camrt.scale.on_photo import on_photo
from camrt.scale.schema import OUTCOMES, SCHEMA, STAGES, Row, crashed, explained, failed, heatmaps, table
from tests.conftest import SAMPLES


@pytest.mark.parametrize("name", [n for n in METHODS if n not in ("cam", "rise")])
def test_every_methods_rows_hold_what_it_shows(tiny, pixels, name):
    explanation = tiny.explain(pixels, method=name, top=3)
    rows = explained(explanation, (8, 8))
    for i, row in enumerate(rows):
        assert row.values["rank"] == i
        assert set(row.values["timings"]) <= set(STAGES)
        if row.heatmap is None:
            assert row.values["outcome"] != "ok"
            continue
        assert row.heatmap.shape == (8, 8)
        assert row.heatmap.dtype == np.float16
        seen = np.maximum(upsample(row.heatmap.astype(np.float32), (32, 32)), 0)
        np.testing.assert_allclose(seen, explanation.network_heatmap[i], atol=2e-3)


def test_the_stages_are_all_that_are_ever_timed():
    sources = [inspect.getsource(module) for module in (answer, case)]
    sources += [inspect.getsource(inspect.getmodule(method.run)) for method in METHODS.values()]
    named = set(re.findall(r'(?:stage|computing|rest)\("(\w+)"\)', "".join(sources)))
    assert named | {"decode", "preprocess", "total"} == set(STAGES)


def test_maps_larger_than_the_features_are_shrunk_to_them(tiny, pixels):
    (row,) = explained(tiny.explain(pixels, method="rise", masks=40), (8, 8))
    assert row.heatmap.shape == (8, 8)
    assert np.nanmax(row.heatmap) == pytest.approx(1, abs=0.05)


def test_a_table_has_the_columns_of_the_schema_and_nulls_for_what_is_missing(tiny, pixels):
    rows = [*explained(tiny.explain(pixels, top=2), (8, 8)), failed(ImageError("torn")), failed(DeviceMemoryError("full")), crashed("signal")]
    found = table(rows)
    assert found.schema.equals(SCHEMA)
    assert found["outcome"].to_pylist()[2:] == ["unreadable", "out_of_memory", "crashed"]
    assert found["error"].to_pylist() == [None, None, "torn", "full", "signal"]
    assert found["heatmap"].null_count == 3 + sum(row.heatmap is None for row in rows[:2])
    assert set(found["outcome"].to_pylist()) <= set(OUTCOMES)


def test_heatmaps_become_lists_of_lists():
    first, second = np.arange(6, dtype=np.float16).reshape(2, 3), np.ones((1, 2), np.float16)
    assert heatmaps([None, first, None, second]).to_pylist() == [None, first.tolist(), None, second.tolist()]
    assert heatmaps([None]).to_pylist() == [None]
    assert heatmaps([]).to_pylist() == []


def test_a_probability_that_is_none_is_null():
    assert table([Row({"outcome": "not_finite", "probability": None}, None)])["probability"].to_pylist() == [None]


def test_a_heatmap_on_its_photo_is_that_of_explain(shapes, tmp_path):
    explanation = shapes.explain(SAMPLES / "star_ring.png", top=2)  # letterboxed
    frame = table(explained(explanation, (12, 12))).to_pandas()
    for i, row in frame.iterrows():
        np.testing.assert_allclose(on_photo(row), explanation.heatmap[i], atol=2e-3)
    with pytest.raises(ImageError, match="does not tell where the network's window lies"):
        on_photo(table([failed(ImageError("torn"))]).to_pylist()[0])
    with pytest.raises(ImageError, match="does not tell"):
        on_photo(table([*explained(explanation, (12, 12)), failed(ImageError("torn"))]).to_pandas().iloc[2])
