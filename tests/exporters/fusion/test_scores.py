from __future__ import annotations

import numpy as np
import pytest

from camrt import case
from exporters.fusion import scores

from .helpers import emitted

NAN, INF = np.nan, np.inf
KINDS = ("logits", "sigmoid", "probabilities", "scores")


def in_graph(logits: np.ndarray, kind: str = "logits") -> np.ndarray:
    """Return the log-odds of logits (N, L) as a graph has them."""
    count = logits.shape[-1]

    def emit(op, z):
        numbers = op.Range(op.constant(0), op.constant(count), op.constant(1))
        return scores.log_odds(op, z, kind, numbers, count)

    return emitted(emit, {"z": logits})[0]


def runtimes(logits: np.ndarray, kind: str = "logits") -> np.ndarray:
    with np.errstate(all="ignore"):
        return case.log_odds(logits, kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("classes", [1, 2, 3, 40])
def test_log_odds_are_the_runtimes(rng, kind, classes):
    logits = rng.normal(0, 5, (6, classes)).astype(np.float32)
    logits = case.probabilities(logits, "sigmoid") if kind == "probabilities" else logits
    np.testing.assert_allclose(in_graph(logits, kind), runtimes(logits, kind), rtol=2e-6, atol=2e-6)


def test_log_odds_of_what_is_next_to_certain_are_told_apart(rng):
    logits = rng.normal(0, 1, (4, 10)).astype(np.float32)
    logits[:, 3] += np.array([20, 40, 80, 300], np.float32)
    found = in_graph(logits)
    assert (found[:, 3] > [15, 35, 75, 295]).all()
    np.testing.assert_allclose(found, runtimes(logits), rtol=2e-6)


def test_log_odds_of_equal_logits_are_those_of_chance():
    np.testing.assert_allclose(in_graph(np.full((1, 5), 7, np.float32)), np.full((1, 5), -np.log(4)), rtol=1e-6)


def test_certain_and_impossible_probabilities_have_finite_log_odds():
    found = in_graph(np.array([[0, 1, 0.5, 1e-30]], np.float32), "probabilities")
    np.testing.assert_allclose(found, runtimes(np.array([[0, 1, 0.5, 1e-30]], np.float32), "probabilities"), rtol=1e-6)
    assert np.isfinite(found).all()


@pytest.mark.parametrize("row", [
    [NAN, 1, 2, 3], [1, 2, NAN, 3], [3, 2, 1, NAN], [NAN, NAN, NAN, NAN], [INF, 1, 2, 3], [1, 2, INF, 3], [INF, 1, INF, 3],
    [-INF, 1, 2, 3], [1, 2, 3, -INF], [-INF, -INF, 2, 3], [-INF, -INF, -INF, 3], [-INF, -INF, -INF, -INF], [INF, -INF, 0, NAN],
    [3e38, -3e38, 0, 1],
])  # fmt: skip
@pytest.mark.parametrize("kind", KINDS)
def test_log_odds_of_what_is_not_finite_are_the_runtimes(kind, row):
    logits = np.array([row, [1, 2, 3, 4]], np.float32)
    found, expected = in_graph(logits, kind), runtimes(logits, kind)
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=2e-6)
