from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np

from camrt.evaluate.attempt import Attempt
from camrt.evaluate.measures import Found
from camrt.evaluate.results import MethodResult, PhotoResult, read_results

PHOTO = PhotoResult("new", 1, 2, None, 0.5, [8, 8], None, 2.0, 1.0)
RESULT = MethodResult({"adcc": 0.25}, {"insertion": [0.0, None]}, "ok", [], 11, 10, 0, 4.0, "")


def photo_line(name="a.png", photo=PHOTO):
    return {"photo": name, **asdict(photo)}


def method_line(state="new", result=RESULT):
    return {"photo": "a.png", "state": state, "variant": "grad-cam", **asdict(result)}


def test_what_was_kept_is_read_again():
    lines = json.loads(json.dumps([method_line(), photo_line()]))
    found = read_results(lines, {"a.png"})
    assert found.photos == {"a.png": PHOTO}
    assert found.methods == {("a.png", "grad-cam"): RESULT}


def test_a_figure_that_is_not_finite_is_kept_as_none():
    found = Found(Attempt(np.zeros((4, 4), np.float32), "flat_map"), {"adcc": np.nan}, {"insertion": [0.5, np.inf]})
    result = MethodResult.of(found)
    assert (result.values, result.curves) == ({"adcc": None}, {"insertion": [0.5, None]})
    assert result.degenerate


def test_results_of_a_photo_as_it_was_before_or_that_nobody_asked_for_are_left_out():
    lines = [method_line("old"), photo_line(), photo_line("b.png"), {"photo": "c.png", "error": "gone"}]
    found = read_results(lines, {"a.png", "d.png"})
    assert list(found.photos) == ["a.png"]
    assert not found.methods
    assert not found.failed


def test_an_error_is_forgotten_once_the_photo_was_measured():
    lines = [{"photo": "a.png", "error": "gone"}, {"photo": "b.png", "error": "gone"}, method_line(), photo_line()]
    assert read_results(lines, {"a.png", "b.png"}).failed == {"b.png": "gone"}


def test_the_stages_of_the_cascade_are_one_figure():
    about = {"photo": "a.png", "state": "new", "variant": "grad-cam"}
    stages = [{**about, "depth": d, "correlation": c} for d, c in ((2, 0.5), (0, 0.25))]
    stages.append({**about, "state": "old", "depth": 2, "correlation": 0.75})
    found = read_results([method_line(), *stages, photo_line()], {"a.png"})
    assert found.methods["a.png", "grad-cam"].values == {"adcc": 0.25, "randomisation": 0.375}


def test_a_figure_that_a_photo_lacks_is_nan():
    found = read_results([method_line(), photo_line(), photo_line("b.png")], {"a.png", "b.png"})
    np.testing.assert_array_equal(found.figure("grad-cam", "adcc"), [0.25, np.nan])
    np.testing.assert_array_equal(found.figure("grad-cam", "road"), [np.nan, np.nan])
