"""Why A and not B: scores, logits and gradients are differences, so the two directions are opposite."""

from __future__ import annotations

import numpy as np
import pytest

from camrt.methods import METHODS
from tests.methods.judge import photos

QUICK = {"cluster-cam": {"clusters": 4}, "rise": {"masks": 10}}


def maps(judge, target, versus=None, **options) -> np.ndarray:
    return judge.explainer.explain(photos()[0], target=target, versus=versus, **options).maps


@pytest.mark.parametrize("method", METHODS)
def test_every_method_takes_versus(linear, method):
    options = {"method": method, **QUICK.get(method, {})}
    explanation = linear.explainer.explain(photos()[0], targets=[0, 3], versus=5, **options)
    assert [(t.index, t.versus.index) for t in explanation.targets] == [(0, 5), (3, 5)]
    assert np.isfinite(explanation.maps).all()
    alone = linear.explainer.explain(photos()[0], targets=[0, 3], **options)
    assert np.array_equal(explanation.maps, alone.maps) == (method == "eigen-cam")  # which knows of no classes


@pytest.mark.parametrize("method", [name for name in METHODS if name not in ("eigen-cam", "cam")])
def test_the_two_directions_are_two_maps(judge, method):
    options = {"method": method, **QUICK.get(method, {})}
    one, other = (maps(judge, a, b, **options) for a, b in ((0, 3), (3, 0)))
    assert not np.array_equal(one, other)


def test_hires_cam_of_a_against_b_is_minus_that_of_b_against_a(judge):
    one, other = (maps(judge, a, b, method="hires-cam", raw=True) for a, b in ((0, 3), (3, 0)))
    assert one.any()
    assert np.array_equal(one, -other)


def test_hires_cam_of_a_against_b_is_the_difference_of_their_maps(judge):
    a, b = (maps(judge, target, method="hires-cam", raw=True) for target in (0, 3))
    against = maps(judge, 0, 3, method="hires-cam", raw=True)
    assert against == pytest.approx(a - b, abs=1e-5 * float(np.abs(against).max()))


@pytest.mark.parametrize("masking", ["image", "features"])
@pytest.mark.parametrize("score", ["probability", "logit"])
def test_the_evidence_of_a_against_b_is_minus_that_of_b_against_a(judge, masking, score):
    options = {"merge": "evidence", "masking": masking, "score": score, "clusters": 6}
    one, other = (maps(judge, a, b, **options) for a, b in ((0, 3), (3, 0)))
    assert one.any()
    assert np.array_equal(one, -other)


def test_the_gradient_against_the_only_logit_is_minus_that_for_it(yes_no):
    engine = yes_no.explainer.engine
    features = yes_no.engine_features(yes_no.image(photos()[0]))[None]
    found = engine.gradients(features, np.array([[[1], [-1]]], np.float32)).values[0]
    assert found[0].any()
    assert np.array_equal(found[0], -found[1])
