"""Order of texts, and those that repeat, whatever their number."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camrt.scale import order
from camrt.scale.order import Once, digest_of, in_order

NAMES = st.text(max_size=6) | st.binary(max_size=6).map(lambda data: data.decode(errors="surrogateescape"))


@settings(deadline=None)
@given(st.lists(NAMES), st.integers(1, 4))
def test_in_order_is_sorted_however_little_fits_into_memory(names, most):
    assert list(in_order(names, most)) == sorted(names)


def test_in_order_keeps_few_files_open(monkeypatch):
    monkeypatch.setattr(order, "RUNS", 3)
    names = [f"{i * 7919 % 101}" for i in range(101)]
    assert list(in_order(names, 2)) == sorted(names)


def test_in_order_takes_nothing_before_it_is_asked():
    in_order(pytest.fail("taken") for _ in range(1))


def test_in_order_may_be_left_halfway():
    texts = in_order(map(str, range(10)), 2)
    assert next(texts) == "0"
    texts.close()


@settings(deadline=None)
@given(st.lists(NAMES, max_size=30))
def test_once_tells_exactly_what_repeats(names):
    with Once() as once:
        for name in names:
            once.add(name)
        assert once.repeated() == {digest_of(name) for name, count in Counter(names).items() if count > 1}


def test_once_forgets_no_repetition_among_many():
    with Once() as once:
        for i in range(20_000):
            once.add(str(i % 19_999))
        assert once.repeated() == {digest_of("0")}
