"""camrt.case: from logits to probabilities, and turns on a shared device."""

from __future__ import annotations

import itertools
import threading
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import camrt
from camrt.case import Case, log_odds, probabilities
from camrt.errors import BundleError, DeviceMemoryError
from camrt.turns import Stopped, Turns


@pytest.mark.parametrize("logit", [-80.0, -30.0, -17.0, -10.0, -1.0, -0.0, 0.0, 1.0, 10.0, 17.0, 30.0])
def test_a_sigmoid_is_right_in_all_its_digits_however_small(logit):
    (found,) = probabilities(np.array([logit], np.float32), "sigmoid")
    assert found.dtype == np.float32
    assert found == pytest.approx(1 / (1 + np.exp(-logit)), rel=3e-7)


def test_a_sigmoid_of_infinity_is_a_probability():
    assert probabilities(np.array([-np.inf, np.inf], np.float32), "sigmoid").tolist() == [0, 1]


def test_a_sigmoid_of_no_number_is_none():
    assert np.isnan(probabilities(np.array([np.nan], np.float32), "sigmoid")).all()


def test_a_sigmoid_rises_wherever_its_logit_does():
    found = probabilities(np.linspace(-60, -5, 1000, dtype=np.float32), "sigmoid")
    assert (np.diff(found) > 0).all()


# --- turns on the device --------------------------------------------------------------------------------------------------
def case(explainer, turns=None) -> Case:
    found = Case(explainer.engine, np.zeros((2, 3, 32, 32), np.float32), turns)
    found.targets = np.zeros((2, 1), np.int64)
    return found


ASKS = {
    "forward": lambda explainer, turns: case(explainer, turns),
    "gradient": lambda explainer, turns: case(explainer, turns).gradients(),
    "masked": lambda explainer, turns: case(explainer, turns).masked_scores(
        lambda start, stop: np.ones((2, stop - start, 8, 8), np.float32), 3, baseline="blur", score="logit"
    ),
    "tail": lambda explainer, turns: case(explainer, turns).edited_scores(
        lambda start, stop: np.ones((2, stop - start, 12, 8, 8), np.float32), 3, score="logit"
    ),
    "linear": lambda explainer, turns: case(explainer, turns).linear_tail(),
}


@pytest.mark.parametrize("ask", ASKS.values(), ids=ASKS)
def test_whatever_the_network_computes_takes_a_turn(tiny, ask, monkeypatch):
    held = []
    turns, run = Turns(), tiny.engine.sessions.run

    def noted(*arguments):
        held.append(turns._lock.locked())
        return run(*arguments)

    monkeypatch.setattr(tiny.engine, "_linear", None)
    monkeypatch.setattr(tiny.engine.sessions, "run", noted)
    ask(tiny, turns)
    assert held
    assert all(held)
    assert not turns._lock.locked()


@pytest.mark.parametrize("error", [DeviceMemoryError, BundleError, ValueError, MemoryError, KeyboardInterrupt])
@pytest.mark.parametrize("ask", ASKS.values(), ids=ASKS)
@pytest.mark.parametrize("call", [0, 1])
def test_every_error_gives_the_turn_back(tiny, ask, error, call, monkeypatch):
    turns, run, calls = Turns(), tiny.engine.sessions.run, itertools.count()

    def fails(*arguments):
        if next(calls) >= call:
            raise error("no")
        return run(*arguments)

    monkeypatch.setattr(tiny.engine, "_linear", None)
    monkeypatch.setattr(tiny.engine, "max_masked_batch", 5)  # a full device lowers it for good
    monkeypatch.setattr(tiny.engine.sessions, "run", fails)
    with suppress(error):
        ask(tiny, turns)
    with turns:
        pass


def test_the_wait_is_told_apart_from_the_work(tiny):
    turns = Turns()
    waits = case(tiny, turns)
    release = threading.Timer(0.1, turns.__exit__)
    turns.__enter__()
    release.start()
    with waits.computing("work"):
        pass
    assert waits.timings["wait"] > 50 > waits.timings["work"]
    assert "wait" not in case(tiny).timings


@pytest.mark.parametrize("ask", ["masked", "tail"])
def test_between_calls_there_is_a_chance_to_stop(tiny_bundle, ask, monkeypatch):
    explainer = camrt.load(tiny_bundle, ["cpu"], max_masked_batch=2)  # a call for each mask
    turns, run, calls = Turns(), explainer.engine.sessions.run, []

    def noted(*arguments):
        calls.append(arguments[0])
        if len(calls) == 3:
            turns.end()
        return run(*arguments)

    monkeypatch.setattr(explainer.engine.sessions, "run", noted)
    with pytest.raises(Stopped):
        ASKS[ask](explainer, turns)
    assert len(calls) == 3
    assert not turns._lock.locked()


# --- log-odds -------------------------------------------------------------------------------------------------------------
@given(st.lists(st.floats(-40, 40, width=32), min_size=2, max_size=9))
def test_log_odds_are_those_of_the_softmax(values):
    z = np.array(values, np.float64)
    expected = [z[i] - np.log(np.exp(np.delete(z, i)).sum()) for i in range(len(z))]
    found = log_odds(np.array(values, np.float32), "logits")
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_log_odds_tell_apart_what_is_certain_by_its_probability():
    logits = np.array([[60, 1, 0], [90, 1, 0], [3000, 1, 0]], np.float32)
    assert (probabilities(logits, "logits")[:, 0] == 1).all()
    assert log_odds(logits, "logits")[:, 0] == pytest.approx([60 - 1.3132617, 90 - 1.3132617, 3000 - 1.3132617])


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        ("sigmoid", [-3, 0, 200], [-3, 0, 200]),
        ("scores", [-3, 0, 2], [-3, 0, 2]),
        ("probabilities", [0.25, 0.5], [-np.log(3), 0]),
        ("logits", [5], [0]),
    ],
)
def test_log_odds_of_other_kinds_of_outputs(kind, values, expected):
    assert log_odds(np.array(values, np.float32), kind) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("kind", ["logits", "probabilities", "sigmoid", "scores"])
def test_log_odds_of_certainty_are_finite_and_of_nothing_finite_are_nan(kind):
    assert np.isfinite(log_odds(np.array([[1, 0]], np.float32), kind)).all()
    assert np.isnan(log_odds(np.array([[np.nan, 0.5]], np.float32), kind)[0, 0])
