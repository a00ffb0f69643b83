from __future__ import annotations

import threading

import pytest

from camrt.turns import Stopped, Turns


def free(turns: Turns) -> bool:
    """Tell whether another thread gets its turn."""
    found = []

    def take() -> None:
        with turns:
            found.append(True)

    other = threading.Thread(target=take, daemon=True)
    other.start()
    other.join(0.05)
    return bool(found)


def test_one_at_a_time():
    turns = Turns()
    with turns:
        assert not free(turns)
    assert free(turns)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, Stopped])
def test_an_error_gives_the_turn_back(error):
    turns = Turns()
    with pytest.raises(error), turns:
        raise error
    assert free(turns)


def test_after_the_end_nobody_goes_on():
    turns = Turns()
    turns.go_on()
    with turns:
        turns.end()
        turns.end()
        with pytest.raises(Stopped):
            turns.go_on()
    with pytest.raises(Stopped), turns:
        raise AssertionError("went on")


def test_who_waited_when_the_end_came_does_not_go_on():
    turns, told = Turns(), []

    def wait() -> None:
        try:
            with turns:
                told.append("went on")
        except Stopped:
            told.append("stopped")

    others = [threading.Thread(target=wait, daemon=True) for _ in range(3)]
    with turns:
        for other in others:
            other.start()
        turns.end()
    for other in others:
        other.join(2)
    assert told == ["stopped"] * 3
